"""Each page is followed from its first line to its last, in a folder like a clone's, and says what happens there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import webdataset
import yaml

from tests.conftest import ROOT
from tests.pages import PAGES, Block, blocks_of, is_said
from tests.processes import command
from tests.site import Site
from vidal.dataset.flags import FlagWriter
from vidal.dataset.storage import Storage

# Whichever comes first waits for the sample dataset.
pytestmark = pytest.mark.timeout(900)

TRAIN_ON_REVISION = (
    "vidal train pipelines/train/sample.yaml --data data/sample@1 --out runs/sample "
    '--set "log={tensorboard: true, every_steps: 1}"'
)
SAYS = {
    ".venv/bin/vidal report data/sample": "wrote report.html",
    "vidal build shorts.yaml --out data/shorts": "│ kept │ │ 2 │",
    "vidal build divided.yaml --out data/divided --engine local": "│ kept │ │ 6 │",
    "vidal build segments.yaml --out data/segments --engine local": "6 clips, 1 of them divided, in 10 segments",
    "vidal export data/sample --out data/pairs --format open-clip": "wrote 23 clips to data/pairs",
    'vidal export data/sample --out clean --where "not flag_unsafe and not flag_remove"': "wrote 22 clips to clean",
    "vidal train pipelines/train/sample.yaml --data data/sample --out runs/sample": "runs/sample: 12 steps",
    TRAIN_ON_REVISION: "runs/sample: 6 steps",
    "vidal eval runs/sample --data data/sample --json": '"text_to_infrared"',
    "vidal embed data/sample --checkpoint runs/sample --out data/embeddings": "wrote ",
    "vidal reinforce data/sample --checkpoint runs/sample --name sample": "text to data/sample/teachers/sample",
    'vidal search "a rabbit in the grass" --embeddings data/embeddings': "bunny-",
    "vidal export-encoder runs/sample --out encoders/sample": "wrote encoders/sample",
    'vidal index "shards/{000..099}.tar" --out data/foreign': "data/foreign: 100 samples in 100 tars",
    "vidal terms manifests/terms/*.txt --out terms.parquet --number 5000 --plot terms.svg": "wrote terms.parquet",
    "vidal crawl pipelines/crawl-list.yaml --out data/crawl --set source.list=urls.csv": "gone",
    "vidal why data/crawl 3f0c5a": "3f0c5a91 is failed: stage fetch, gone (",
}
"""What is in the output of a command below which its page prints none."""
MORE = {
    "vidal build shorts.yaml --out data/shorts": "--workers 1",
    "vidal train pipelines/train/sample.yaml --data data/sample --out runs/sample": "--set epochs=1",
    TRAIN_ON_REVISION: "--set epochs=1",
    "vidal crawl pipelines/crawl-list.yaml --out data/crawl --set source.list=urls.csv":
        "--set fetch.allow_addresses=[127.0.0.0/29]",
}  # fmt: skip
"""What keeps a command short, or within this machine."""
IN_A_PROCESS = {"build", "crawl"}
"""Commands that run as a user's do; of the others the time goes into imports, which this process has behind it."""
PARSED_ONLY = {
    "make build-shards",
    "make build-shards RECIPE=shorts.yaml OUT=s3://bucket/shorts RAY_ADDRESS=HEAD:6379",
    "make docs",
    "make lint",
    "make test",
    'python -m open_clip_train.main --dataset-type webdataset --train-data "data/pairs/{000000..000003}.tar" …',
    "vidal build shorts.yaml --out s3://bucket/shorts --ray-address HEAD:6379",
    "vidal ablate pipelines/train/sample.yaml --arms arms.yaml --data data/sample --out ablations/captions --steps 500 --seeds 5",
    "vidal ablate pipelines/train/sample.yaml --arms arms.yaml --data data/sample@0 --out ablations/motion --steps 40 --seeds 2 --set batch_size=8 --set data.heldout=0.3",
    "tensorboard --logdir runs/sample",
    "vidal profile shorts.yaml --engine local --workers 16",
    "vidal plan shorts.yaml --clips 10000000 --cluster 10xcpu16,2xgpu1",
    "vidal plan shorts.yaml --clips 10000000 --cluster cluster.yaml --json",
    ".venv/bin/vidal view data/sample",
    "vidal add pipelines/select.yaml data/shorts --set decontaminate.captions=[msrvtt.txt]",
    "vidal refilter data/shorts --set best_share.share=0.2",
    "vidal view data/sample",
    "vidal view data/sample --against data/sample@0",
    "vidal view data/sample --embeddings data/embeddings",
    "vidal view s3://bucket/dataset@2 --port 8000 --no-browser",
}
"""Those that `tests/unit/test_docs.py` reads and nothing here runs; their own tests do."""
RUN_ELSEWHERE = {"docs/reading.md"}
"""Pages whose Python is run by `tests/parity/test_snippets.py`, which compares the values."""


