"""`Loader`: the batches of a run, decoded in worker processes.

What is in a batch is the plan's to say; what a sample draws (its text, its frame, its crops) depends on the seed, the
epoch and the sample alone. So the batches are the same for any number of workers, and together the same for any number
of ranks. A sample that cannot be read is an invalid row that is named, never another sample.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torch.utils.data._utils import signal_handling

from vidal import modality as modalities
from vidal.errors import ClipError, MachineError, RecipeError, VidalError
from vidal.modality.modality import SELF_CHECKED, Transform
from vidal.reader.samples import Samples
from vidal.train.data.ahead import ahead
from vidal.train.data.plan import Pair, SamplePlan, Slots, generator
from vidal.train.data.shared_memory import check_room, share
from vidal.train.data.text_views import COLUMNS, TextViews

_CHUNK_ROWS = 16
_CHUNK_BYTES = 16 << 20
PREFETCH_CHUNKS = 4
STALL_S = 300.0
_LOOKED_AT = 8

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A sample that could not be read."""

    clip_id: str
    data_set: str
    why: str


@dataclass(slots=True, kw_only=True)
class Batch:
    """A rank's part of a step; rows that are not ``valid`` are padding or broken, and hold zeros."""

    step: int
    epoch: int
    pair: Pair
    inputs: dict[str, Tensor]
    texts: list[str]
    """Empty where the pair has no text side."""
    valid: Tensor
    group: Tensor
    """(b,) equal for rows with the same text, or of the same clip."""
    first: int
    """Where this rank's rows begin among those of the step, over all ranks."""
    step_rows: int
    """The most rows that a step has, over all ranks."""
    clip_ids: list[str | None]
    broken: list[Broken] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        moved = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        return dataclasses.replace(self, inputs=moved, valid=self.valid.to(device), group=self.group.to(device))


@dataclass(slots=True)
class _Chunk:
    """Some rows of a batch, on their way from a worker."""

    inputs: dict[str, Tensor]
    texts: list[str]
    valid: list[bool]
    clip_ids: list[str | None]
    broken: list[Broken]


@dataclass(frozen=True, slots=True)
class _Order:
    """What a worker is asked for: some slots of a rank's part of a step."""

    pair: Pair
    epoch: int
    slots: Slots


