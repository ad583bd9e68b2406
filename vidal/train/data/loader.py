"""`Loader`: the batches of a training run, decoded in worker processes.

The plan decides which samples a batch has; what a sample draws (text, frame, crops) depends on the seed, the epoch and
the sample alone. So batches are the same for any number of workers, and together the same for any number of ranks. A
sample that cannot be read becomes an invalid row that is reported; no other sample replaces it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import multiprocessing
import multiprocessing.process
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from vidal.errors import MachineError, VidalError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.ahead import ahead
from vidal.train.data.plan import Pair, SamplePlan
from vidal.train.data.rows import Broken, Chunk, ChunkDataset, ChunkRequest, Indices, check_frames
from vidal.train.data.shared_memory import check_room
from vidal.train.data.text_views import TextViews

# What a worker hands over at once; workers * prefetch of them may lie in the 64 MB of a container's shared memory.
_CHUNK_ROWS = 16
_CHUNK_BYTES = 16 << 20
PREFETCH_CHUNKS = 4
STALL_S = 300.0


@dataclass(slots=True, kw_only=True)
class Batch:
    """A rank's share of a step: b rows, of which those that are not ``valid`` are padding or broken, and zero."""

    step: int
    epoch: int
    """Epoch of the pair."""
    pair: Pair
    inputs: dict[str, Tensor]
    """Pixel values (b, …) float32 of each side of the pair that is not text."""
    texts: list[str]
    """The b texts; empty if the pair has no text side."""
    valid: Tensor
    """(b,) bool."""
    group: Tensor
    """(b,) int64, equal for rows with the same text or, without texts, of the same clip."""
    first: int
    """Index of this rank's first row among the rows of the step over all ranks."""
    step_rows: int
    """The maximum number of rows of a step, over all ranks."""
    clip_ids: list[str | None]
    """The b clip ids; None for padding."""
    broken: list[Broken] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on ``device``; pinned inputs are copied asynchronously."""
        moved = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        return dataclasses.replace(self, inputs=moved, valid=self.valid.to(device), group=self.group.to(device))


class Loader:
    """Iterates over the `Batch` of each step from ``start_step`` on.

    Workers send rows in chunks of at most 16 MiB. A thread assembles them into batches (with ``pin``, in pinned
    memory), one batch ahead of the consumer, so up to three batches are in memory.
    """

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], plan: SamplePlan,
        transforms: Mapping[str, Transform], texts: TextViews, *, seed: int, rank: int = 0, ranks: int = 1,
        workers: int = 0, start_step: int = 0, pin: bool = False, prefetch: int = PREFETCH_CHUNKS,
        stall_s: float = STALL_S, stop: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """``index`` maps each pair to the sample indices of each dataset that have both sides.

        Each worker prefetches ``prefetch`` chunks; if none arrives for ``stall_s`` seconds, iteration raises
        `MachineError`. Setting ``stop`` ends the iteration while it waits for a batch, unless there are other ranks:
        they would wait for this one. Raises `RecipeError` if a transform needs more frames than the clips store.
        """
        check_frames(samples, index, transforms)
        self._plan, self._rank, self._ranks, self._start = plan, rank, ranks, start_step
        self._rows = plan.rows_per_rank(ranks)
        self._transforms = transforms
        self._dataset = ChunkDataset(samples, index, transforms, texts, seed)
        self._workers, self._pin = workers, pin and torch.cuda.is_available()
        self._prefetch, self._stall_s = prefetch, stall_s
        # With other ranks the step after the signal ends the run, on all of them together.
        self._stop = stop if ranks == 1 else None

    def __iter__(self) -> Iterator[Batch]:
        if self._workers:
            chunk_bytes = max(self._chunk_rows(pair) * self._row_bytes(pair) for pair in self._plan.pairs())
            check_room(self._workers, self._prefetch, chunk_bytes)
        before = set(multiprocessing.active_children())
        with _own_child_signals():
            chunks = iter(
                DataLoader(
                    # No batches of its own: a request is a chunk of rows already. Forked, so that workers share the
                    # datasets' rows.
                    self._dataset, batch_size=None, sampler=self._requests(), num_workers=self._workers,
                    prefetch_factor=self._prefetch if self._workers else None, worker_init_fn=_init_worker,
                    # Its own generator: starting workers must not advance the global one.
                    generator=torch.Generator(), multiprocessing_context="fork" if self._workers else None,
                )
            )  # fmt: skip
        # A new thread's current device is the first one, which may be another rank's.
        device = torch.cuda.current_device() if self._pin else None
        watch = _Watch(chunks, set(multiprocessing.active_children()) - before, self._stall_s, self._stop)
        batches = self._batches(watch, device)
        return ahead(batches, watch.should_end) if self._workers else batches

    def _requests(self) -> Iterator[ChunkRequest]:
        for step in range(self._start, self._plan.steps):
            planned = self._plan.at(step)
            slots = self._plan.share_of(planned.slots, self._rank, self._ranks)
            for rows in self._chunks(planned.pair):
                yield ChunkRequest(planned.pair, planned.epoch, slots[rows])

    def _chunks(self, pair: Pair) -> list[slice]:
        size = self._chunk_rows(pair)
        return [slice(start, min(start + size, self._rows)) for start in range(0, self._rows, size)]

    def _chunk_rows(self, pair: Pair) -> int:
        return max(1, min(_CHUNK_ROWS, self._rows, _CHUNK_BYTES // self._row_bytes(pair)))

    def _row_bytes(self, pair: Pair) -> int:
        return sum(4 * math.prod(self._transforms[side].input_shape) for side in pair if side != "text")

    def _batches(self, chunks: Iterator[Chunk], device: int | None) -> Iterator[Batch]:
        if device is not None:
            torch.cuda.set_device(device)
        for step in range(self._start, self._plan.steps):
            pair = self._plan.pair_of(step)
            inputs = {
                side: torch.empty(self._rows, *self._transforms[side].input_shape, pin_memory=self._pin)
                for side in pair if side != "text"
            }  # fmt: skip
            texts: list[str] = []
            valid: list[bool] = []
            clip_ids: list[str | None] = []
            broken: list[Broken] = []
            for rows in self._chunks(pair):
                chunk = next(chunks)
                for side, pixel_values in chunk.inputs.items():
                    inputs[side][rows] = pixel_values
                texts += chunk.texts
                valid += chunk.valid
                clip_ids += chunk.clip_ids
                broken += chunk.broken
            # Hashes, not running numbers: equal keys must get equal groups on every rank.
            keys = texts or [clip_id or "" for clip_id in clip_ids]
            digests = [hashlib.sha256(key.encode()).digest() for key in keys]
            # 64 bits: two of a million keys coincide with a probability of 3 in a hundred million.
            group = torch.tensor([int.from_bytes(d[:8], "big", signed=True) for d in digests], dtype=torch.int64)
            yield Batch(
                step=step, epoch=self._plan.epoch_of(step), pair=pair, inputs=inputs, texts=texts,
                valid=torch.tensor(valid), first=self._plan.first_row(step, self._rank, self._ranks),
                step_rows=self._plan.batch_size, clip_ids=clip_ids, broken=broken, group=group,
            )  # fmt: skip


class _Watch(Iterator[Chunk]):
    """The chunks of the workers, their faults, and a time limit: a worker may be alive and yet never deliver one."""

    def __init__(
        self, chunks: Iterator[Chunk | VidalError], workers: set[multiprocessing.process.BaseProcess], stall_s: float,
        stop: threading.Event | None,
    ) -> None:  # fmt: skip
        self._chunks, self._workers, self._stall_s, self._stop = chunks, workers, stall_s, stop
        self._last_s = time.monotonic()

    def __next__(self) -> Chunk:
        try:
            chunk = next(self._chunks)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise MachineError(
                f"a worker process died ({reason}); if memory or shared memory (--shm-size) is short, lower "
                "data.workers"
            ) from error
        self._last_s = time.monotonic()
        if isinstance(chunk, VidalError):
            raise chunk
        return chunk

    def should_end(self, since_s: float) -> bool:
        """Return whether the run was stopped while it waits for a batch; raises `MachineError` after a stall."""
        is_stopped = self._stop is not None and self._stop.is_set()
        # Counted from the start of the wait: while the trainer computes, nothing is requested.
        is_stalled = time.monotonic() - max(self._last_s, since_s) > self._stall_s
        if is_stopped or is_stalled:
            for worker in self._workers:
                # SIGKILL: a process that is stopped or waits for a disk ignores every other signal.
                worker.kill()
        if is_stalled and not is_stopped:
            raise MachineError(
                f"no sample arrived from the {len(self._workers)} worker processes for {self._stall_s:g} s; check the "
                "storage of the data, or raise data.stall_s if a read takes that long"
            )
        return is_stopped


def _init_worker(worker: int) -> None:
    # Ctrl-C reaches the whole process group, but the main process decides when a run ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The handler of the run, inherited by the fork, only sets an event: the worker would survive its termination.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The workers are the parallelism; torch is limited to one thread by its DataLoader, OpenCV is not.
    cv2.setNumThreads(0)


@contextmanager
def _own_child_signals() -> Iterator[None]:
    """Undo the SIGCHLD handler of `DataLoader`, which raises a worker's death at any point of the main thread.

    Without it, a death raises where the main process waits for a chunk. The handler of an earlier `DataLoader` is
    removed as well, since it checks the workers of every loader of the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if getattr(before, "__module__", "") == signal_handling.__name__:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        elif before is not None:
            signal.signal(signal.SIGCHLD, before)
