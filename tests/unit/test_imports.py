"""Imports point one way: commands → build → engine → stages → models, media → clip."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "vidal"
NOT_IN_THE_WHEEL = ("benchmarks", "tests", "tools")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Modules of the repository that a file imports, wherever in it; for ``from a import b`` both a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] in ("vidal", *NOT_IN_THE_WHEEL)}


MODULES = {module_of(path): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}
FRONT = ("vidal.commands", "vidal.build", "vidal.doctor")

ABOVE_MODALITY = [
    f"vidal.{name}" for name in ("dataset", "engine", "models", "recipe", "report", "sources", "stages", "train")
]

# Who must not import whom; a name stands for the module and all under it.
ONE_WAY = [
    ("vidal.errors", ["vidal"]),
    ("vidal.work", ["vidal"]),
    ("vidal.stages", ["vidal.engine", "vidal.recipe", "vidal.sources", *FRONT]),
    ("vidal.models", ["vidal.engine", "vidal.stages", "vidal.recipe", "vidal.sources", "vidal.dataset", *FRONT]),
    ("vidal.media", ["vidal.engine", "vidal.stages", "vidal.recipe", "vidal.sources", "vidal.dataset", *FRONT]),
    ("vidal.caption", ["vidal.engine", "vidal.stages", "vidal.recipe", "vidal.sources", "vidal.dataset", *FRONT]),
    ("vidal.engine", ["vidal.stages", "vidal.models", "vidal.media", "vidal.caption", *FRONT]),
    ("vidal.modality", [*ABOVE_MODALITY, *FRONT]),
    (
        "vidal.dataset",
        ["vidal.engine", "vidal.stages", "vidal.sources", "vidal.recipe", "vidal.stage", "vidal.train", *FRONT],
    ),
    (
        "vidal.reader",
        [
            "vidal.engine",
            "vidal.stages",
            "vidal.sources",
            "vidal.recipe",
            "vidal.stage",
            "vidal.train",
            "vidal.retrieval",
            *FRONT,
        ],
    ),
    ("vidal.webdataset", ["vidal.engine", "vidal.stages", "vidal.train", *FRONT]),
    ("vidal.report", ["vidal.engine", "vidal.stages", "vidal.train", *FRONT]),
    ("vidal.sources", ["vidal.engine", "vidal.stages", "vidal.recipe", "vidal.models", "vidal.media", *FRONT]),
]


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize(("package", "above"), ONE_WAY, ids=[package for package, _ in ONE_WAY])
def test_imports_point_one_way(package: str, above: list[str]) -> None:
    inside = {module: names for module, names in MODULES.items() if is_in(module, package)}
    assert inside, package
    wrong = {
        (module, name)
        for module, names in inside.items()
        for name in names
        for other in above
        if is_in(name, other) and not is_in(name, package)
    }
    assert wrong == set()


def test_the_package_imports_nothing_that_is_not_in_its_wheel() -> None:
    names = {(module, name) for module, found in MODULES.items() for name in found}
    assert {(module, name) for module, name in names if name.partition(".")[0] in NOT_IN_THE_WHEEL} == set()


def test_the_record_stands_on_arrow_its_working_state_and_the_error_of_a_clip() -> None:
    below = {"vidal.arrow_types", "vidal.errors", "vidal.work"}
    assert {name for name in MODULES["vidal.clip"] if name in MODULES} == below
    assert not MODULES["vidal.arrow_types"]


def test_supervised_processes_stand_on_the_errors_alone() -> None:
    assert {name for name in MODULES["vidal.process"] if name in MODULES} == {"vidal.errors"}


def test_a_dataset_is_read_without_torch() -> None:
    code = "import sys, vidal, vidal.modality; from vidal.reader import index, samples; vidal.modality.all(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_the_engine_names_no_stage() -> None:
    from vidal.clip import column_names
    from vidal.stages import CATALOGUE

    stages = set(CATALOGUE) - set(column_names())
    named = {
        (path.name, node.value)
        for path in (PACKAGE / "engine").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in stages
    }
    assert named == set()


def test_the_command_line_starts_without_the_heavy_parts() -> None:
    code = "import sys, vidal.commands; print(sorted({'torch', 'ray', 'pandas', 'transformers', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_class_has_a_name_of_its_own() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    # The stage that makes a layer is called after the modality that the layer is of.
    assert {name for name, count in names.items() if count > 1} <= {"Depth", "Infrared"}
