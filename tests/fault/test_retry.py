"""A retry redoes the chosen failed clips, and its dataset is the one that a run without the failures would have made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.engine_toys import Shade
from tests.runs import PAINT, SAME_TITLE, SHADE, TROUBLE, digests, rows, run, write_recipe
from vidal.build import How, retry
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import UserError

TITLES = ["clip 0", "once gone", "raise", "reject", *[f"clip {n}" for n in range(4, 12)]]


def again(out: Path, **keys: Any) -> bool:
    how = How(engine="local", workers=keys.get("workers", 1))
    result = retry(str(out), how, Console(quiet=True), reasons=keys.get("reasons", ()), clip_ids=keys.get("clips", ()))
    return result.did_nothing


@pytest.mark.parametrize("chosen", [{}, {"reasons": ["rate_limited"]}, {"clips": ["c001"]}])
def test_a_retry_redoes_the_chosen_clips_and_no_other(chosen: dict[str, list[str]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, {TROUBLE: {"marks": str(tmp_path)}}, SHADE], TITLES), out, InProcessEngine())
    before, files = rows(out), digests(out)
    assert before["c001"]["reason"] == "rate_limited"
    assert again(out, **chosen) is False
    after = rows(out)
    assert (after["c001"]["status"], after["c001"]["attempts"], after["c001"]["layers"]) == (
        "kept",
        2,
        ["video", "depth"],
    )
    plain = [name for name in after["c001"] if name != "members"]
    for clip_id in set(after) - {"c001"}:
        assert {name: after[clip_id][name] for name in plain} == {name: before[clip_id][name] for name in plain}
        places = [[(m["layer"], m["name"], m["sha256"]) for m in row[clip_id]["members"]] for row in (before, after)]
        assert places[0] == places[1]
    changed = {name for name, digest in digests(out).items() if digest != files[name]}
    stem = f"{before['c001']['shard']:06d}"
    assert changed == {f"video/{stem}.tar", f"depth/{stem}.tar", f"manifest/{stem}.parquet"}
    assert list(verify(Dataset.open(str(out)))) == []
    assert again(out) is True


def test_the_clips_of_a_shard_that_are_retried_share_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = ["once gone" if n % 10 == 3 else f"clip {n}" for n in range(40)]
    recipe = write_recipe(tmp_path, [PAINT, {TROUBLE: {"marks": str(tmp_path)}}, SHADE], titles, shards={"size": 40})
    run(recipe, tmp_path / "out", InProcessEngine())
    assert sum(row["status"] == "failed" for row in rows(tmp_path / "out").values()) == 4
    batches: list[int] = []
    process_batch = Shade.process_batch
    monkeypatch.setattr(Shade, "process_batch", lambda *given: (batches.append(len(given[1])), process_batch(*given)))
    again(tmp_path / "out", workers=0)
    assert batches == [4]
    assert {row["status"] for row in rows(tmp_path / "out").values()} == {"kept"}
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []


def test_a_retry_of_what_fails_again_says_so_and_counts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, TROUBLE], TITLES), out, InProcessEngine())
    for attempts in (2, 3):
        again(out, reasons=["value_error"])
        row = rows(out)["c002"]
        assert (row["status"], row["reason"], row["attempts"]) == ("failed", "value_error", attempts)


def test_a_retry_for_a_reason_that_nothing_failed_for_names_those_that_are_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [PAINT, TROUBLE], TITLES), out, InProcessEngine())
    with pytest.raises(UserError, match="no clip failed with reason nonsense; reasons: value_error"):
        again(out, reasons=["nonsense"])


def test_a_retry_of_a_clip_that_is_not_there_names_it_and_retries_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "ids.csv").write_text("clip_id,url,title\n007,0.mp4,raise\n7,1.mp4,raise\n")
    run(write_recipe(tmp_path, [PAINT, TROUBLE], source={"list": str(tmp_path / "ids.csv")}), out, InProcessEngine())
    before = digests(out)
    with pytest.raises(UserError, match="no such clip: 0007, 8; nothing was retried"):
        again(out, clips=["8", "007", "0007"])
    assert digests(out) == before
    again(out, clips=["007"])
    assert {clip_id: row["attempts"] for clip_id, row in rows(out).items()} == {"007": 2, "7": 1}


def twins(folder: Path) -> Path:
    """A recipe in which two clips of other shards have one title, and the one that fails first is first in order."""
    recipe = write_recipe(folder, [PAINT, {TROUBLE: {"marks": str(folder / "marks")}}, SAME_TITLE, SHADE], 16)
    (folder / "marks").mkdir()
    run(recipe, folder / "order", InProcessEngine())
    order = sorted(rows(folder / "order").values(), key=lambda row: row["position"])
    first, second = order[1], order[9]
    lines = ["clip_id,url,title,uploader"]
    for n in range(16):
        is_twin = f"c{n:03d}" in (first["clip_id"], second["clip_id"])
        trouble = "once gone" if f"c{n:03d}" == first["clip_id"] else ""
        lines.append(f"c{n:03d},{n}.mp4,{'twin' if is_twin else f'clip {n}'},{trouble}")
    (folder / "candidates.csv").write_text("\n".join(lines) + "\n")
    return recipe


def test_a_retry_across_a_global_decision_is_what_a_run_without_the_failure_would_have_been(tmp_path: Path) -> None:
    recipe = twins(tmp_path)
    out = tmp_path / "out"
    run(recipe, out, InProcessEngine())
    before = rows(out)
    first = next(row for row in before.values() if row["status"] == "failed")
    second = next(row for row in before.values() if row["title"] == "twin" and row is not first)
    assert (second["status"], second["cluster"]) == ("kept", second["clip_id"])

    assert again(out) is False
    after = rows(out)
    a, b = after[first["clip_id"]], after[second["clip_id"]]
    assert (a["status"], a["attempts"], a["cluster"]) == ("kept", 2, a["clip_id"])
    assert (b["status"], b["reason"], b["stage"], b["duplicate_of"]) == (
        "rejected", "duplicate", "same_title", a["clip_id"]
    )  # fmt: skip
    assert (b["duplicate_distance"], b["decided_value"], b["decided_limit"]) == (0.5, 0.5, 10)
    assert b["attempts"] == 1
    assert list(verify(Dataset.open(str(out)))) == []

    run(recipe, tmp_path / "undisturbed", InProcessEngine())  # the failure has had its one time
    wanted = rows(tmp_path / "undisturbed")
    wanted[a["clip_id"]]["attempts"] = 2
    assert after == wanted
