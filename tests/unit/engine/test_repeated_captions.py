"""One caption on many clips: a global decision that keeps the first few of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import vidal.clip
from tests.runs import CAPTION, PAINT, SHADE, rows, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.record import from_row, to_row
from vidal.revisions.refilter import refilter
from vidal.rows import whole
from vidal.stages.repeated_captions import RepeatedCaptions

TITLES = ["A dog runs.", "a dog runs", "", "A cat sits.", "A DOG, runs!", "A dog runs.", "", "A dog ran."]


def build(folder: Path, most: int) -> Path:
    folder.mkdir()
    stages = [PAINT, CAPTION, {"repeated_captions": {"max_repeats": most}}, SHADE]
    run(write_recipe(folder, stages, titles=TITLES), folder / "out", InProcessEngine())
    return folder / "out"


def outcomes(out: Path) -> dict[str, Any]:
    names = ("status", "reason", "decided_value", "decided_limit", "caption_rank")
    return {row["clip_id"]: [row[name] for name in names] for row in Dataset.open(str(out)).rows()}


def test_the_first_clips_with_a_caption_stay_and_those_beyond_are_rejected_with_their_number(tmp_path: Path) -> None:
    found = sorted(rows(build(tmp_path / "two", 2)).values(), key=lambda row: row["position"])
    dogs = [row for row in found if (row["title"] or "").strip(".!").casefold().replace(",", "") == "a dog runs"]
    assert [(row["caption_rank"], row["status"]) for row in dogs] == [
        (1, "kept"), (2, "kept"), (3, "rejected"), (4, "rejected"),
    ]  # fmt: skip
    assert (dogs[2]["stage"], dogs[2]["reason"]) == ("repeated_captions", "repeated_caption")
    assert dogs[2]["detail"] == "clip 3 of those with its caption > 2"
    assert {row["status"] for row in found if row not in dogs} == {"kept"}
    assert list(verify(Dataset.open(str(tmp_path / "two" / "out")))) == []


def test_a_refilter_gives_the_outcomes_of_a_build_with_the_other_number(tmp_path: Path) -> None:
    out = build(tmp_path / "two", 2)
    refilter(str(out), ["repeated_captions.max_repeats=1"])
    assert outcomes(out) == outcomes(build(tmp_path / "one", 1))


@pytest.mark.parametrize(("first", "second", "same"), [
    ("A dog runs.", "a dog  RUNS", True),
    ("It’s a dog", "it's a dog", True),
    ("Ein Hund läuft", "ein hund LÄUFT!", True),
    ("a dog runs", "a dog ran", False),
    ("2 dogs", "3 dogs", False),
    ("", "", False),
    ("…", "!", False),
    (None, None, False),
])  # fmt: skip
def test_captions_are_the_same_whose_words_are(first: str | None, second: str | None, same: bool) -> None:
    made = [
        to_row(from_row({"clip_id": str(n), "status": "kept", "caption": c})) for n, c in enumerate((first, second))
    ]
    table = whole(RepeatedCaptions(max_repeats=1).decide(pa.Table.from_pylist(made, schema=vidal.clip.schema())))
    assert table["status"].to_pylist() == ["kept", "rejected" if same else "kept"]
