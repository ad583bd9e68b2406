"""Training goes on while a checkpoint is written: of the weights as they were, one at a time, and awaited at the end."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from vidal.dataset.storage import Storage
from vidal.errors import StorageError
from vidal.train import checkpoint as module
from vidal.train.checkpoint import Checkpoint, Checkpoints
from vidal.train.checkpoint_writer import CheckpointWriter
from vidal.train.full_state import full_state
from vidal.train.logs import RunLog

TENSORS = {
    "b.weight": torch.arange(12.0).reshape(3, 4), "a.count": torch.tensor(7), "a.half": torch.ones(3).bfloat16(),
    "step.b": torch.tensor(4.0), "é": torch.zeros(0, 2), "mask": torch.tensor([True, False]),
}  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    run = tmp_path / "run"
    run.mkdir()
    with RunLog(
        run, Console(file=io.StringIO()), total_steps=9, start_step=0, every_steps=1, quiet=True
    ) as opened:  # fmt: skip
        yield opened


@contextmanager
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The first file is synced once the event is set."""
    ready, fsync = threading.Event(), os.fsync

    def wait(handle: int) -> None:
        assert ready.wait(20)
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", wait)
        yield ready
        ready.set()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_byte_by_byte_that_of_safetensors() -> None:
    assert b"".join(module.packed(TENSORS)) == save(TENSORS)
    assert b"".join(module.packed(TENSORS, {"é": "1"})) == save(TENSORS, {"é": "1"})


def test_it_writes_the_weights_as_they_were_in_the_bytes_of_a_save_that_is_waited_for(
    tmp_path: Path, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited_for = Checkpoints(tmp_path / "waited").save(5, TENSORS, TENSORS)
    weights: dict[str, Tensor] = {name: tensor.clone() for name, tensor in TENSORS.items()}
    with slow_disk(monkeypatch) as ready, CheckpointWriter(Checkpoints(tmp_path / "run"), log) as writer:
        writer.save(5, full_state(weights), full_state(weights))
        # The next step.
        for tensor in weights.values():
            tensor.fill_(0)
        assert Checkpoints(tmp_path / "run").latest() is None
        ready.set()
    assert files(tmp_path / "run" / "checkpoints" / "000005") == files(
        tmp_path / "waited" / "checkpoints" / waited_for.name
    )


def test_the_best_is_marked_and_logged_once_it_is_complete(
    tmp_path: Path, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, lines = Checkpoints(tmp_path / "run"), tmp_path / "run" / "log.jsonl"
    with slow_disk(monkeypatch) as ready, CheckpointWriter(checkpoints, log) as writer:
        writer.save(5, TENSORS, TENSORS, 0.5)
        assert checkpoints.best() is None and checkpoints.named("best") is None and lines.read_text() == ""
        ready.set()
        assert writer.settled().best() == (5, 0.5)
        assert '"folder": "000005"' in lines.read_text()


def test_in_a_store_the_log_has_the_steps_of_a_checkpoint_before_it_is_there(tmp_path: Path) -> None:
    storage = Storage(f"memory://{tmp_path.name}")
    before: list[bytes] = []

    class Looking(Checkpoints):
        def save(self, *arguments: Any) -> Checkpoint:
            before.append(storage.read("log.jsonl"))
            return super().save(*arguments)

    checkpoints = Looking(storage.address, work=tmp_path)
    with (
        RunLog(tmp_path, Console(quiet=True), total_steps=9, start_step=0, every_steps=1, storage=storage) as log,
        CheckpointWriter(checkpoints, log) as writer,
    ):
        log.event("step", {"step": 4})
        writer.save(5, TENSORS, TENSORS)
    assert before == [b'{"event": "step", "step": 4}\n']
    assert storage.read("log.jsonl").endswith(b'"folder": "000005"}\n')
    latest = checkpoints.latest()
    assert latest is not None and latest.step == 5


def test_the_next_save_waits_for_the_one_before(
    tmp_path: Path, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    checkpoints = Checkpoints(tmp_path / "run")
    with slow_disk(monkeypatch) as ready, CheckpointWriter(checkpoints, log) as writer:
        writer.save(5, TENSORS, TENSORS)
        there: list[bool] = []
        opener = threading.Thread(target=lambda: (there.append(checkpoints.latest() is None), ready.set()))
        opener.start()
        writer.save(6, TENSORS, TENSORS)
        latest = checkpoints.latest()
        assert there == [True] and latest is not None and latest.step >= 5
        opener.join()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000005", "000006"]


@pytest.mark.parametrize("asks", ["save", "settled", "the end"])
def test_an_error_of_the_thread_is_raised_by_whatever_waits_next(asks: str, tmp_path: Path, log: RunLog) -> None:
    (tmp_path / "run" / "checkpoints").write_text("a file where the folder belongs")
    with (
        pytest.raises(StorageError, match=r"checkpoints/000005: [^\n]*$"),
        CheckpointWriter(Checkpoints(tmp_path / "run"), log) as writer,
    ):
        writer.save(5, TENSORS, TENSORS)
        if asks == "save":
            writer.save(6, TENSORS, TENSORS)
        elif asks == "settled":
            writer.settled()


def test_the_error_that_ends_a_run_is_told_and_the_checkpoint_under_way_is_written(
    tmp_path: Path, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(ValueError, match="diverged"), CheckpointWriter(checkpoints, log) as writer:
        writer.save(5, TENSORS, TENSORS)
        raise ValueError("diverged")
    latest = checkpoints.latest()
    assert latest is not None and latest.step == 5
