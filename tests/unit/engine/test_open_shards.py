"""A shard that is given back is no death: the driver leaves it open, runs the others to the end, and says why."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.runs import PAINT, SAME_TITLE, SHADE, digests, outcomes, run, write_recipe
from vidal.dataset.lock import LostLockError
from vidal.engine.driver import OpenShardsError
from vidal.engine.job import Assignment, Job, Notes, Progress, UnderWay
from vidal.engine.local import InProcessEngine
from vidal.engine.worker import Worker
from vidal.errors import MachineError, NotNowError

Left = dict[int, UnderWay | NotNowError]
DIED = UnderWay(stage="", clip_ids=())
AT_DAWN = 4e9


def busy(what: str, later_s: int = 0) -> NotNowError:
    return NotNowError(what, "rate_limited", AT_DAWN + later_s)


class Scripted(InProcessEngine):
    """Builds the shards of each pass but those that the script says are left."""

    def __init__(self, *passes: Left) -> None:
        self._passes = list(passes)
        self.asked: list[list[tuple[int, bool]]] = []
        self.sent: list[bytes] = []
        """The job of each pass, as its workers get it."""

    def run(self, job: Job, assignments: Sequence[Assignment], progress: Progress) -> Left:
        self.asked.append([(assignment.shard, assignment.isolate) for assignment in assignments])
        self.sent.append(pickle.dumps(job))
        left = self._passes.pop(0) if self._passes else {}
        return super().run(job, [a for a in assignments if a.shard not in left], progress) | left


def test_a_shard_that_is_given_back_is_not_tried_again_in_the_run_and_the_next_run_takes_just_that(
    tmp_path: Path,
) -> None:
    recipe, engine = write_recipe(tmp_path, [PAINT]), Scripted({0: DIED, 1: busy("a.org")}, {0: DIED})
    with pytest.raises(OpenShardsError, match="1 of 3 shards stay open") as error:
        run(recipe, tmp_path / "out", engine)
    assert error.value.exit_code == MachineError.exit_code
    assert engine.asked == [[(0, False), (1, False), (2, False)], [(0, True)], [(0, True)]]
    engine = Scripted()
    run(recipe, tmp_path / "out", engine)
    assert engine.asked == [[(1, False)]]


def test_a_shard_may_be_given_back_after_a_death_and_deaths_of_others_still_end_the_run(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [PAINT])
    engine = Scripted({0: DIED, 1: busy("a.org")}, {0: busy("a.org")})
    with pytest.raises(OpenShardsError, match="2 of 3 shards stay open"):
        run(recipe, tmp_path / "out", engine)
    with pytest.raises(MachineError, match="workers died 3 times"):
        run(recipe, tmp_path / "out", Scripted({0: DIED, 1: busy("a.org")}, *[{0: DIED}] * 3))


def test_a_shard_whose_machine_went_is_made_again_as_it_was_and_no_clip_is_to_blame(tmp_path: Path) -> None:
    gone = UnderWay(stage="", clip_ids=(), is_machines_fault=True)
    engine = Scripted({0: gone, 1: DIED}, {0: gone, 1: gone})
    run(write_recipe(tmp_path, [PAINT]), tmp_path / "out", engine)
    assert engine.asked == [[(0, False), (1, False), (2, False)], [(0, False), (1, True)], [(0, False), (1, True)]]
    assert set(outcomes(tmp_path / "out").values()) == {("kept", None)}


def test_a_worker_that_was_out_of_reach_changes_nothing_once_its_shard_was_made_again(tmp_path: Path) -> None:
    gone = UnderWay(stage="", clip_ids=(), is_machines_fault=True)
    recipe, engine = write_recipe(tmp_path, [PAINT, SAME_TITLE, SHADE]), Scripted({0: gone}, {}, {0: gone})
    run(recipe, tmp_path / "out", engine)
    run(recipe, tmp_path / "undisturbed", InProcessEngine())
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")
    # It is back after the run: a pass of the first phase was without it, and one of the second.
    for sent in (engine.sent[0], engine.sent[2]):
        job: Job = pickle.loads(sent)
        worker = Worker(job, job.groups, Notes())
        worker.setup()
        with pytest.raises(LostLockError):
            worker.make(Assignment(shard=0))
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("left", "held_up_by"),
    [
        ({0: busy("a.org"), 1: busy("a.org", 60)}, "a.org (rate_limited) until 2096-10-02 07:07:40 UTC"),
        (
            {0: busy("a.org"), 1: busy("b.org", 60)},
            "b.org (rate_limited) until 2096-10-02 07:07:40 UTC, a.org (rate_limited) until 2096-10-02 07:06:40 UTC",
        ),
    ],
    ids=["once a host, until its latest time", "the longest wait first"],
)
def test_the_line_names_each_host_with_its_time(
    left: Mapping[int, NotNowError], held_up_by: str, tmp_path: Path
) -> None:
    with pytest.raises(OpenShardsError) as error:
        run(write_recipe(tmp_path, [PAINT]), tmp_path / "out", Scripted(dict(left)))
    assert f"; held up by {held_up_by}; run the same command again then" in str(error.value)


def test_of_many_hosts_the_line_names_five(tmp_path: Path) -> None:
    with pytest.raises(OpenShardsError) as error:
        run(write_recipe(tmp_path, [PAINT], 28), tmp_path / "out", Scripted({n: busy(f"{n}.org", n) for n in range(7)}))
    assert str(error.value).count(".org") == 5 and "UTC, 2 more; run" in str(error.value)
