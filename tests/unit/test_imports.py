"""Imports point one way: each part of the package has its place, and imports what is below."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "vidal"
NOT_IN_THE_WHEEL = ("benchmarks", "tests", "tools")


def python(code: str) -> str:
    """What a program prints, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


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


@functools.cache
def modules() -> dict[str, set[str]]:
    """What each module of the package imports. Read on demand, as every test process collects this file."""
    return {module_of(path): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}


# From the ground up: every folder and file of the package, and what of those above it in this table it may import.
# A name stands for all that is in it; `vidal` itself, which has the version, is imported by everybody.
MAY_IMPORT = {
    "errors": [],
    "extras": ["errors"],
    "process": ["errors"],
    "arrow_types": [],
    "work": [],
    "addresses": [],
    "settings": ["errors"],
    "listing": ["errors"],
    "licences": [],
    "clip": ["errors", "arrow_types", "work"],
    "record": ["arrow_types", "clip"],
    "rows": ["errors"],
    "stage": ["errors", "clip", "record", "rows"],
    "modality": ["errors", "work"],
    "dataset": ["errors", "rows", "extras", "arrow_types", "work", "listing", "clip", "record", "modality"],
    "reader": ["errors", "clip", "record", "modality", "dataset"],
    "export": ["errors", "extras", "licences", "clip", "record", "modality", "dataset", "reader"],
    "webdataset": ["errors", "modality", "dataset", "export"],
    "media": ["errors", "process", "work", "clip"],
    "caption": ["errors", "clip", "stage"],
    "models": ["errors", "extras", "work", "stage", "caption"],
    "crawl": ["errors", "process", "addresses", "clip", "stage", "media.child", "media.ffmpeg", "media.limits"],
    "sources": [
        "errors", "rows", "addresses", "listing", "licences", "clip", "record", "stage", "dataset", "reader.where", "crawl",
    ],
    "terms": ["errors", "caption.words", "sources.source"],
    "stages": [
        "errors", "rows", "extras", "work", "addresses", "licences", "clip", "record", "stage", "dataset", "media", "caption",
        "models", "crawl", "terms.benchmark", "terms.captions", "terms.wording",
    ],
    "flow": ["errors", "arrow_types", "clip", "record", "stage", "sources", "stages"],
    "overrides": ["errors", "settings", "sources"],
    "recipe": [
        "errors", "extras", "addresses", "settings", "clip", "record", "stage", "modality", "dataset", "sources",
        "stages", "flow", "overrides",
    ],
    "engine": [
        "errors", "rows", "extras", "process", "settings", "clip", "record", "stage", "dataset", "sources.source",
        "models.inventory", "flow.check_own_columns", "recipe",
    ],
    "revisions": [
        "errors", "rows", "settings", "clip", "record", "stage", "dataset", "overrides", "recipe", "engine",
    ],
    "report": ["errors", "clip", "record", "modality", "dataset", "crawl.platforms"],
    "diff": ["settings", "clip", "dataset", "report"],
    "train": ["errors", "extras", "settings", "modality", "dataset", "reader", "models.locate"],
    "ablate": ["errors", "settings", "dataset", "reader", "train"],
    "retrieval": [
        "errors", "settings", "modality", "dataset", "reader",
        "train.data", "train.evaluate.embeddings", "train.evaluate.metrics", "train.preprocessing", "train.towers",
    ],
    "view": [
        "errors", "extras", "clip", "record", "stage", "modality", "dataset", "reader", "models.dotted", "models.locate",
        "stages", "revisions.refilter", "report", "diff", "train.towers.load", "retrieval.search",
    ],
    "removal": [
        "errors", "rows", "extras", "clip", "record", "dataset", "reader.where", "export", "stages.duplicates",
        "revisions.revise", "train.checkpoint", "train.run_folder",
    ],
    "build": [
        "errors", "extras", "models.inventory", "dataset", "recipe", "engine", "revisions", "report", "removal.unmatched",
    ],
    "estimate": [
        "errors", "settings", "stage", "dataset", "models.inventory", "recipe", "engine", "build",
    ],
    "trial": ["errors", "clip", "stage", "media", "stages"],
    "doctor": ["errors", "extras", "settings", "clip", "dataset", "stage", "media", "models", "recipe", "train.recipe", "trial"],
    "templates": ["errors"],
    "commands": [
        "errors", "extras", "settings", "record", "modality", "dataset", "reader", "export", "models", "stages", "recipe",
        "engine", "revisions", "report", "diff", "view", "train", "ablate", "retrieval", "removal", "terms", "build", "estimate", "doctor",
        "templates",
    ],
    "__main__": ["commands"],
}  # fmt: skip

