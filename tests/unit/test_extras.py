"""What each extra brings: held to what the code imports, and tried in environments that hold nothing else."""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.installed import PROJECT, canonical, closure, direct, environment, environment_of, link
from tests.warmed import Warmed
from vidal.errors import UserError
from vidal.extras import EXTRAS, explained, require
from vidal.models import packages
from vidal.stages import CATALOGUE, step_class

OLD = ROOT / "tests" / "datasets" / "schema-3"
VIDAL = ROOT / "vidal"

BEHIND = {
    "build": {
        "accelerate": "transformers, of models in parts",
    },
    "impersonate": {"backports-zstd": "urllib3, of packed bodies", "brotli": "urllib3, of packed bodies"},
    "train": {"onnx": "torch.onnx", "onnxscript": "torch.onnx"},
}
"""What is imported by another package alone, and by which."""

WHERE = {
    "ablate": ["train"],
    "crawl": ["crawl"],
    "engine": ["build"],
    "media": ["crawl", "build"],
    "models": ["build"],
    "modality": ["train"],
    "retrieval": ["train"],
    "stages": ["build"],
    "terms": ["terms"],
    "train": ["train"],
    "doctor.py": ["build"],
}
"""The extras, each enough by itself, without which a folder or file is not used; others do with the plain install."""

THE_CALLERS_OWN = {
    "aiobotocore", "botocore", "curl_cffi", "datasets", "deno", "lance", "s3fs", "torchao", "wandb",
}  # fmt: skip
"""Imported where the user has named them, or an address that needs them, with a line of their own."""

NOT_IN_ALL = {"float8"}
"""Extras that cost those who do not use them (pyproject.toml)."""

USED_BY_MOST = ("pyarrow.parquet", "rich.progress", "vidal.dataset.verify", "vidal.recipe", "vidal.doctor")
"""Modules that most commands import."""

OF_ITS_OWN_EXTRA = "vidal.crawl.impersonation"
"""Imported only where the setting is in use that needs it."""


@functools.cache
def distributions() -> dict[str, set[str]]:
    return {module: {canonical(name) for name in names} for module, names in metadata.packages_distributions().items()}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules that a file imports, wherever in it, but for types; and those of vidal that it starts by name."""
    found = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
        elif isinstance(node, ast.Constant) and node.value in FILES:
            found.add(str(node.value))
        todo += ast.iter_child_nodes(node)
    return frozenset(found)


FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(VIDAL.rglob("*.py"))
}


def third_party(names: frozenset[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in names}
    return tops - sys.stdlib_module_names - {"vidal"} - packages.pinned().keys()


def is_plain(module: str) -> bool:
    return bool(distributions()[module] & direct(None))


def reached(module: str) -> set[str]:
    """Modules of others that a module of vidal imports, by itself or through others of vidal's."""
    seen: set[str] = set()
    todo, found = [module], set()
    while todo:
        if (name := todo.pop()) in seen:
            continue
        seen.add(name)
        found |= third_party(imports(FILES[name]))
        todo += [each for each in imports(FILES[name]) if each in FILES]
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_the_table_says_and_what_stands_behind_it(extra: str) -> None:
    # What is not installed has one name.
    of_table = {name for module in EXTRAS[extra] for name in distributions().get(module, {module})}
    assert of_table | BEHIND.get(extra, {}).keys() == direct(extra)


def test_all_is_every_extra_and_the_tests_have_all() -> None:
    in_all = {name for extra in EXTRAS for name in direct(extra) if extra not in NOT_IN_ALL}
    assert direct("all") == in_all < direct("dev")
    assert {*PROJECT["optional-dependencies"]} == {*EXTRAS, "all", "dev"}


def test_the_readme_tells_every_extra_and_names_packages_that_it_brings() -> None:
    rows = re.findall(r"^\| `vidal\[(\w+)\]` \|[^|]*\|([^|]*)\|$", (ROOT / "README.md").read_text(), re.M)
    assert {extra for extra, _ in rows} == {*EXTRAS}
    for extra, brought in rows:
        assert {canonical(name) for name in re.findall(r"`([^`]+)`", brought)} <= direct(extra), extra


