"""Embeddings of samples, in batches, with the deterministic transforms; what cannot be read is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from vidal.train.data.rows import Broken, load_input
from vidal.train.towers.encoder import Encoder

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Rows (n, d) float32, un-normalised, of the samples ``numbers``; samples that lack the modality have none."""

    numbers: npt.NDArray[np.int64]
    rows: Floats
    broken: list[Broken]


class _Inputs(Dataset[tuple[int, Tensor | None, str]]):
    def __init__(self, samples: Samples, numbers: Sequence[int], modality: str, transform: Transform) -> None:
        self._samples, self._numbers, self._modality, self._transform = samples, numbers, modality, transform

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> tuple[int, Tensor | None, str]:
        number = int(self._numbers[place])
        try:
            return number, load_input(self._samples, number, self._modality, self._transform, None), ""
        except ClipError as error:
            return number, None, str(error)


@torch.no_grad()
def embed_samples(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], modality: str, transform: Transform, *,
    batch_size: int = 32, workers: int = 0,
) -> Embedded:  # fmt: skip
    """Embed one modality of some samples, in their order."""
    device = next(encoder.parameters()).device
    there = samples.has(modality)
    inputs = _Inputs(samples, [n for n in numbers if there[n]], modality, transform)
    batches: Any = DataLoader(
        inputs, batch_size=batch_size, num_workers=workers, collate_fn=list, worker_init_fn=_one_thread
    )
    found: list[int] = []
    rows: list[Floats] = []
    broken: list[Broken] = []
    encoder.eval()
    for batch in batches:
        good = [(number, x) for number, x, _ in batch if x is not None]
        broken += [
            Broken(clip_id=samples.clip_id(number), dataset=samples.address, why=why)
            for number, x, why in batch
            if x is None
        ]
        if good:
            pixels = torch.stack([x for _, x in good]).to(device)
            rows.append(encoder.encode(modality, pixels).float().cpu().numpy())
            found += [number for number, _ in good]
    dim = encoder.tower(modality).settings.projection_dim
    return Embedded(
        numbers=np.asarray(found, np.int64), broken=broken,
        rows=np.concatenate(rows) if rows else np.zeros((0, dim), np.float32),
    )  # fmt: skip


def embed_texts(encoder: Encoder, texts: Sequence[str]) -> Mapping[str, Floats]:
    """Each distinct text with its embedding."""
    distinct = sorted(set(texts))
    rows = encoder.encode_texts(distinct, 32).float().cpu().numpy()
    return dict(zip(distinct, rows, strict=True))


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
