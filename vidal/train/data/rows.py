"""Rows of a batch, read and decoded in the worker processes of a `Loader`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidal import modality as modalities
from vidal.errors import ClipError, RecipeError, UserError, VidalError
from vidal.modality.modality import SELF_CHECKED, Prepared, Transform
from vidal.reader.samples import Samples
from vidal.train.data.plan import Sides, Slots, generator, modalities_of, optional_of
from vidal.train.data.slabs import Field, Layout
from vidal.train.data.text_views import Choice, TextViews

_PROBED_CLIPS = 8

Indices = npt.NDArray[np.int64]
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Returns the token ids and the attention mask, (n, tokens) int64, of n texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A sample that could not be read, with the reason."""

    clip_id: str
    dataset: str
    """Path or address of its dataset."""
    why: str


@dataclass(slots=True)
class Chunk:
    """What a worker reports of the rows that it has written into a slab."""

    texts: list[str]
    clip_ids: list[str | None]
    broken: list[Broken]


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """The rows that a worker is asked for: some of the slots of a rank's share of a step."""

    sides: Sides
    epoch: int
    slots: Slots
    slab: int
    """Number of the slab of the step."""
    first: int
    """Index of the first row in the slab."""
    ahead: Sequence[tuple[Sides, Slots]] = ()
    """Rows whose reading may begin: of later requests, and of this one if it is a worker's first."""


def layout(sides: Sides, rows: int, transforms: Mapping[str, Transform], tokens: int | None) -> Layout:
    """Return the layout of a batch; ``tokens`` is the length of a tokenised text, None without tokens.

    For each modality that is not text there are ``MODALITY`` and ``MODALITY.mirrored``, and ``MODALITY.present`` for
    each that a clip may lack.
    """
    fields = dict.fromkeys(("group", "clip_group"), Field(torch.int64, (rows,)))
    fields |= dict.fromkeys(("valid", "broken"), Field(torch.bool, (rows,)))
    fields |= {f"{side}.present": Field(torch.bool, (rows,)) for side in optional_of(sides)}
    for side in modalities_of(sides):
        if side != "text":
            transform = transforms[side]
            fields[side] = Field(getattr(torch, transform.prepared_dtype), (rows, *transform.prepared_shape))
            fields[f"{side}.mirrored"] = Field(torch.bool, (rows,))
        elif tokens is not None:
            fields["input_ids"] = fields["attention_mask"] = Field(torch.int64, (rows, tokens))
    return Layout(fields)


