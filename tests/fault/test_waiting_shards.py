"""A shard that waits, as for its hosts, beside another of its worker: the same bytes, and no clip of it is blamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.runs import PAINT, SHADE, TROUBLE, WAIT, digests, outcomes, rows, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.driver import OpenShardsError
from vidal.engine.job import Assignment, Job, Progress, UnderWay
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.errors import NotNowError


class Watched:
    """An engine of one worker that tells which shards were attempted in each pass, and which of them clip by clip."""

    def __init__(self) -> None:
        self._engine = PoolEngine(1)
        self.passes: list[dict[int, bool]] = []
        self.has_gpu, self.share, self.close = self._engine.has_gpu, self._engine.share, self._engine.close

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> dict[int, UnderWay | NotNowError]:
        self.passes.append({assignment.shard: assignment.isolate for assignment in assignments})
        return self._engine.run(job, assignments, progress)


def waiting_recipe(folder: Path, titles: Mapping[int, str], *waiting: int, asks_once: bool = False) -> Path:
    """Six shards of two clips, of which some wait; ``titles`` are those of the first clip of a shard."""
    folder.mkdir()
    where = {row["shard"]: int(clip_id[1:]) for clip_id, row in rows(plan_of_twelve(folder)).items()}
    given = {where[shard]: title for shard, title in titles.items()}
    wait = {WAIT: {"shards": waiting, "asks_once": asks_once}}
    stages = [PAINT, {TROUBLE: {"marks": str(folder)}}, wait, SHADE]
    return write_recipe(folder, stages, [given.get(n, f"clip {n}") for n in range(12)], shards={"size": 2})


def plan_of_twelve(folder: Path) -> Path:
    run(write_recipe(folder, [PAINT], 12, shards={"size": 2}), folder / "plan", InProcessEngine())
    return folder / "plan"


def test_two_shards_of_a_worker_at_once_have_the_bytes_of_one_after_the_other_and_either_may_stay_open(
    tmp_path: Path,
) -> None:
    recipe, engine = waiting_recipe(tmp_path / "toys", {1: "once later"}, 0, 3), Watched()
    with pytest.raises(OpenShardsError, match="1 of 6 shards stay open, 5 are committed"):
        run(recipe, tmp_path / "out", engine)
    assert run(recipe, tmp_path / "out", engine).done_shards == [1]
    run(recipe, tmp_path / "reference", InProcessEngine())
    assert digests(tmp_path / "out") == digests(tmp_path / "reference")


def test_a_shard_that_asks_for_another_beside_two_gets_it_once_one_of_them_is_done(tmp_path: Path) -> None:
    done = run(waiting_recipe(tmp_path / "toys", {}, 0, 1, asks_once=True), tmp_path / "out", Watched()).done_shards
    assert done[0] == 0 and done.index(2) < done.index(1)
    assert {status for status, _ in outcomes(tmp_path / "out").values()} == {"kept"}


def test_a_death_costs_a_shard_that_only_waits_neither_its_pass_nor_an_attempt(tmp_path: Path) -> None:
    recipe, engine = waiting_recipe(tmp_path / "toys", {1: "segfault", 2: "sleep"}, 0, 4), Watched()
    done = run(recipe, tmp_path / "out", engine).done_shards
    assert engine.passes[1:] == [{1: True, 2: True}] * 2 and done[:4] == [3, 0, 5, 4]
    lost = {row["title"]: row["attempts"] for row in rows(tmp_path / "out").values() if row["status"] != "kept"}
    assert lost == {"segfault": 2, "sleep": 2}
    assert {row["attempts"] for row in rows(tmp_path / "out").values() if row["status"] == "kept"} == {1}
    assert list(verify(Dataset.open(str(tmp_path / "out")))) == []
