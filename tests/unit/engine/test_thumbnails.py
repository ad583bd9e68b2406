"""A rejected clip keeps a small JPEG of its middle frame in its row, whatever rejected it, and nobody else has one."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from rich.console import Console

import vidal
from tests.processes import command
from tests.runs import (
    CAPTION,
    FEW_LETTERS,
    LETTERS,
    PAINT,
    SAME_TITLE,
    SHADE,
    TROUBLE,
    digests,
    rows_in_order,
    run,
    write_recipe,
)
from vidal.build import How, add
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.thumbnail import middle_frame, thumbnail
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.recipe import check
from vidal.removal.remove import remove
from vidal.revisions.refilter import refilter

LARGE = {PAINT: {"pixels": 300}}
STAGES = [LETTERS, {FEW_LETTERS: {"min": 2}}, LARGE, TROUBLE, CAPTION, SAME_TITLE, SHADE]
TITLES = ["a", "reject", "misalign", "same", "same", "other"]
SHOWN = {"reject": "unwanted", "same": "duplicate"}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Of six clips one is rejected before it is decoded, one after, one by a decision; one fails and two are kept."""
    run(write_recipe(tmp_path, STAGES, TITLES), tmp_path / "out", InProcessEngine())
    return tmp_path / "out"


def with_thumbnail(out: Path | str) -> dict[str, str]:
    return {row["title"]: row["reason"] for row in rows_in_order(out) if row["thumbnail"] is not None}


def test_a_clip_that_a_stage_or_a_decision_rejects_after_it_was_decoded_has_one(built: Path) -> None:
    assert with_thumbnail(built) == SHOWN
    for data in (row["thumbnail"] for row in rows_in_order(built) if row["thumbnail"]):
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.size) == ("JPEG", (96, 96)) and len(data) < 3000
    assert list(verify(Dataset.open(str(built)))) == []


def test_it_is_the_middle_frame_and_never_larger_than_the_frame() -> None:
    names = [f"a.frame.{k}.jpg" for k in (10, 2, 0, 1, 9)] + ["a.json", "a.mp4", "a.depth.0.png"]
    assert middle_frame(names) == "a.frame.2.jpg" and middle_frame(["a.json", "a.mp4"]) is None
    for given, made in (((640, 480), (128, 96)), ((480, 640), (96, 128)), ((50, 40), (50, 40)), ((4000, 40), (288, 3))):
        stream = io.BytesIO()
        Image.new("RGB", given).save(stream, "JPEG")
        assert Image.open(io.BytesIO(thumbnail(stream.getvalue()) or b"")).size == made
    assert thumbnail(b"no image") is None


def test_every_engine_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    run(write_recipe(tmp_path, STAGES, TITLES), tmp_path / "pool", PoolEngine(2))
    assert digests(built) == digests(tmp_path / "pool")


def test_readers_that_do_not_ask_do_not_meet_it(built: Path) -> None:
    samples = vidal.open(built)
    assert "thumbnail" not in samples[0]["row"] and samples.manifest().column("thumbnail").null_count == 4
    dataset = Dataset.open(str(built))
    kept = next(row for row in rows_in_order(built) if row["status"] == "kept")
    assert "thumbnail" not in json.loads(dataset.read_member(kept, f"{kept['clip_id']}.json"))
    for more in ([], ["--json"]):
        done = command("why", built, "c001", *more)
        assert done.returncode == 0 and "unwanted" in done.stdout and "thumbnail" not in done.stdout


def test_a_removed_clip_loses_it_in_every_revision_and_phase(built: Path) -> None:
    refilter(str(built), [f"{FEW_LETTERS}.min=5"])
    ids = frozenset(row["clip_id"] for row in rows_in_order(built) if row["title"] in SHOWN)
    assert remove(str(built), Removals({"clip_id": ids})).is_proven
    for path in built.rglob("*.parquet"):
        names = pq.read_schema(path).names
        assert (
            "thumbnail" not in names
            or pq.read_table(path).column("thumbnail").null_count == pq.read_table(path).num_rows
        )


def test_a_clip_removed_before_its_shard_was_made_anew_is_a_tombstone(built: Path, tmp_path: Path) -> None:
    recipe = check({"source": {"dataset": str(built)}, "shards": {"size": 1}, "stages": [CAPTION]}, "again")
    run(recipe, tmp_path / "again", InProcessEngine())
    shard, clip_id = next(
        (row["shard"], row["clip_id"]) for row in rows_in_order(tmp_path / "again") if row["title"] == "other"
    )
    (tmp_path / "again" / "manifest" / f"{shard:06d}.parquet").unlink()
    remove(str(tmp_path / "again"), Removals({"clip_id": frozenset([clip_id])}))
    run(recipe, tmp_path / "again", InProcessEngine())
    row = Dataset.open(str(tmp_path / "again")).find(clip_id)
    assert row is not None and row["reason"] == "removed"
    assert (row["title"], row["url"], row["thumbnail"], row["members"]) == (None, "", None, [])


def test_revisions_carry_it_and_those_that_reject_a_clip_with_members_are_shown_from_these(
    built: Path, tmp_path: Path
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({"stages": ["tests.engine_toys:Hash"]}))
    add(more, str(built), How(engine="local", workers=0), Console(), quiet=True)
    assert with_thumbnail(built) == SHOWN
    shutil.copytree(built, tmp_path / "strict")
    refilter(str(tmp_path / "strict"), [f"{FEW_LETTERS}.min=5"])
    assert {title for title in with_thumbnail(tmp_path / "strict")} == {"reject", "same"}
    for out, stages in ((built, {"trouble", "same_title"}), (tmp_path / "strict", {"trouble", "few_letters"})):
        assert command("report", out, "--out", tmp_path / "report.html").returncode == 0
        page = (tmp_path / "report.html").read_text().partition("<h2>Rejected clips</h2>")[2].partition("<h2>")[0]
        assert {part.partition("<")[0] for part in page.split('<span class="rejected">')[1:]} == stages
        assert page.count("<img") == page.count("<figure>") > 1


def test_an_id_that_a_merge_meets_again_has_one(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "twin")
    source = {"datasets": [str(built), str(tmp_path / "twin")]}
    run(check({"source": source, "stages": []}, "merged"), tmp_path / "merged", InProcessEngine())
    assert (
        set(with_thumbnail(tmp_path / "merged").values()) == {"repeated"}
        and len(with_thumbnail(tmp_path / "merged")) == 2
    )