class ChunkDataset(Dataset[Chunk | VidalError]):
    """Writes the rows of each `ChunkRequest` into their slab; each worker process holds a copy."""

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Sides, Sequence[Indices]], transforms: Mapping[str, Transform],
        texts: TextViews, seed: int, tokenize: Tokenize | None, slabs: Sequence[Tensor],
        layouts: Mapping[Sides, Layout],
    ) -> None:  # fmt: skip
        self._samples, self._index = samples, index
        self._transforms, self._texts, self._seed = transforms, texts, seed
        self._tokenize, self._slabs, self._layouts = tokenize, slabs, layouts
        self._columns = ["clip_id", *texts.columns]

    def __getitem__(self, request: ChunkRequest) -> Chunk | VidalError:
        for sides, slots in request.ahead:
            self._start(sides, slots)
        try:
            return self._chunk(request)
        except VidalError as error:
            # Returned, not raised: DataLoader would raise it in the main process with the worker's traceback as text.
            return error

    def stop(self) -> None:
        """Read nothing ahead any more."""
        for samples in self._samples:
            samples.stop()

    def _start(self, sides: Sides, slots: Slots) -> None:
        for dataset, place in slots.tolist():
            for side in modalities_of(sides):
                if dataset >= 0 and side != "text":
                    self._samples[dataset].start(int(self._index[sides][dataset][place]), side)

    def _chunk(self, request: ChunkRequest) -> Chunk:
        rows = slice(request.first, request.first + len(request.slots))
        slab = self._layouts[request.sides].views(self._slabs[request.slab])
        views = {name: view[rows] for name, view in slab.items()}
        # Writing one number takes torch ten times as long as NumPy.
        marks = {name: view.numpy() for name, view in views.items() if view.dtype == torch.bool}
        drawn = [self._draw(request, dataset, place) for dataset, place in request.slots.tolist()]
        for side in modalities_of(request.sides):
            if side != "text":
                self._fill(request, side, drawn, views[side], marks)
        chunk = Chunk(texts=[], clip_ids=[], broken=[])
        for row, each in enumerate(drawn):
            self._close(request, row, each, views, marks, chunk)
        clip_group = _groups([clip_id or "" for clip_id in chunk.clip_ids])
        views["clip_group"].copy_(clip_group)
        # By a text that is but a part of a fused side, two clips are not the same.
        views["group"].copy_(_groups(chunk.texts) if "text" in request.sides else clip_group)
        if "input_ids" in views and self._tokenize is not None:
            ids, mask = self._tokenize(chunk.texts)
            views["input_ids"].copy_(ids)
            views["attention_mask"].copy_(mask)
        return chunk

    def _draw(self, request: ChunkRequest, dataset: int, place: int) -> _Row | None:
        """Draw the text of a row; None for padding, whose ``dataset`` is negative."""
        if dataset < 0:
            return None
        sides, names = request.sides, modalities_of(request.sides)
        samples, i = self._samples[dataset], int(self._index[sides][dataset][place])
        record = samples.part(i, self._columns)
        rng = sample_generator(self._seed, sides, request.epoch, dataset, i)
        row = _Row(samples=samples, i=i, clip_id=str(record["clip_id"]), rng=rng)
        with row.may_break():
            if "text" in sides or ("text" in names and self._texts.every(record)):
                row.choice = self._texts.choose(record, rng)
        return row

    def _fill(
        self, request: ChunkRequest, side: str, rows: Sequence[_Row | None], values: Tensor,
        marks: Mapping[str, npt.NDArray[np.bool_]],
    ) -> None:  # fmt: skip
        """Read one side of all rows, then decode and write it.

        Not row by row: after an image has been decoded, nothing of the interpreter is left in the caches of a core.
        """
        transform, is_optional = self._transforms[side], side in optional_of(request.sides)
        members: list[dict[str, bytes] | None] = [None] * len(rows)
        for k, row in enumerate(rows):
            if row and row.why is None and not (is_optional and not row.samples.suffixes(row.i, side)):
                with row.may_break():
                    members[k] = read_input(row.samples, row.i, side, transform, row.rng, row.frame)
        for k, (row, read) in enumerate(zip(rows, members, strict=True)):
            if row and read is not None:
                with row.may_break():
                    prepared = prepare_input(read, side, transform, row.rng)
                    values[k], marks[f"{side}.mirrored"][k] = prepared.values, prepared.is_mirrored
                    row.written.append(side)

    def _close(
        self, request: ChunkRequest, k: int, row: _Row | None, views: Mapping[str, Tensor],
        marks: Mapping[str, npt.NDArray[np.bool_]], chunk: Chunk,
    ) -> None:  # fmt: skip
        """Mark what a row has, and add it to the chunk."""
        written = row.written if row and row.why is None else []
        text = row.choice.text if row and row.choice and row.why is None else ""
        if row and row.why is not None:
            chunk.broken.append(Broken(clip_id=row.clip_id, dataset=row.samples.address, why=row.why))
        marks["valid"][k], marks["broken"][k] = bool(written), row is not None and not written
        names = modalities_of(request.sides)
        for side in optional_of(request.sides):
            marks[f"{side}.present"][k] = bool(text) if side == "text" else side in written
        for side in names:
            if side != "text" and side not in written:
                # The slab holds the rows of an earlier step: a row is whole or zero.
                views[side][k] = 0
                marks[f"{side}.mirrored"][k] = False
        chunk.clip_ids.append(row.clip_id if row else None)
        if "text" in names:
            chunk.texts.append(text)


