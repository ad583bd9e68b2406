"""A quota of clips per uploader: a global decision, with what every global decision promises."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import vidal.clip
from tests.runs import PAINT, SAME_TITLE, SHADE, digests, rows, run, write_recipe
from vidal.build import How, grow
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.errors import RecipeError
from vidal.recipe import load
from vidal.record import from_row, to_row
from vidal.revisions.refilter import NOT_PROCESSED, refilter
from vidal.rows import whole
from vidal.stages.per_uploader import PerUploader

UPLOADERS = ["ann", "bob", "ann", "", "ann", "bob", "", "ann", "cid", "bob", "", "ann", "ann"]
OUTCOME = ("status", "stage", "reason", "detail", "decided_value", "decided_limit", "uploader_rank")


def write(folder: Path, limit: int | None, uploaders: list[str] = UPLOADERS, *, shard_size: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "uploaders.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip_id", "url", "title", "uploader", "platform"])
        writer.writerows([f"c{n:03d}", f"{n}.mp4", f"clip {n}", name, "Site"] for n, name in enumerate(uploaders))
    quota = [{"per_uploader": {"max_clips": limit}}] if limit else []
    source = {"list": str(folder / "uploaders.csv")}
    return write_recipe(folder, [PAINT, SAME_TITLE, *quota, SHADE], source=source, shards={"size": shard_size})


def build(folder: Path, limit: int) -> Path:
    run(write(folder, limit), folder / "out", InProcessEngine())
    return folder / "out"


def outcomes(out: Path) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: {name: row[name] for name in OUTCOME} for row in Dataset.open(str(out)).rows()}


def decided(limit: int, *given: dict[str, Any]) -> list[tuple[Any, Any, Any]]:
    import pyarrow as pa

    made = [to_row(from_row({"clip_id": str(n), "status": "kept", **row})) for n, row in enumerate(given)]
    table = whole(PerUploader(max_clips=limit).decide(pa.Table.from_pylist(made, schema=vidal.clip.schema())))
    return [(row["clip_id"], row["status"], row["uploader_rank"]) for row in table.to_pylist()]


def test_the_first_clips_of_an_uploader_in_plan_order_stay_and_each_row_says_its_number(tmp_path: Path) -> None:
    found = sorted(rows(build(tmp_path, 2)).values(), key=lambda row: row["position"])
    for name in ("ann", "bob", "cid"):
        theirs = [row for row in found if row["uploader"] == name]
        assert [row["uploader_rank"] for row in theirs] == list(range(1, len(theirs) + 1))
        assert [row["status"] for row in theirs] == ["kept" if n < 2 else "rejected" for n in range(len(theirs))]
    third = next(row for row in found if row["uploader_rank"] == 3)
    assert {name: third[name] for name in OUTCOME} == {
        "status": "rejected", "stage": "per_uploader", "reason": "uploader_quota", "uploader_rank": 3,
        "detail": "clip 3 of its uploader > 2", "decided_value": 3.0, "decided_limit": 2.0,
    }  # fmt: skip
    unknown = [row for row in found if row["uploader"] is None]
    assert [(row["status"], row["uploader_rank"]) for row in unknown] == [("kept", None)] * 3
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


@pytest.mark.parametrize(("name", "given", "kept"), [
    ("an id goes above a name", [{"uploader_id": "1", "uploader": "a"}, {"uploader_id": "1", "uploader": "b"}], ["0"]),
    ("two ids of one name", [{"uploader_id": "1", "uploader": "a"}, {"uploader_id": "2", "uploader": "a"}], ["0", "1"]),
    ("a name on two platforms", [{"platform": "A", "uploader": "a"}, {"platform": "B", "uploader": "a"}], ["0", "1"]),
    ("an id that is another's name", [{"uploader_id": "a"}, {"uploader": "a"}], ["0", "1"]),
    ("what was rejected before does not count", [{"uploader": "a", "status": "rejected"}, {"uploader": "a"}], ["1"]),
])  # fmt: skip
def test_who_is_one_uploader(name: str, given: list[dict[str, Any]], kept: list[str]) -> None:
    assert [clip_id for clip_id, status, _ in decided(1, *given) if status == "kept"] == kept, name


def test_two_workers_give_the_bytes_of_one(tmp_path: Path) -> None:
    """And so do those of Ray: `tests/e2e/test_cluster.py`."""
    wanted = digests(build(tmp_path, 2))
    run(tmp_path / "toys.yaml", tmp_path / "pool", PoolEngine(2))
    assert digests(tmp_path / "pool") == wanted


def test_a_refilter_gives_the_outcomes_of_a_build_with_the_other_quota(tmp_path: Path) -> None:
    out = build(tmp_path / "two", 2)
    refilter(str(out), ["per_uploader.max_clips=1"])
    assert outcomes(out) == outcomes(build(tmp_path / "one", 1))
    refilter(str(out), ["per_uploader.max_clips=3"])
    third = next(row for row in outcomes(out).values() if row["uploader_rank"] == 3)
    assert (third["status"], third["reason"]) == ("rejected", NOT_PROCESSED)
    refilter(str(out), ["per_uploader.max_clips=2"])
    assert outcomes(out) == outcomes(Path(f"{out}@0"))


def test_clips_that_a_dataset_grows_by_come_after_those_that_it_has(tmp_path: Path) -> None:
    out = build(tmp_path / "old", 2)
    before = outcomes(out)
    write(tmp_path / "new", 2, [*UPLOADERS, "cid", "cid", "ann"])
    how = How(engine="local", workers=0)
    grow(str(out), [f"list={tmp_path / 'new' / 'uploaders.csv'}"], how, Console(), quiet=True)
    after = outcomes(out)
    assert {clip_id: after[clip_id] for clip_id in before} == before
    new = {clip_id: (row["uploader_rank"], row["status"]) for clip_id, row in after.items() if clip_id not in before}
    assert new["c015"] == (3, "rejected"), "two of ann's clips were kept already"
    assert {new[clip_id] for clip_id in ("c013", "c014")} == {(2, "kept"), (3, "rejected")}


def test_where_the_earlier_clips_lie_is_no_part_of_the_recipes_identity(tmp_path: Path) -> None:
    out = build(tmp_path / "here", 2)
    here = PerUploader(max_clips=1, against=[str(out)]).identity()
    out.rename(tmp_path / "there")
    assert PerUploader(max_clips=1, against=[str(tmp_path / "there")]).identity() == here


def test_a_quota_is_a_number_of_clips(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    for text, said in (("max_clips: 0", "max_clips"), ("max_clip: 1", "max_clips")):
        path.write_text(path.read_text().replace("max_clips: 1", text))
        with pytest.raises(RecipeError, match=said):
            load(path)
        write(tmp_path, 1)