class Loader:
    """Iterating gives the `Batch` of each step from ``start_step`` on.

    Workers send rows in chunks of a few megabytes, of which a few are under way. A thread puts them together, one batch
    ahead of the one that was asked for, on CUDA in pinned memory: so up to three batches are in memory.
    """

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], plan: SamplePlan,
        transforms: Mapping[str, Transform], texts: TextViews, *, seed: int, rank: int = 0, ranks: int = 1,
        workers: int = 0, start_step: int = 0, pin: bool = False, prefetch: int = PREFETCH_CHUNKS,
        stall_s: float = STALL_S, stop: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """``prefetch`` chunks are under way in each worker; `MachineError` where none arrives for ``stall_s``.

        ``stop`` ends the batches while one is waited for, if this is the only rank: others would wait for it.
        """
        _check_frames(samples, index, transforms)
        self._plan, self._rank, self._ranks, self._start = plan, rank, ranks, start_step
        self._rows = plan.rows_per_rank(ranks)
        self._transforms = transforms
        self._source = _Source(samples, index, transforms, texts, seed)
        self._workers, self._pin = workers, pin and torch.cuda.is_available()
        self._prefetch, self._stall_s = prefetch, stall_s
        self._stop = stop if ranks == 1 else None

    def __iter__(self) -> Iterator[Batch]:
        if self._workers:
            check_room(self._workers, self._prefetch, max(self._chunk_bytes(pair) for pair in self._plan.pairs()))
        before = set(multiprocessing.active_children())
        with _own_child_signals():
            chunks = iter(
                DataLoader(
                    self._source, batch_size=None, sampler=_Orders(self._orders), num_workers=self._workers,
                    prefetch_factor=self._prefetch if self._workers else None, worker_init_fn=_begin_worker,
                    # Of its own: making workers must not move the run's random numbers on.
                    generator=torch.Generator(), multiprocessing_context="fork" if self._workers else None,
                )
            )  # fmt: skip
        # A thread begins on the first device, which may be another rank's.
        device = torch.cuda.current_device() if self._pin else None
        if not self._workers:
            return self._batches(chunks, device)
        watch = _Watch(chunks, set(multiprocessing.active_children()) - before, self._stall_s, self._stop)
        return ahead(self._batches(watch, device), watch.is_to_end)

    def _orders(self) -> Iterator[_Order]:
        for step in range(self._start, self._plan.steps):
            at = self._plan.at(step)
            slots = self._plan.share_of(at.slots, self._rank, self._ranks)
            for rows in self._chunks(at.pair):
                yield _Order(at.pair, at.epoch, slots[rows])

    def _chunks(self, pair: Pair) -> list[slice]:
        size = self._chunk_rows(pair)
        return [slice(start, min(start + size, self._rows)) for start in range(0, self._rows, size)]

    def _chunk_rows(self, pair: Pair) -> int:
        return max(1, min(_CHUNK_ROWS, self._rows, _CHUNK_BYTES // self._row_bytes(pair)))

    def _chunk_bytes(self, pair: Pair) -> int:
        return self._chunk_rows(pair) * self._row_bytes(pair)

    def _row_bytes(self, pair: Pair) -> int:
        return sum(4 * math.prod(self._transforms[side].input_shape) for side in pair if side != "text")

    def _batches(self, chunks: Iterator[_Chunk | VidalError], device: int | None) -> Iterator[Batch]:
        if device is not None:
            torch.cuda.set_device(device)
        for step in range(self._start, self._plan.steps):
            yield self._batch(step, chunks)

    def _batch(self, step: int, chunks: Iterator[_Chunk | VidalError]) -> Batch:
        pair = self._plan.pair_of(step)
        inputs = {
            side: torch.empty(self._rows, *self._transforms[side].input_shape, pin_memory=self._pin)
            for side in pair if side != "text"
        }  # fmt: skip
        whole = _Chunk(inputs, [], [], [], [])
        for rows in self._chunks(pair):
            part = _next(chunks)
            for side, made in part.inputs.items():
                inputs[side][rows] = made
            whole.texts += part.texts
            whole.valid += part.valid
            whole.clip_ids += part.clip_ids
            whole.broken += part.broken
        return Batch(
            step=step, epoch=self._plan.epoch_of(step), pair=pair, inputs=inputs, texts=whole.texts,
            valid=torch.tensor(whole.valid), first=self._plan.first_row(step, self._rank, self._ranks),
            step_rows=self._plan.batch_size, clip_ids=whole.clip_ids, broken=whole.broken,
            group=_groups(whole.texts or [clip_id or "" for clip_id in whole.clip_ids]),
        )  # fmt: skip


class _Watch(Iterator["_Chunk | VidalError"]):
    """The chunks, and whether waiting for them still makes sense: a worker may be alive and yet never hand one over."""

    def __init__(
        self, chunks: Iterator[_Chunk | VidalError], workers: set[multiprocessing.process.BaseProcess], stall_s: float,
        stop: threading.Event | None,
    ) -> None:  # fmt: skip
        self._chunks, self._workers, self._stall_s, self._stop = chunks, workers, stall_s, stop
        self._last_s = time.monotonic()

    def __next__(self) -> _Chunk | VidalError:
        chunk = next(self._chunks)
        self._last_s = time.monotonic()
        return chunk

    def is_to_end(self, since_s: float) -> bool:
        """Asked while a batch is waited for, since the moment given; raises `MachineError` where nothing arrives."""
        if self._stop is not None and self._stop.is_set():
            self._end_workers()
            return True
        # While the trainer is busy nothing is asked for, so that time is no stall.
        if time.monotonic() - max(self._last_s, since_s) > self._stall_s:
            self._end_workers()
            raise MachineError(
                f"no sample came from the {len(self._workers)} loading processes for {self._stall_s:g} s; look at the "
                "storage of the data, or raise data.stall_s where a read takes so long"
            )
        return False

    def _end_workers(self) -> None:
        # A process that is stopped or waits for a disk obeys nothing else.
        for worker in self._workers:
            worker.kill()


class _Orders(Sampler[_Order]):
    def __init__(self, orders: Callable[[], Iterator[_Order]]) -> None:
        self._orders = orders

    def __iter__(self) -> Iterator[_Order]:
        return self._orders()


class _Source(Dataset[_Chunk | VidalError]):
    """What a worker process has: data sets, and how to make rows of them."""

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], transforms: Mapping[str, Transform],
        texts: TextViews, seed: int,
    ) -> None:  # fmt: skip
        self._samples, self._index = samples, index
        self._transforms, self._texts, self._seed = transforms, texts, seed

    def __getitem__(self, order: _Order) -> _Chunk | VidalError:
        try:
            chunk = self._chunk(order)
            if get_worker_info() is not None:
                share(chunk.inputs.values())
            return chunk
        except VidalError as error:
            # As a value: raised, it would come out as many lines of traceback.
            return error

    def _chunk(self, order: _Order) -> _Chunk:
        chunk = _Chunk({}, [], [], [], [])
        rows: dict[str, list[Tensor | None]] = {side: [] for side in order.pair if side != "text"}
        for data_set, place in order.slots:
            made, text = self._row(order.pair, order.epoch, int(data_set), int(place), chunk)
            for side, column in rows.items():
                column.append(made.get(side))
            if "text" in order.pair:
                chunk.texts.append(text)
        chunk.inputs = {side: _stacked(column, self._transforms[side]) for side, column in rows.items()}
        return chunk

    def _row(self, pair: Pair, epoch: int, data_set: int, place: int, chunk: _Chunk) -> tuple[dict[str, Tensor], str]:
        """A row's inputs and text; nothing where there is no sample, or a broken one."""
        if data_set < 0:
            chunk.valid.append(False)
            chunk.clip_ids.append(None)
            return {}, ""
        samples = self._samples[data_set]
        i = int(self._index[pair][data_set][place])
        chunk.clip_ids.append(clip_id := samples.clip_id(i))
        rng = generator(self._seed, "sample", "-".join(pair), epoch, data_set, i)
        text, frame = "", None
        try:
            if "text" in pair:
                text, frame = self._text(samples, i, rng)
            inputs = {s: load_input(samples, i, s, self._transforms[s], rng, frame) for s in pair if s != "text"}
        except ClipError as error:
            chunk.valid.append(False)
            chunk.broken.append(Broken(clip_id=clip_id, data_set=samples.address, why=str(error)))
            return {}, ""
        chunk.valid.append(True)
        return inputs, text

    def _text(self, samples: Samples, i: int, rng: np.random.Generator) -> tuple[str, int | None]:
        try:
            choice = self._texts.choose(samples.part(i, COLUMNS), rng)
        except LookupError as error:
            raise ClipError("no_text", str(error)) from None
        return choice.text, choice.frame


