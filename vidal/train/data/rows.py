"""Rows of a batch, read and decoded in the worker processes of a `Loader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from vidal import modality as modalities
from vidal.errors import ClipError, RecipeError, VidalError
from vidal.modality.modality import SELF_CHECKED, Transform
from vidal.reader.samples import Samples
from vidal.train.data.plan import Pair, Slots, generator
from vidal.train.data.shared_memory import share
from vidal.train.data.text_views import COLUMNS, TextViews

_PROBED_CLIPS = 8

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A sample that could not be read, with the reason."""

    clip_id: str
    dataset: str
    """Path or address of its dataset."""
    why: str


@dataclass(slots=True)
class Chunk:
    """Consecutive rows of a batch; ``inputs`` has a tensor (rows, …) for each side of the pair that is not text."""

    inputs: dict[str, Tensor]
    texts: list[str]
    valid: list[bool]
    clip_ids: list[str | None]
    broken: list[Broken]


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """The rows that a worker is asked for: some of the slots of a rank's share of a step."""

    pair: Pair
    epoch: int
    slots: Slots


class ChunkDataset(Dataset[Chunk | VidalError]):
    """Maps each `ChunkRequest` to its `Chunk`; each worker process holds a copy."""

    def __init__(
        self, samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], transforms: Mapping[str, Transform],
        texts: TextViews, seed: int,
    ) -> None:  # fmt: skip
        self._samples, self._index = samples, index
        self._transforms, self._texts, self._seed = transforms, texts, seed

    def __getitem__(self, request: ChunkRequest) -> Chunk | VidalError:
        try:
            chunk = self._chunk(request)
            if get_worker_info() is not None:
                share(chunk.inputs.values())
            return chunk
        except VidalError as error:
            # Returned, not raised: DataLoader would raise it in the main process with the worker's traceback as text.
            return error

    def _chunk(self, request: ChunkRequest) -> Chunk:
        pair, transforms = request.pair, {side: self._transforms[side] for side in request.pair if side != "text"}
        zeros = {side: torch.zeros(len(request.slots), *t.input_shape) for side, t in transforms.items()}
        chunk = Chunk(zeros, texts=[], valid=[], clip_ids=[], broken=[])
        for row, (dataset, place) in enumerate(request.slots.tolist()):
            inputs: dict[str, Tensor] = {}
            text, frame, clip_id = "", None, None
            if dataset >= 0:
                samples, i = self._samples[dataset], int(self._index[pair][dataset][place])
                clip_id = samples.clip_id(i)
                rng = sample_generator(self._seed, pair, request.epoch, dataset, i)
                try:
                    if "text" in pair:
                        choice = self._texts.choose(samples.part(i, COLUMNS), rng)
                        text, frame = choice.text, choice.frame
                    inputs = {s: load_input(samples, i, s, t, rng, frame) for s, t in transforms.items()}
                except ClipError as error:
                    text = ""
                    chunk.broken.append(Broken(clip_id=clip_id, dataset=samples.address, why=str(error)))
            # Only when all sides are read: a row is whole or zero.
            for side, pixel_values in inputs.items():
                chunk.inputs[side][row] = pixel_values
            chunk.valid.append(bool(inputs))
            chunk.clip_ids.append(clip_id)
            if "text" in pair:
                chunk.texts.append(text)
        return chunk


def sample_generator(seed: int, pair: Pair, epoch: int, dataset: int, i: int) -> np.random.Generator:
    """Return the random generator of a sample in an epoch of a pair; its text, if it has one, is drawn first."""
    return generator(seed, "sample", "-".join(pair), epoch, dataset, i)


def load_input(
    samples: Samples, i: int, modality: str, transform: Transform, rng: np.random.Generator | None,
    frame: int | None = None,
) -> Tensor:  # fmt: skip
    """Read, decode and transform one modality of sample ``i``; reads only the members that the transform needs.

    Returns a tensor of the transform's ``input_shape``. ``frame`` is the number of the frame that the row's text
    describes; without ``rng`` the transform is deterministic. Raises `ClipError` if the sample cannot be decoded.
    """
    kind = modalities.get(modality)
    stored = kind.members(samples.suffixes(i, modality))
    suffixes: list[str] = []
    if stored:
        numbers = list(stored)
        place = numbers.index(frame) if frame is not None and frame in stored else None
        suffixes = [stored[numbers[k]] for k in transform.frames_to_read(len(stored), rng, place)]
    # A checksum costs a fifteenth of decoding a JPEG, but nothing else reveals a zeroed block inside one.
    verify = not all(suffix.endswith(SELF_CHECKED) for suffix in suffixes)
    return transform(kind.decode(samples.read(i, modality, suffixes, verify=verify)), rng)


def check_frames(
    samples: Sequence[Samples], index: Mapping[Pair, Sequence[Indices]], transforms: Mapping[str, Transform]
) -> None:
    """Raise `RecipeError` if a transform needs more frames than clips store, which would make every row broken.

    Looks at the first few clips of each dataset.
    """
    for pair, parts in index.items():
        for side in pair:
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
