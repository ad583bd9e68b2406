"""Embeddings of samples and texts, computed in batches with the deterministic transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidal.errors import ClipError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken, Indices, load_input
from vidal.train.evaluate.metrics import Floats
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The embeddings of one modality of the samples that have it."""

    numbers: Indices
    """(n,) indices of the samples."""
    rows: Floats
    """(n, d) embeddings, not normalised."""
    broken: list[Broken]
    """Samples that have the modality but could not be read."""


class _Inputs(Dataset[tuple[int, Tensor | None, str]]):
    """The number of each sample, and what a worker prepares of it, or why it cannot."""

    def __init__(self, samples: Samples, numbers: Sequence[int], modality: str, transform: Transform) -> None:
        self._samples, self._numbers, self._modality, self._transform = samples, numbers, modality, transform

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> tuple[int, Tensor | None, str]:
        number = int(self._numbers[place])
        try:
            return number, load_input(self._samples, number, self._modality, self._transform, None).values, ""
        except ClipError as error:
            return number, None, str(error)


@torch.no_grad()
def embed_samples(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], modality: str, transform: Transform, *,
    batch_size: int = 32, workers: int = 0,
) -> Embedded:  # fmt: skip
    """Embed one modality of the samples ``numbers``, in that order, skipping those that lack it."""
    device = next(encoder.parameters()).device
    has_modality = samples.has(modality)
    inputs = _Inputs(samples, [n for n in numbers if has_modality[n]], modality, transform)
    # As lists: the batch of a broken sample has one tensor less.
    batches: Any = DataLoader(
        inputs, batch_size=batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread
    )
    embedded: list[int] = []
    rows = [np.zeros((0, encoder.tower(modality).settings.projection_dim), np.float32)]
    broken: list[Broken] = []
    encoder.eval()
    for batch in batches:
        for number, x, why in batch:
            if x is None:
                broken.append(Broken(clip_id=samples.clip_id(number), dataset=samples.address, why=why))
            else:
                embedded.append(number)
        if readable := [x for _, x, _ in batch if x is not None]:
            inputs_of_batch = transform.finish(torch.stack(readable).to(device), None)
            rows.append(encoder.encode(modality, inputs_of_batch).float().cpu().numpy())
    return Embedded(numbers=np.asarray(embedded, np.int64), rows=np.concatenate(rows), broken=broken)


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Mapping[str, Floats]:
    """Return the embedding (d,), not normalised, of each distinct text."""
    distinct = sorted(set(texts))
    rows = encoder.encode_texts(distinct, 32).float().cpu().numpy()
    return dict(zip(distinct, rows, strict=True))


def _one_thread(worker: int) -> None:
    # Torch is limited to one thread by its DataLoader, OpenCV is not.
    cv2.setNumThreads(1)
