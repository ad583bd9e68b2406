"""`CheckpointWriter`: writes checkpoints in a thread, while training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from vidal.train.checkpoint import Checkpoints
from vidal.train.logs import RunLog


class CheckpointWriter:
    """A context manager that writes one checkpoint at a time, and at its end waits for the last.

    An error of the thread is raised by whatever waits next: `save`, `settled` or the end of the context.
    """

    def __init__(self, checkpoints: Checkpoints, log: RunLog, bases: Mapping[str, str] | None = None) -> None:
        """``bases`` are digests of the frozen weights, by tower, that the checkpoints leave out."""
        self._checkpoints, self._log, self._bases = checkpoints, log, bases
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._under_way: Future[None] | None = None

    def settled(self) -> Checkpoints:
        """Return the run's checkpoints once none is being written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()
        return self._checkpoints

    def save(
        self, steps: int, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor], best: float | None = None
    ) -> None:
        """Write copies on the CPU as the checkpoint after ``steps`` steps; ``best`` is its score, if the best one.

        Copies from a GPU may still be under way in the current stream.
        """
        self.settled()
        copied: torch.cuda.Event | None = None
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._under_way = self._thread.submit(self._write, steps, model, optimiser, best, copied)

    def _write(
        self, steps: int, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor], best: float | None,
        copied: torch.cuda.Event | None,
    ) -> None:  # fmt: skip
        if copied is not None:
            copied.synchronize()
        # First: a run that resumes from the checkpoint has the lines of all steps before it.
        self._log.publish()
        saved = self._checkpoints.save(steps, model, optimiser, self._bases)
        self._log.event("checkpoint", {"step": steps - 1, "folder": saved.name})
        if best is not None:
            self._checkpoints.mark_best(steps, best)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        # Not in place of the error that ends the run.
        if error is None:
            self.settled()
