"""`Loader`: the batches of a training run, decoded in worker processes.

The plan decides which samples a batch has; what a sample draws (text, frame, crops) depends on the seed, the epoch and
the sample alone. So batches are the same for any number of workers, and together the same for any number of ranks. A
sample that cannot be read becomes an invalid row that is reported; no other sample replaces it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from vidal.errors import MachineError, VidalError, one_line
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.plan import SamplePlan, Sides, modalities_of, optional_of
from vidal.train.data.rows import Broken, Chunk, ChunkDataset, ChunkRequest, Indices, Tokenize, check_frames, layout
from vidal.train.data.slabs import Copy, allocate, pinned
from vidal.train.data.text_views import TextViews

_CPU = torch.device("cpu")
_CHUNK_ROWS = 16
"""Rows that a worker is asked for at once."""
_CHUNKS_AHEAD = 32
"""Later requests of a worker whose rows it begins to read: enough to keep the connections to a store busy."""
_STEPS_AHEAD = 2
"""Steps whose rows the workers make while a batch is being trained on."""
_POLL_S = 0.2
"""How often a wait for the workers is broken off, to see whether the run was stopped or has stalled."""
STALL_S = 300.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """One side of a batch of b rows, as the workers prepared it.

    ``inputs[4:8]`` finishes some rows on their device and returns the tower's input, (4, …) float32; rows that are not
    valid are zero. A step that encodes a batch in parts never holds all of it in float32.
    """

    values: Tensor
    mirrored: Tensor
    valid: Tensor
    has_invalid: bool
    transform: Transform

    def __getitem__(self, rows: slice) -> Tensor:
        finished = self.transform.finish(self.values[rows], self.mirrored[rows])
        if not self.has_invalid:
            return finished
        return finished.masked_fill(~self.valid[rows].view(-1, *[1] * (finished.ndim - 1)), 0)


@dataclass(slots=True, kw_only=True)
class Batch:
    """A rank's share of a step: b rows, of which those that are not ``valid`` are padding or broken, and zero.

    Tensors are on the device of the loader.
    """

    step: int
    epoch: int
    """Epoch of the sides."""
    sides: Sides
    inputs: dict[str, Inputs]
    """Each modality that is not text."""
    texts: list[str]
    """The b texts; empty if text is not encoded."""
    tokens: tuple[Tensor, Tensor] | None
    """Token ids and attention mask of the texts, (b, n) int64; None if the loader has no tokeniser."""
    valid: Tensor
    """(b,) bool."""
    broken_rows: Tensor
    """(b,) bool, True for samples that could not be read."""
    group: Tensor
    """(b,) int64 from 0 to 2**48, equal for rows with the same text or, without texts, of the same clip."""
    clip_group: Tensor
    """(b,) likewise, equal for rows of the same clip."""
    first: int
    """Index of this rank's first row among the rows of the step over all ranks."""
    step_rows: int
    """The maximum number of rows of a step, over all ranks."""
    clip_ids: list[str | None]
    """The b clip ids; None for padding."""
    samples: int
    """Number of valid rows."""
    nbytes: int
    """Bytes that were copied to the device."""
    broken: list[Broken] = field(default_factory=list)
    present: dict[str, Tensor] = field(default_factory=dict)
    """(b,) bool for each modality that a clip may lack, as it is only part of a fused side."""


