"""Embeddings of samples and texts, computed in batches with the deterministic transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidal.errors import ClipError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken, Indices, load_input
from vidal.train.evaluate.metrics import Floats
from vidal.train.towers.encoder import Encoder

EncodeTexts = Callable[[Sequence[str]], Tensor]
"""Returns the embeddings (n, d) of n texts, each independent of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The embeddings of one modality of the samples that have it."""

    numbers: Indices
    """(n,) indices of the samples."""
    rows: list[Floats]
    """(n, d) embeddings, not normalised, of each encoder."""
    broken: list[Broken]
    """Samples that have the modality but could not be read."""


class _Inputs(Dataset[tuple[int, npt.NDArray[Any] | None, str]]):
    """The number of each sample, and what a worker prepares of it, or why it cannot.

    As arrays, which go through a pipe: tensors would lie in ``/dev/shm``, of which a container has 64 MB.
    """

    def __init__(self, samples: Samples, numbers: Sequence[int], modality: str, transform: Transform) -> None:
        self._samples, self._numbers, self._modality, self._transform = samples, numbers, modality, transform

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> tuple[int, npt.NDArray[Any] | None, str]:
        number = int(self._numbers[place])
        try:
            prepared = load_input(self._samples, number, self._modality, self._transform, None)
            return number, prepared.values.numpy(), ""
        except ClipError as error:
            return number, None, str(error)


@torch.no_grad()
def embed_samples(
    encoders: Sequence[Encoder], samples: Samples, numbers: Sequence[int], modality: str, transform: Transform, *,
    batch_size: int = 32, workers: int = 0, is_bf16: bool = False, rank: int = 0, ranks: int = 1,
) -> Embedded:  # fmt: skip
    """Embed one modality of the samples ``numbers``, in that order, skipping those that lack it.

    A sample is decoded once for all encoders. ``is_bf16`` computes under bfloat16 autocast. Of several ``ranks`` each
    embeds every so manieth batch, so that the batches, and the embeddings, do not depend on their number.
    """
    device = next(encoders[0].parameters()).device
    has_modality = samples.has(modality)
    all_numbers = [n for n in numbers if has_modality[n]]
    batch_numbers = [all_numbers[first : first + batch_size] for first in range(0, len(all_numbers), batch_size)]
    own = batch_numbers[rank::ranks]
    inputs = _Inputs(samples, [n for batch in own for n in batch], modality, transform)
    # As lists: the batch of a broken sample has one array less.
    batches: Any = DataLoader(
        inputs, batch_size=batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread
    )
    embedded: list[int] = []
    rows = [[np.zeros((0, e.tower(modality).settings.projection_dim), np.float32)] for e in encoders]
    broken: list[Broken] = []
    passes = 0
    for encoder in encoders:
        encoder.eval()

    def encode(values: Tensor) -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
            for of_encoder, encoder in zip(rows, encoders, strict=True):
                of_encoder.append(encoder.encode(modality, values).float().cpu().numpy())

    for batch in batches:
        for number, x, why in batch:
            if x is None:
                broken.append(Broken(clip_id=samples.clip_id(number), dataset=samples.address, why=why))
            else:
                embedded.append(number)
        if readable := [x for _, x, _ in batch if x is not None]:
            encode(transform.finish(torch.from_numpy(np.stack(readable)).to(device), None))
            passes += 1
    found = [np.concatenate(parts) for parts in rows]
    for _ in range(passes, -(-len(batch_numbers) // ranks) if ranks > 1 else 0):
        # A pass of a sharded tower is a collective: a rank whose batches are fewer, or broken, takes part in it.
        encode(torch.zeros(1, *transform.input_shape, device=device))
    return Embedded(numbers=np.asarray(embedded, np.int64), rows=found, broken=broken)


def embed_texts(encode: EncodeTexts, texts: Sequence[str]) -> Mapping[str, Floats]:
    """Return the embedding (d,), not normalised, of each distinct text."""
    distinct = sorted(set(texts))
    rows = encode(distinct).float().cpu().numpy()
    return dict(zip(distinct, rows, strict=True))


def _one_thread(worker: int) -> None:
    # Torch is limited to one thread by its DataLoader, OpenCV is not.
    cv2.setNumThreads(1)