@dataclass(slots=True, kw_only=True)
class _Row:
    """A row while it is made; each of its draws is of its own generator, so rows can be made side by side."""

    samples: Samples
    i: int
    clip_id: str
    rng: np.random.Generator
    choice: Choice | None = None
    written: list[str] = field(default_factory=list)
    """The sides that are in the slab."""
    why: str | None = None
    """Why it could not be read."""

    @property
    def frame(self) -> int | None:
        return self.choice.frame if self.choice else None

    @contextmanager
    def may_break(self) -> Iterator[None]:
        try:
            yield
        except ClipError as error:
            self.why = str(error)


def _groups(keys: Sequence[str]) -> Tensor:
    """(n,) int64 from 0 to 2**48, equal for equal keys."""
    # Hashes, not running numbers: equal keys must get equal groups on every rank.
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]
    # 48 bits: two of the 4096 keys of a batch coincide with a probability of 3 in a hundred million.
    return torch.tensor([int.from_bytes(d[:6], "big") for d in digests])


def sample_generator(seed: int, sides: Sides, epoch: int, dataset: int, i: int) -> np.random.Generator:
    """Return the random generator of a sample in an epoch of its sides; its text, if it has one, is drawn first."""
    return generator(seed, "sample", "-".join(sides), epoch, dataset, i)


def load_input(
    samples: Samples, i: int, modality: str, transform: Transform, rng: np.random.Generator | None,
    frame: int | None = None,
) -> Prepared:  # fmt: skip
    """Read, decode and prepare one modality of sample ``i``; reads only the members that the transform needs.

    ``frame`` is the number of the frame that the row's text describes; without ``rng`` the transform is deterministic.
    Raises `ClipError` if the sample cannot be decoded.
    """
    return prepare_input(read_input(samples, i, modality, transform, rng, frame), modality, transform, rng)


def read_input(
    samples: Samples, i: int, modality: str, transform: Transform, rng: np.random.Generator | None,
    frame: int | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """Read the members of one modality of sample ``i`` that the transform needs, as `load_input` does."""
    kind = modalities.get(modality)
    stored = kind.members(samples.suffixes(i, modality))
    suffixes: list[str] = []
    if stored:
        numbers = list(stored)
        place = numbers.index(frame) if frame is not None and frame in stored else None
        suffixes = [stored[numbers[k]] for k in transform.frames_to_read(len(stored), rng, place)]
    # A checksum costs a fifteenth of decoding a JPEG, but nothing else reveals a zeroed block inside one.
    verify = not all(suffix.endswith(SELF_CHECKED) for suffix in suffixes)
    return samples.read(i, modality, suffixes, verify=verify)


def prepare_input(
    members: Mapping[str, bytes], modality: str, transform: Transform, rng: np.random.Generator | None
) -> Prepared:
    """Decode and prepare members that `read_input` has read, with the same ``rng``.

    Raises `ClipError` if the sample cannot be decoded, and `UserError` for a transform that prepares another data type
    than it declares.
    """
    prepared = transform.prepare(modalities.get(modality).decode(members), rng)
    if prepared.values.dtype != getattr(torch, transform.prepared_dtype):
        # A slab has one data type: writing another into it would lose digits without a word.
        raise UserError(
            f"modality {modality}: its transform prepares {prepared.values.dtype}, but declares a prepared_dtype of "
            f"torch.{transform.prepared_dtype}"
        )
    return prepared


def check_frames(
    samples: Sequence[Samples], index: Mapping[Sides, Sequence[Indices]], transforms: Mapping[str, Transform]
) -> None:
    """Raise `RecipeError` if a transform needs more frames than clips store, which would make every row broken.

    Looks at the first few clips of each dataset.
    """
    for sides, parts in index.items():
        for side in modalities_of(sides):
            transform = transforms.get(side)
            if transform is None:
                continue
            probed = [(s, int(i)) for s, part in zip(samples, parts, strict=True) for i in part[:_PROBED_CLIPS]]
            stored = max((len(modalities.get(side).members(s.suffixes(i, side))) for s, i in probed), default=0)
            try:
                if stored:
                    transform.frames_to_read(stored, None)
            except ClipError as error:
                raise RecipeError(f"{side}: {error.detail}") from None
