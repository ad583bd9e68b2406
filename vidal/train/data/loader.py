"""`Loader`: the batches of a run, decoded in worker processes.

What is in a batch is the plan's to say; what a sample draws (its text, its frame, its crops) depends on the seed, the
epoch and the sample alone. So the batches are the same for any number of workers, and together the same for any number
of ranks. A sample that cannot be read is an invalid row that is named, never another sample.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vidal.dataset.samples import Samples
from vidal.errors import ClipError, MachineError
from vidal.train.data.decode import decode, frames_of, sound_of
from vidal.train.data.plan import Pair, Plan, generator
from vidal.train.data.text_views import COLUMNS, TextViews
from vidal.train.data.transforms import AudioTransform, Transform

_CHUNK_ROWS = 16
_PREFETCH_CHUNKS = 4

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
    """What a worker is asked for: rows ``start`` to ``stop`` of a rank's part of a step."""

    step: int
    start: int
    stop: int


class Loader:
    """Iterating gives the `Batch` of each step from ``start_step`` on."""

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], plan: Plan,
        transforms: Mapping[str, Transform], texts: TextViews, *, seed: int, rank: int = 0, ranks: int = 1,
        workers: int = 0, start_step: int = 0, pin: bool = False,
    ) -> None:  # fmt: skip
        self._plan, self._ranks, self._start = plan, ranks, start_step
        self._rows = plan.rows_per_rank(ranks)
        self._source = _Source(samples, index, plan, transforms, texts, seed, rank, ranks)
        self._workers, self._pin = workers, pin

    def __iter__(self) -> Iterator[Batch]:
        chunks = iter(
            DataLoader(
                self._source, batch_size=None, sampler=_Orders(self._start, self._plan.steps, self._rows),
                num_workers=self._workers, pin_memory=self._pin and torch.cuda.is_available(),
                prefetch_factor=_PREFETCH_CHUNKS if self._workers else None, worker_init_fn=_one_thread,
            )
        )  # fmt: skip
        for step in range(self._start, self._plan.steps):
            parts = []
            for _ in range(0, self._rows, _CHUNK_ROWS):
                try:
                    parts.append(next(chunks))
                except RuntimeError as error:
                    if "DataLoader worker" not in str(error):
                        raise
                    line = " ".join(str(error).split())[:200]
                    raise MachineError(
                        f"a loading process died ({line}); is memory short? lower data.workers"
                    ) from error
            yield _joined(step, self._plan, parts)


class _Orders(Sampler[_Order]):
    def __init__(self, start: int, steps: int, rows: int) -> None:
        self._start, self._steps, self._rows = start, steps, rows

    def __iter__(self) -> Iterator[_Order]:
        for step in range(self._start, self._steps):
            for start in range(0, self._rows, _CHUNK_ROWS):
                yield _Order(step, start, min(start + _CHUNK_ROWS, self._rows))


class _Source(Dataset[_Chunk]):
    """What a worker process has: data sets, and how to make rows of them."""

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], plan: Plan,
        transforms: Mapping[str, Transform], texts: TextViews, seed: int, rank: int, ranks: int,
    ) -> None:  # fmt: skip
        self._samples, self._index, self._plan = samples, index, plan
        self._transforms, self._texts = transforms, texts
        self._seed, self._rank, self._ranks = seed, rank, ranks

    def __getitem__(self, order: _Order) -> _Chunk:
        at = self._plan.at(order.step)
        slots = self._plan.share(order.step, self._rank, self._ranks)[order.start : order.stop]
        chunk = _Chunk({}, [], [], [], [])
        rows: dict[str, list[Tensor | None]] = {side: [] for side in at.pair if side != "text"}
        for data_set, place in slots:
            made, text = self._row(at.pair, at.epoch, int(data_set), int(place), chunk)
            for side, column in rows.items():
                column.append(made.get(side))
            if "text" in at.pair:
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
                choice = self._texts.choose(samples.part(i, COLUMNS), rng)
                text, frame = choice.text, choice.frame
            inputs = {s: load_input(samples, i, s, self._transforms[s], rng, frame) for s in pair if s != "text"}
        except (ClipError, LookupError) as error:
            chunk.valid.append(False)
            chunk.broken.append(Broken(clip_id=clip_id, data_set=samples.address, why=str(error)))
            return {}, ""
        chunk.valid.append(True)
        return inputs, text


def load_input(
    samples: Samples, i: int, modality: str, transform: Transform, rng: np.random.Generator | None,
    frame: int | None = None,
) -> Tensor:  # fmt: skip
    """One sample's input of one modality: only what is wanted of it is read. Raises `ClipError`."""
    there = samples.suffixes(i, modality)
    if isinstance(transform, AudioTransform):
        wanted = [sound] if (sound := sound_of(there)) else []
    else:
        stored = frames_of(there)
        numbers = transform.frames_to_read(len(stored), rng, frame) if stored else []
        wanted = [stored[k] for k in numbers]
    return transform(decode(modality, samples.read(i, modality, wanted)), rng)


def input_shape(transform: Transform) -> tuple[int, ...]:
    """Of one row."""
    if isinstance(transform, AudioTransform):
        return (3, transform.mel_bins, transform.length)
    time = (transform.frames,) if transform.frames > 1 else ()
    return (3, *time, transform.size, transform.size)


def _stacked(rows: Sequence[Tensor | None], transform: Transform) -> Tensor:
    nothing = torch.zeros(input_shape(transform))
    return torch.stack([nothing if row is None else row for row in rows])


def _joined(step: int, plan: Plan, parts: Sequence[_Chunk]) -> Batch:
    at = plan.at(step)
    texts = [text for part in parts for text in part.texts]
    clip_ids = [clip_id for part in parts for clip_id in part.clip_ids]
    return Batch(
        step=step, epoch=at.epoch, pair=at.pair,
        inputs={side: torch.cat([part.inputs[side] for part in parts]) for side in parts[0].inputs},
        texts=texts, valid=torch.tensor([ok for part in parts for ok in part.valid]),
        group=_groups(texts or [clip_id or "" for clip_id in clip_ids]), clip_ids=clip_ids,
        broken=[broken for part in parts for broken in part.broken],
    )  # fmt: skip


def _groups(keys: Sequence[str]) -> Tensor:
    """A number for each key that is the same on every rank."""
    numbers = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True) for key in keys]
    return torch.tensor(numbers, dtype=torch.int64)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