@pytest.mark.parametrize("path", FILES.values(), ids=lambda path: str(path.relative_to(VIDAL)))
def test_a_module_imports_what_the_extras_of_its_folder_bring(path: Path) -> None:
    extras = WHERE.get(path.relative_to(VIDAL).parts[0], [])
    beyond = {name for name in third_party(imports(path)) - THE_CALLERS_OWN if not is_plain(name)}
    if not extras:
        assert beyond == set()
    for extra in extras:
        assert beyond <= set(EXTRAS[extra]), extra


def test_every_dependency_of_the_plain_install_is_imported() -> None:
    used = {
        name
        for path in FILES.values()
        for module in third_party(imports(path))
        for name in distributions().get(module, ())
    }
    assert direct(None) - used == set()


@pytest.mark.parametrize("stage", CATALOGUE)
def test_a_stage_declares_what_it_imports_beyond_the_plain_install(stage: str) -> None:
    module = CATALOGUE[stage].partition(":")[0]
    # Where the system has an FFmpeg that is fit, the wheel's is not asked for.
    beyond = {name for name in reached(module) if not is_plain(name)} - {"imageio_ffmpeg", *THE_CALLERS_OWN}
    assert set(step_class(stage).imports) == beyond


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warmed]:
    """The plain install, with what most commands import imported."""
    with Warmed(environment(tmp_path_factory.mktemp("plain")), *USED_BY_MOST) as process:
        yield process


def test_the_plain_install_brings_no_framework() -> None:
    assert not closure() & {"torch", "ray", "transformers", "pandas", "scipy", "yt-dlp", "imageio-ffmpeg"}
    assert len(closure()) <= 30


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("status old", "2 of 2 shards"),
        ("why old kept", "kept is kept"),
        ("verify old", "all 4 rows"),
        ("report old --out report.html", "wrote report.html"),
        ("report old --out long.html --where duration_s>1.5", "wrote long.html"),
        ("export old --out joint --where duration_s>1.5", "1 clip"),
        ("index old/video/{000000..000001}.tar --out indexed", "indexed"),
        ("remove old --ids ids.txt", "1"),
        ("doctor", "ok   extra train: huggingface_hub, peft"),
    ],
)
def test_a_command_of_the_plain_install(arguments: str, printed: str, plain: Warmed, tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "old")
    (tmp_path / "ids.txt").write_text("kept\n")
    done = plain.run("-m", "vidal", *arguments.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and printed in done.stdout, done.stdout + done.stderr


def test_the_plain_install_reads_samples(plain: Warmed, tmp_path: Path) -> None:
    code = f"import vidal; s = vidal.open({str(OLD)!r}, where='duration_s > 1.5'); print(s[0]['video'].shape, s[0]['audio'].shape)"
    done = plain.run("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "(2, 64, 96, 3) (32000,)\n"), done.stderr


RECIPES = {
    "probe.yaml": "source: {folder: .}\nstages: [fetch, probe]\n",
    "fetch.yaml": "source: {folder: .}\nstages: [fetch, keep_source]\n",
    "titles.yaml": "source: {folder: .}\nstages: [fetch, keep_source, clean_title]\n",
    "media.yaml": "source: {folder: .}\nstages: [fetch, probe, media, fingerprints, depth]\n",
    "train.yaml": "text: {model: x/y}\ntowers: {depth: {model: x/y}}\nbatch_size: 4\nepochs: 1\n",
    "terms.txt": "a dog barks\n",
}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train train.yaml --data old --out run", "vidal train needs PyTorch, which is not installed: pip install 'vidal[train]'"),
        ("eval run --data old", "vidal eval needs PyTorch, which is not installed: pip install 'vidal[train]'"),
        ("terms terms.txt --out terms.parquet", "vidal terms needs HanTa, which is not installed: pip install 'vidal[terms]'"),
        ("crawl probe.yaml --out crawled", "vidal crawl needs ffmpeg-python, which is not installed: pip install 'vidal[crawl]'"),
        ("build media.yaml --out built", "vidal build needs ffmpeg-python, which is not installed: pip install 'vidal[build]'"),
        ("doctor media.yaml", "vidal doctor needs ffmpeg-python, which is not installed: pip install 'vidal[build]'"),
        ("build titles.yaml --out built", "titles.yaml: stages.fetch needs certifi, which is not installed: pip install 'vidal[build]'"),
        ("build fetch.yaml --out built", "fetch.yaml: stages.fetch needs certifi, which is not installed: pip install 'vidal[crawl]'"),
        ("status s3://bucket/dataset", "s3://bucket/dataset needs s3fs, which is not installed: pip install 'vidal[s3]'"),
    ],
)  # fmt: skip
def test_an_extra_that_is_not_installed_is_one_line_that_names_it(
    arguments: str, told: str, plain: Warmed, tmp_path: Path
) -> None:
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "old").symlink_to(OLD)
    done = plain.run("-m", "vidal", *arguments.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"vidal: {told}\n"), done.stdout
    assert not {"built", "crawled", "run"} & set(os.listdir(tmp_path))


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warmed]:
    """An environment of what two extras have in common, with the slowest of it imported."""
    folder = tmp_path_factory.mktemp("common")
    with Warmed(environment_of(folder, closure("build") & closure("train")), "torch._dynamo", "torchvision") as process:
        yield process