TRAINER = [
    "checkpoint", "distributed", "float8", "full_state", "gradcache", "health", "loop", "loss", "material", "optim", "parallel",
    "recipe", "run", "run_folder", "teachers", "tiles",
]  # fmt: skip


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_every_folder_and_file_of_the_package_has_a_rule() -> None:
    assert {module.split(".")[1] for module in modules() if module != "vidal"} == set(MAY_IMPORT)


def test_the_table_of_imports_has_no_circle() -> None:
    names = list(MAY_IMPORT)
    upwards = {
        (name, other)
        for place, name in enumerate(names)
        for other in MAY_IMPORT[name]
        if other.partition(".")[0] not in names[:place]
    }
    assert upwards == set()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    allowed = [f"vidal.{name}" for name in (package, *MAY_IMPORT[package])]
    # Of ``from vidal.train import towers`` the first half is the folder of what is allowed.
    folders = {name.rpartition(".")[0] for name in allowed}
    wrong = {
        (module, name)
        for module, names in modules().items()
        if is_in(module, f"vidal.{package}")
        for name in names - folders
        if is_in(name, "vidal") and not any(is_in(name, other) for other in allowed)
    }
    assert wrong - {(module, "vidal.__version__") for module in modules()} == set()


def test_the_package_itself_opens_a_dataset_and_imports_nothing_else() -> None:
    assert {name for name in modules()["vidal"] if name in modules()} == {"vidal.reader.samples"}


def test_search_and_embeddings_stand_on_no_part_of_the_trainer() -> None:
    code = (
        "import sys, vidal.retrieval.embed, vidal.retrieval.search; print(*sys.modules)\n"
        "import vidal.train.checkpoint, vidal.train.run_folder; print(*sys.modules)"
    )
    loaded, of_a_run = (set(line.split()) for line in python(code).splitlines())
    assert (
        loaded & {*(f"vidal.train.{name}" for name in TRAINER), "torch.distributed.fsdp", "torch.distributed.tensor"}
        == set()
    )
    # The encoder of a training run: its files are read, nothing is trained.
    assert of_a_run & {"torch.distributed.fsdp", "vidal.train.loop", "vidal.train.run"} == set()


def test_the_package_imports_nothing_that_is_not_in_its_wheel() -> None:
    names = {(module, name) for module, found in modules().items() for name in found}
    assert {(module, name) for module, name in names if name.partition(".")[0] in NOT_IN_THE_WHEEL} == set()


def test_the_record_stands_on_arrow_its_working_state_and_the_error_of_a_clip() -> None:
    below = {"vidal.arrow_types", "vidal.errors", "vidal.work"}
    assert {name for name in modules()["vidal.clip"] if name in modules()} == below
    assert not modules()["vidal.arrow_types"]


def test_supervised_processes_stand_on_the_errors_alone() -> None:
    assert {name for name in modules()["vidal.process"] if name in modules()} == {"vidal.errors"}


def test_a_dataset_is_read_without_torch() -> None:
    code = "import sys, vidal, vidal.modality; from vidal.reader import index, samples; vidal.modality.all(); print('torch' in sys.modules)"
    assert python(code) == "False"


def test_the_engine_and_revisions_name_no_stage() -> None:
    from vidal.clip import column_names
    from vidal.stages import CATALOGUE

    stages = set(CATALOGUE) - set(column_names())
    named = {
        (path.name, node.value)
        for room in ("engine", "revisions")
        for path in (PACKAGE / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in stages
    }
    assert named == set()


@pytest.mark.parametrize("module", ["vidal.commands", "vidal.build"])
def test_the_command_line_and_a_build_start_without_the_heavy_parts(module: str) -> None:
    heavy = "{'torch', 'ray', 'pandas', 'transformers', 'cv2', 'jinja2'}"
    assert python(f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_a_class_has_a_name_of_its_own() -> None:
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    # The stage that makes a layer is called after the modality that the layer is of.
    assert {name for name, count in names.items() if count > 1} <= {"Depth", "Infrared"}
