"""Checkpoints are whole or not there, and the newest whole one is found whatever became of the others."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import torch

from vidal.dataset.lock import FOLDER, LostLockError, take
from vidal.dataset.storage import Storage
from vidal.errors import ModelError, StorageError, VidalWarning
from vidal.train.checkpoint import Checkpoints

MODEL, OPTIMISER = {"w": torch.arange(6.0).reshape(2, 3)}, {"exp_avg.w": torch.ones(2, 3), "step.w": torch.tensor(4.0)}
FILES = ("model.safetensors", "optimiser.safetensors", "sums.json")


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path, keep_last=3)
    checkpoints.save(10, MODEL, OPTIMISER)
    checkpoints.save(20, {"w": MODEL["w"] + 1}, OPTIMISER)
    return checkpoints


def test_what_is_saved_is_what_is_loaded(two: Checkpoints) -> None:
    latest = two.latest()
    assert latest is not None and latest.step == 20
    assert torch.equal(latest.model()["w"], MODEL["w"] + 1)
    assert all(torch.equal(latest.optimiser()[name], value) for name, value in OPTIMISER.items())
    assert sorted(path.name for path in (two.folder / latest.name).iterdir()) == [*FILES]


@pytest.mark.parametrize("bases", [{}, {"text": "1" * 64, "depth": "2" * 64}])
def test_digests_of_what_is_left_out_are_read_from_the_model_file(bases: dict[str, str], two: Checkpoints) -> None:
    two.save(30, MODEL, OPTIMISER, bases)
    latest = two.latest()
    assert latest is not None and latest.bases() == bases and torch.equal(latest.model()["w"], MODEL["w"])


def test_old_ones_go_and_nothing_temporary_stays(two: Checkpoints) -> None:
    for step in (30, 40, 50):
        two.save(step, MODEL, OPTIMISER)
    assert sorted(path.name for path in two.folder.iterdir()) == ["000030", "000040", "000050"]


def test_those_of_each_so_many_steps_stay_for_good(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_every=20)
    for step in (10, 20, 30, 40, 50, 60, 70):
        checkpoints.save(step, MODEL, OPTIMISER)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000020", "000040", "000060", "000070"]


def test_the_best_one_stays_until_another_is_better_or_it_led_to_nothing(two: Checkpoints) -> None:
    two.mark_best(10, 0.5)
    for step in (30, 40, 50):
        two.save(step, MODEL, OPTIMISER)
    best = two.named("best")
    assert best is not None and (best.step, two.best()) == (10, (10, 0.5))
    two.mark_best(50, 0.6)
    two.save(60, MODEL, OPTIMISER)
    assert sorted(path.name for path in two.folder.iterdir()) == ["000040", "000050", "000060", "best.json"]
    two.set_aside(50)
    assert (two.best(), two.named("best"), two.named("000050")) == (None, None, None)


def test_a_training_that_lost_its_folder_saves_and_deletes_nothing_there(two: Checkpoints, tmp_path: Path) -> None:
    late = Checkpoints(tmp_path, keep_last=1, fence=take(Storage(str(tmp_path))).fence)
    late.save(30, MODEL, OPTIMISER)
    (tmp_path / FOLDER / "000001").write_text("{}")
    take(Storage(str(tmp_path)))
    two.save(40, MODEL, OPTIMISER)
    under_way = two.folder / ".000050.tmp"
    under_way.mkdir()
    for attempt in (lambda: late.save(40, OPTIMISER, MODEL), lambda: late.set_aside(30)):
        with pytest.raises(LostLockError, match=r"lost the lock to pid"):
            attempt()
    assert sorted(path.name for path in two.folder.iterdir()) == [under_way.name, "000030", "000040"]
    assert (latest := two.latest()) is not None and torch.equal(latest.model()["w"], MODEL["w"])


HARM = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_one_is_passed_over_and_named(name: str, harm: str, two: Checkpoints) -> None:
    HARM[harm](two.folder / "000020" / name)
    with pytest.warns(VidalWarning, match="000020.*skipped in favour"):
        latest = two.latest()
    assert latest is not None and latest.step == 10


def test_what_a_killed_writer_left_is_no_checkpoint(two: Checkpoints) -> None:
    shutil.copytree(two.folder / "000020", two.folder / ".000030.tmp")
    latest = two.latest()
    assert latest is not None and latest.step == 20
    two.save(30, MODEL, OPTIMISER)
    assert not (two.folder / ".000030.tmp").exists()


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).latest() is None


def test_a_pickle_in_place_of_weights_is_one_line_and_never_runs(two: Checkpoints, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    latest = two.latest()
    assert latest is not None
    (two.folder / latest.name / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="not a valid safetensors file"):
        latest.model()
    assert not (tmp_path / "ran").exists()


def test_a_disk_that_takes_no_more_is_one_line_and_the_earlier_ones_stay(two: Checkpoints) -> None:
    child = os.fork()
    if child == 0:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            two.save(30, {"w": torch.zeros(10_000)}, OPTIMISER)
        except StorageError as error:
            os._exit(0 if "000030" in str(error) and "\n" not in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(path.name for path in two.folder.iterdir()) == ["000010", "000020"]