@pytest.mark.parametrize(
    ("extra", "folders", "part"),
    [
        ("crawl", ["crawl", "media", "engine", "sources", "recipe", "build"], "plain"),
        ("build", ["stages", "models", "caption", "media", "crawl", "engine", "doctor"], "common"),
        ("train", ["train", "ablate", "retrieval", "modality", "reader"], "common"),
        ("terms", ["terms"], "plain"),
    ],
)
def test_every_module_imports_with_its_extra(
    extra: str, folders: list[str], part: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """``part`` is an environment of some of its packages; the others are added before anything of vidal's is imported."""
    left_out = {name for name in FILES if "__main__" in name} | {OF_ITS_OWN_EXTRA}
    inside = [n for n in FILES if n.removeprefix("vidal.").partition(".")[0] in folders and n not in left_out]
    site = tmp_path / "site"
    site.mkdir()
    link(site, closure(extra))
    code = f"import sys; sys.path.append({str(site)!r}); import {', '.join(inside)}"
    done = request.getfixturevalue(part).run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_extra_of_a_crawl_is_enough_to_fetch_and_probe(tmp_path: Path, samples: Path) -> None:
    clip = next(path for path in sorted(samples.iterdir()) if path.suffix == ".mp4")
    (tmp_path / "clips").mkdir()
    shutil.copy(clip, tmp_path / "clips")
    (tmp_path / "recipe.yaml").write_text("source: {folder: clips}\nstages: [fetch, probe, too_long, keep_source]\n")
    with Warmed(environment(tmp_path / "env", "crawl"), *USED_BY_MOST, "yt_dlp.extractor") as process:
        build = ("-m", "vidal", "build", "recipe.yaml", "--out")
        built = process.run(*build, "out", "--engine", "local", "--workers", "1", cwd=tmp_path)
        by_ray = process.run(*build, "other", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    told = "vidal: --engine ray needs Ray, which is not installed: pip install 'vidal[build]'\n"
    assert (by_ray.returncode, by_ray.stderr) == (2, told) and not (tmp_path / "other").exists()


def test_the_extra_that_is_named_is_the_smallest_that_brings_all_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^a needs ffmpeg-python, .*'vidal\[crawl\]'$"):
        require({"a": ["ffmpeg"], "b": ["yt_dlp"]})
    with pytest.raises(UserError, match=r"^a needs ffmpeg-python, .*'vidal\[build\]'$"):
        require({"a": ["ffmpeg"], "b": ["torch"]})


DEFECTS = [
    ModuleNotFoundError("No module named 'no_such'", name="no_such"),
    ModuleNotFoundError("No module named 'vidal.no_such'", name="vidal.no_such"),
    ImportError("cannot import name 'x' from 'torch'", name="torch"),
]


@pytest.mark.parametrize("error", DEFECTS, ids=str)
def test_an_import_that_fails_for_another_reason_stays_a_defect(error: ImportError) -> None:
    assert explained(error, "vidal train") is None