def load_input(
    samples: Samples, i: int, modality: str, transform: Transform, rng: np.random.Generator | None,
    frame: int | None = None,
) -> Tensor:  # fmt: skip
    """One sample's input of one modality: only what is wanted of it is read. Raises `ClipError`."""
    kind = modalities.get(modality)
    wanted = _wanted(kind.members(samples.suffixes(i, modality)), transform, rng, frame)
    # A checksum costs a fifteenth of decoding a JPEG, and nothing else shows a hole in one.
    verify = not all(suffix.endswith(SELF_CHECKED) for suffix in wanted)
    return transform(kind.decode(samples.read(i, modality, wanted, verify=verify)), rng)


def _wanted(
    stored: Mapping[int, str], transform: Transform, rng: np.random.Generator | None, frame: int | None
) -> list[str]:
    if not stored:
        return []
    numbers = list(stored)
    place = numbers.index(frame) if frame is not None and frame in stored else None
    return [stored[numbers[k]] for k in transform.frames_to_read(len(stored), rng, place)]


def _check_frames(
    samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], transforms: Mapping[str, Transform]
) -> None:
    """Refuse more frames than the clips store, by a few of them: it would make every row a broken one."""
    for pair, parts in index.items():
        for side in pair:
            transform = transforms.get(side)
            if transform is None:
                continue
            seen = [(s, int(i)) for s, part in zip(samples, parts, strict=True) for i in part[:_LOOKED_AT]]
            stored = max((len(modalities.get(side).members(s.suffixes(i, side))) for s, i in seen), default=0)
            try:
                if stored:
                    transform.frames_to_read(stored, None)
            except ClipError as error:
                raise RecipeError(f"{side}: {error.detail}") from None


def _stacked(rows: Sequence[Tensor | None], transform: Transform) -> Tensor:
    nothing = torch.zeros(transform.input_shape)
    return torch.stack([nothing if row is None else row for row in rows])


def _next(chunks: Iterator[_Chunk | VidalError]) -> _Chunk:
    try:
        chunk = next(chunks)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        line = " ".join(str(error).split())[:200]
        raise MachineError(
            f"a loading process died ({line}); is memory short, or shared memory (--shm-size)? lower data.workers"
        ) from error
    if isinstance(chunk, VidalError):
        raise chunk
    return chunk


def _groups(keys: Sequence[str]) -> Tensor:
    """A number for each key that is the same on every rank."""
    numbers = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True) for key in keys]
    return torch.tensor(numbers, dtype=torch.int64)


def _begin_worker(worker: int) -> None:
    # Ctrl-C goes to the whole group of processes, and it is the run that decides what is to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@contextmanager
def _own_child_signals() -> Iterator[None]:
    """Keep `DataLoader` from raising a worker's death wherever the main thread is: waiting for a chunk tells too.

    The handler of an earlier `DataLoader` of this process goes, too: it asks after every loader's workers. That loader
    then learns of a death as this one does, where it waits.
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