class Loader:
    """Iterates over the `Batch` of each step from ``start_step`` on.

    Workers write rows into slabs, memory of the size of a batch that all processes share; usually there are three. The
    main process only copies a complete slab to the device. On a GPU the copy runs in a stream of its own, one step
    ahead.
    """

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Sides, Sequence[Indices]], plan: SamplePlan,
        transforms: Mapping[str, Transform], texts: TextViews, *, seed: int, rank: int = 0, ranks: int = 1,
        workers: int = 0, start_step: int = 0, device: torch.device = _CPU, tokenize: Tokenize | None = None,
        stall_s: float = STALL_S, stop: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """``index`` maps the sides of each step to the sample indices of each dataset that have all of them.

        With ``tokenize``, the workers tokenise the texts. If no rows arrive for ``stall_s`` seconds, iteration raises
        `MachineError`. Setting ``stop`` ends the iteration while it waits for a batch, unless there are other ranks:
        they would wait for this one. Raises `RecipeError` if a transform needs more frames than the clips store.
        """
        check_frames(samples, index, transforms)
        self._plan, self._rank, self._ranks, self._start = plan, rank, ranks, start_step
        self._rows = plan.rows_per_rank(ranks)
        self._workers, self._device, self._stall_s = workers, device, stall_s
        # With other ranks the step after the signal ends the run, on all of them together.
        self._stop = stop if ranks == 1 else None
        # Loads the tokeniser, too, which is then there in every worker.
        has_texts = any("text" in modalities_of(sides) for sides in plan.sides())
        tokens = tokenize([""])[0].shape[1] if tokenize is not None and has_texts else None
        self._transforms = transforms
        self._layouts = {sides: layout(sides, self._rows, transforms, tokens) for sides in plan.sides()}
        # Small enough that every worker has a part of a batch.
        self._chunk_rows = max(1, min(_CHUNK_ROWS, -(-self._rows // max(workers, 1))))
        self._make_dataset = partial(ChunkDataset, _in_blocks(samples, plan), index, transforms, texts, seed, tokenize)

    def __iter__(self) -> Iterator[Batch]:
        per_step = -(-self._rows // self._chunk_rows)
        prefetch = max(1, _STEPS_AHEAD * per_step // max(self._workers, 1))
        # Chunk c is requested when chunk c - workers * prefetch arrives. With so many slabs, the steps between the two
        # leave one for the step before, so no worker ever writes into a slab that is still being read.
        count = 1 + -(-self._workers * prefetch // per_step)
        slabs = allocate(count, max(layout.size for layout in self._layouts.values()))
        dataset = self._make_dataset(slabs, self._layouts)
        requests = self._requests(count)
        if not self._workers:
            return self._batches(_Watch(_served(dataset, requests), set(), self._stall_s, None), slabs)
        before = set(multiprocessing.active_children())
        with _own_child_signals():
            chunks = iter(
                DataLoader(
                    # No batches of its own: a request is a chunk of rows already. Forked, so that workers share the
                    # slabs and the datasets' rows.
                    dataset, batch_size=None, sampler=requests, num_workers=self._workers, prefetch_factor=prefetch,
                    worker_init_fn=_init_worker, timeout=_POLL_S, multiprocessing_context="fork",
                    # Its own generator: starting workers must not advance the global one.
                    generator=torch.Generator(),
                )
            )  # fmt: skip
        workers = set(multiprocessing.active_children()) - before
        return self._batches(_Watch(chunks, workers, self._stall_s, self._stop), slabs)

    def _requests(self, slabs: int) -> Iterator[ChunkRequest]:
        """The requests in order, each with the rows that its worker may begin to read."""
        # Workers take turns.
        turns, source = max(self._workers, 1), self._planned(slabs)
        reach = turns * _CHUNKS_AHEAD
        window = deque(itertools.islice(source, reach))
        for count in itertools.count():
            window.extend(itertools.islice(source, 1))
            if not window:
                return
            request = window.popleft()
            # The first request of a worker announces all within reach, every later one the one that comes into reach.
            later = list(itertools.islice(window, turns - 1, None, turns))
            later = [request, *later] if count < turns else later[_CHUNKS_AHEAD - 1 :]
            yield replace(request, ahead=[(each.sides, each.slots) for each in later])

    def _planned(self, slabs: int) -> Iterator[ChunkRequest]:
        for step in range(self._start, self._plan.steps):
            planned = self._plan.at(step)
            slots = self._plan.share_of(planned.slots, self._rank, self._ranks)
            for first in range(0, self._rows, self._chunk_rows):
                rows = slots[first : first + self._chunk_rows]
                yield ChunkRequest(planned.sides, planned.epoch, rows, (step - self._start) % slabs, first)

    def _batches(self, chunks: _Watch, slabs: Sequence[Tensor]) -> Iterator[Batch]:
        is_cuda = self._device.type == "cuda"
        stream = torch.cuda.Stream(self._device) if is_cuda else None  # type: ignore[no-untyped-call]
        # A copy to the CPU is complete at once, so nothing is gained by making it one step ahead.
        ahead = 0 if stream is None else 1
        copies: deque[tuple[Copy, Callable[[Tensor], Batch]]] = deque()
        with nullcontext() if stream is None else pinned(slabs):
            for step in range(self._start, self._plan.steps):
                if copies:
                    # From the first chunk of this step on, workers write into the slab of the step before.
                    copies[-1][0].wait()
                arrived = [next(chunks, None) for _ in range(0, self._rows, self._chunk_rows)]
                if None in arrived:
                    return
                slab = slabs[(step - self._start) % len(slabs)]
                copy = Copy(slab, self._layouts[self._plan.sides_of(step)].size, self._device, stream)
                copies.append((copy, self._finisher(step, slab, [chunk for chunk in arrived if chunk is not None])))
                if len(copies) > ahead:
                    copy, batch_of = copies.popleft()
                    yield batch_of(copy.result())
            for copy, batch_of in copies:
                yield batch_of(copy.result())

    def _finisher(self, step: int, slab: Tensor, chunks: Sequence[Chunk]) -> Callable[[Tensor], Batch]:
        """The function that makes the batch of a step from the copied slab."""
        sides = self._plan.sides_of(step)
        layout = self._layouts[sides]
        # Counted here, on the CPU: a GPU would have to be waited for.
        samples = sum(layout.views(slab)["valid"].tolist())

        def batch_of(block: Tensor) -> Batch:
            views = layout.views(block)
            inputs = {
                side: Inputs(
                    views[side], views[f"{side}.mirrored"], views["valid"], samples < self._rows, self._transforms[side]
                )
                for side in modalities_of(sides) if side != "text"
            }  # fmt: skip
            return Batch(
                step=step, epoch=self._plan.epoch_of(step), sides=sides, inputs=inputs,
                texts=[text for chunk in chunks for text in chunk.texts],
                tokens=(views["input_ids"], views["attention_mask"]) if "input_ids" in views else None,
                valid=views["valid"], broken_rows=views["broken"], group=views["group"],
                clip_group=views["clip_group"],
                step_rows=self._plan.batch_size,
                first=self._plan.first_row(step, self._rank, self._ranks), samples=samples, nbytes=len(block),
                clip_ids=[clip_id for chunk in chunks for clip_id in chunk.clip_ids],
                broken=[broken for chunk in chunks for broken in chunk.broken],
                present={side: views[f"{side}.present"] for side in optional_of(sides)},
            )  # fmt: skip

        return batch_of


def _in_blocks(samples: Sequence[Samples], plan: SamplePlan) -> list[Samples]:
    """The datasets, of which those in an object store are read in blocks as long as the cache holds them all."""
    layers = {side for sides in plan.sides() for side in modalities_of(sides) if side != "text"}
    reading: list[Samples] = []
    taken = 0
    for each in samples:
        # The cache evicts some files before it is full, and other runs may use it.
        blocks, size = each.in_blocks(layers, each.cache_bytes * 7 // 8 - taken)
        taken += size
        reading.append(blocks)
    return reading


def _served(dataset: ChunkDataset, requests: Iterator[ChunkRequest]) -> Iterator[Chunk | VidalError]:
    """The chunks, made in this process."""
    try:
        yield from map(dataset.__getitem__, requests)
    finally:
        dataset.stop()


class _Watch(Iterator[Chunk]):
    """The chunks of the workers, their faults, and a time limit: a worker may be alive and yet never deliver one."""

    def __init__(
        self, chunks: Iterator[Chunk | VidalError], workers: set[multiprocessing.process.BaseProcess], stall_s: float,
        stop: threading.Event | None,
    ) -> None:  # fmt: skip
        self._chunks, self._workers, self._stall_s, self._stop = chunks, workers, stall_s, stop

    def __next__(self) -> Chunk:
        """Wait for the next chunk; ends if the run was stopped, and raises `MachineError` after a stall."""
        # While the trainer computes, nothing is requested, so the time is that of this wait.
        since_s = time.monotonic()
        while True:
            try:
                chunk = next(self._chunks)
            except RuntimeError as error:
                if "DataLoader timed out" in str(error):
                    self._check(time.monotonic() - since_s)
                    continue
                if "DataLoader worker" not in str(error):
                    raise
                reason = one_line(error, 200)
                raise MachineError(
                    f"a worker process died ({reason}); if memory is short, lower data.workers"
                ) from error
            if isinstance(chunk, VidalError):
                raise chunk
            return chunk

    def _check(self, waited_s: float) -> None:
        is_stopped = self._stop is not None and self._stop.is_set()
        if not is_stopped and waited_s <= self._stall_s:
            return
        for worker in self._workers:
            # SIGKILL: a process that is stopped or waits for a disk ignores every other signal.
            worker.kill()
        if is_stopped:
            raise StopIteration
        raise MachineError(
            f"no sample arrived from the {len(self._workers)} worker processes for {self._stall_s:g} s; check the "
            "storage of the data, or raise data.stall_s if a read takes that long"
        )


def _init_worker(worker: int) -> None:
    # Ctrl-C reaches the whole process group, but the main process decides when a run ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The handler of the run, inherited by the fork, only sets an event: the worker would survive its termination.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The workers are the parallelism; torch is limited to one thread by its DataLoader, OpenCV is not.
    cv2.setNumThreads(0)
    # The tokeniser's threads did not survive the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


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