def shell(line: str, folder: Path) -> str:
    """The standard output of a shell's command line."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, "PATH": path, "COLUMNS": "300"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def said_by(line: str, folder: Path, *, is_refused: bool = False) -> str:
    """What a command prints; many of vidal's run in this process, with the words that a shell makes of the line."""
    name = line.split()[1]
    if is_refused:
        done = command(*shell(f"printf '%s\\n' {line}", folder).splitlines()[1:], cwd=folder)
        assert (done.returncode, done.stdout) == (2, ""), f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stderr
    is_local = "--engine local" in line
    if not line.startswith("vidal ") or (name in IN_A_PROCESS and not is_local):
        return shell(line, folder)
    _, *words = shell(f"printf '%s\\n' {line}", folder).splitlines()
    done = command(*words, *(["--workers", "0"] if is_local else []), cwd=folder)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def list_clips(path: Path, *clips: str) -> None:
    rows = [f"{clip},{ROOT / 'samples' / 'clips' / clip}.mp4,a title" for clip in clips]
    path.write_text("\n".join(["clip_id,url,title", *rows, ""]))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like that of a clone: recipes, sample clips, lists of terms, and .venv."""
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    for name in ("pipelines", "manifests", "samples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def sample(place: Path, sample_dataset: Path) -> None:
    (place / "data" / "sample").symlink_to(sample_dataset)


@pytest.fixture
def copied(place: Path, sample_dataset: Path) -> None:
    """A copy of the sample dataset, which may be revised."""
    shutil.copytree(sample_dataset, place / "data" / "sample")


@pytest.fixture
def flagged(copied: None, place: Path) -> None:
    """A copy of the sample dataset with a flag."""
    FlagWriter(Storage(str(place / "data" / "sample"))).write("cat-stare", "unsafe")


@pytest.fixture
def doubted(copied: None, place: Path) -> None:
    """A copy of the sample dataset in which somebody doubts a caption."""
    FlagWriter(Storage(str(place / "data" / "sample"))).write("rocket-hold", "wrong_caption")


@pytest.fixture
def readme(sample: None, place: Path) -> None:
    list_clips(place / "candidates.csv", "cat-stare", "bunny-unlucky-bird")


@pytest.fixture
def tutorial(place: Path) -> None:
    csv = next(below for block in blocks_of(PAGES["docs/tutorial.md"]) for _, below in block.commands())
    (place / "candidates.csv").write_text(csv)


@pytest.fixture
def revisions(place: Path) -> None:
    """A dataset of three clips by stages that need no model, and one more candidate."""
    list_clips(place / "few.csv", "cat-stare", "bunny-wake", "bunny-unlucky-bird")
    list_clips(place / "more.csv", "sintel-dunes")
    (place / "asked.txt").write_text("cat-stare\n")
    stages = ["fetch", "probe", {"too_long": {"max_s": 20}}, "media"]
    recipe = {"name": "shorts", "source": {"list": "few.csv"}, "shards": {"size": 2}, "stages": stages}
    (place / "few.yaml").write_text(yaml.safe_dump(recipe))
    said_by("vidal build few.yaml --out data/shorts --engine local", place)


@pytest.fixture
def training(copied: None, place: Path) -> None:
    (place / "shards").mkdir()
    for n in range(100):
        with webdataset.TarWriter(str(place / "shards" / f"{n:03d}.tar")) as tar:
            tar.write({"__key__": f"{n}", "txt": "a dog", "mp4": b"film"})


@pytest.fixture
def crawling(place: Path) -> Iterator[None]:
    with Site() as site:
        rows = [("3f0c5a91", site.url("/fault/gone/a.mp4")), ("77aa", site.url("/clip/cat-stare.mp4"))]
        (place / "urls.csv").write_text("clip_id,url\n" + "".join(f"{clip_id},{url}\n" for clip_id, url in rows))
        (place / "mixed.csv").write_text("url\nhttps://www.youtube.com/watch?v=_\nhttps://www.nbc.com/a/video/b/1\n")
        yield


NEEDS = {
    "README.md": "readme",
    "docs/adding-a-stage.md": "place",
    "docs/crawling.md": "crawling",
    "docs/diff.md": "copied",
    "docs/export.md": "sample",
    "docs/manifest.md": "sample",
    "docs/reading.md": "sample",
    "docs/removal.md": "revisions",
    "docs/revisions.md": "revisions",
    "docs/training.md": "training",
    "docs/tutorial.md": "tutorial",
    "docs/viewer.md": "flagged",
    "docs/walk.md": "doubted",
}
"""What has to be there, by page; other pages have nothing to run."""


def follow(page: str, folder: Path) -> None:
    """Do what a page says, block by block, and compare what it prints."""
    names: dict[str, object] = {"__name__": "page"}
    said = ""
    for block in blocks_of(PAGES[page]):
        if block.language == "console":
            for line, printed in block.commands():
                if line in PARSED_ONLY:
                    continue
                if is_refused := printed.startswith("vidal: "):
                    # One line, which the page folds.
                    printed = " ".join(printed.split())
                said = said_by(f"{line} {MORE.get(line, '')}".rstrip(), folder, is_refused=is_refused)
                if printed.strip():
                    assert is_said(printed, said), f"{line}\n{said}"
                else:
                    assert SAYS.get(line, "") in re.sub(" +", " ", said), f"{line}\n{said}"
        elif block.file:
            (folder / block.file).write_text(block.text)
        elif block.language == "python" and page not in RUN_ELSEWHERE:
            said = output_of(block, page, names)
        elif block.language == "text":
            assert is_said(block.text, said), said


def output_of(block: Block, page: str, names: dict[str, object]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(block.text, page, "exec"), names)
    return output.getvalue()


@pytest.mark.parametrize("page", NEEDS)
def test_a_page_does_what_it_says(
    page: str, place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue(NEEDS[page])
    monkeypatch.chdir(place)
    follow(page, place)


def test_every_page_with_something_to_run_is_followed() -> None:
    def is_run(block: Block) -> bool:
        return (block.language == "python" and not block.file) or any(
            line not in PARSED_ONLY for line, _ in block.commands()
        )

    told = {page for page, path in PAGES.items() if any(map(is_run, blocks_of(path)))}
    assert told == {*NEEDS}


def test_every_command_without_output_on_its_page_has_words_to_look_for() -> None:
    bare = {line for path in PAGES.values() for block in blocks_of(path) if block.language == "console"
            for line, printed in block.commands() if not printed.strip()}  # fmt: skip
    assert bare - PARSED_ONLY - {"cp samples/clips/bunny-apple.mp4 late.mp4"} == {*SAYS}


@pytest.mark.parametrize(
    ("printed", "said", "is_it"),
    [
        ("a  b\n", " a b \n", True),
        ("a …\n", "a 3 s\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a (1)\n", "a 1\n", False),
        ("…\nd\n", "a\nb\n", False),
    ],
)
def test_output_on_a_page_is_compared_but_for_its_ellipses(printed: str, said: str, is_it: bool) -> None:
    assert is_said(printed, said) is is_it


def test_the_readme_says_who_wrote_the_captions_of_the_sample(manifest: pd.DataFrame) -> None:
    sources = manifest[manifest["status"] == "kept"]["caption_source"].value_counts()
    merged, written, titles, accepted = re.search(
        r"(\d+) of the (\d+) are a merge by rule .*, (\d+) are the title alone, and (\d+) a text by a language model",
        " ".join(PAGES["README.md"].read_text("utf-8").split()),
    ).groups()  # type: ignore[union-attr]
    assert sources.to_dict() == {"merge": int(merged), "title": int(titles), "llm": int(accepted)}
    assert sources.sum() == int(written)


def judged_captions() -> pd.DataFrame:
    """The table of docs/sample-captions.md, with a row per clip id."""
    lines = (ROOT / "docs" / "sample-captions.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return pd.DataFrame(rows[2:], columns=rows[0]).set_index("clip").sort_index()


def test_the_captions_that_were_judged_are_those_that_are_built(manifest: pd.DataFrame) -> None:
    kept, judged = manifest[manifest["status"] == "kept"].sort_index(), judged_captions()
    assert judged["caption"].to_dict() == kept["caption"].to_dict()
    assert judged["source"].to_dict() == kept["caption_source"].to_dict()
    assert judged["title"].to_dict() == kept["title"].to_dict()


def test_no_caption_is_worse_than_its_title_and_the_readme_counts_them() -> None:
    verdicts = judged_captions()["verdict"].value_counts().to_dict()
    better, equal = re.search(
        r"(\d+) are better than the title, (\d+) as good and none worse",
        " ".join(PAGES["README.md"].read_text("utf-8").split()),
    ).groups()  # type: ignore[union-attr]
    assert verdicts == {"better": int(better), "equal": int(equal)}
