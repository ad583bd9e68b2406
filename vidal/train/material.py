"""What a run learns from: data sets, opened, checked and split into the samples of each pair."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import vidal
from vidal.dataset.removals import Removals
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.data.split import held_out
from vidal.train.data.text_views import COLUMNS, TextViews
from vidal.train.recipe import Pair

Indices = npt.NDArray[np.int64]

_NO_REMOVALS = Removals()
_SALT = "vidal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Data sets and, of each, the numbers of the samples that a pair trains on."""

    samples: list[Samples]
    index: dict[Pair, list[Indices]]
    skipped: int
    """Samples that lie in damaged shards."""
    training: list[npt.NDArray[np.bool_]]
    """Of each data set, which samples are trained on; the others are held out."""

    @property
    def held(self) -> int:
        """Samples kept from training."""
        return sum(int((~mask).sum()) for mask in self.training)

    def split(self) -> dict[str, bool]:
        """By clip, whether it is held out."""
        return {
            samples.clip_id(i): not trained
            for samples, mask in zip(self.samples, self.training, strict=True)
            for i, trained in enumerate(mask.tolist())
        }

    def identity(self) -> list[dict[str, Any]]:
        """What a continuation must find again: the same samples in the same order."""
        return [{"address": s.address, "fingerprint": s.fingerprint, "samples": len(s)} for s in self.samples]


def gather(
    addresses: Sequence[str], pairs: Sequence[Pair], views: TextViews, *,
    where: str | None, heldout: float, skip_damaged: bool, cache_bytes: int, removals: Removals = _NO_REMOVALS,
) -> Material:  # fmt: skip
    """Open the data sets; raises `SourceError` for a damaged shard, an absent layer or too little data.

    Only the layers that a pair reads need be there and whole.
    """
    opened, skipped = [], 0
    layers = {side for pair in pairs for side in pair}
    for address in addresses:
        samples = vidal.open(address, where=where, cache_bytes=cache_bytes, removals=removals)
        sound = _sound(samples, address, layers, skip_damaged=skip_damaged)
        skipped += len(samples) - len(sound)
        opened.append(sound)
    training = [~held_out_mask(samples, heldout) for samples in opened]
    index = {pair: [_members(s, pair, views, mask) for s, mask in zip(opened, training, strict=True)] for pair in pairs}
    for pair, parts in index.items():
        if not any(len(part) for part in parts):
            raise SourceError(_why_empty(opened, pair, where, heldout))
    return Material(samples=opened, index=index, skipped=skipped, training=training)


def held_out_mask(samples: Samples, share: float) -> npt.NDArray[np.bool_]:
    """Which samples are kept from training: whole near-duplicate clusters, whatever data set they are in."""
    clusters = samples.column("cluster").to_pylist()
    keys = [cluster or samples.clip_id(i) for i, cluster in enumerate(clusters)]
    return held_out(keys, share, _SALT)


def of_pair(samples: Samples, pair: Pair, views: TextViews) -> npt.NDArray[np.bool_]:
    """Which samples have both sides of a pair."""
    sides = [views.has_text(samples.rows(COLUMNS)) if side == "text" else samples.has(side) for side in pair]
    return sides[0] & sides[1]


def _members(samples: Samples, pair: Pair, views: TextViews, training: npt.NDArray[np.bool_]) -> Indices:
    return np.flatnonzero(of_pair(samples, pair, views) & training).astype(np.int64)


def _sound(samples: Samples, address: str, layers: Collection[str], *, skip_damaged: bool) -> Samples:
    damaged = samples.damaged(layers)
    if not damaged:
        return samples
    if not skip_damaged:
        more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        raise SourceError(f"{address}: {damaged[0]}{more}; rebuild it with `vidal build`, or train with --skip-damaged")
    return samples.without(damaged)


def _why_empty(opened: Sequence[Samples], pair: Pair, where: str | None, heldout: float) -> str:
    layers = sorted({layer for samples in opened for layer in samples.layers})
    absent = next((side for side in pair if side != "text" and side not in layers), None)
    name = "-".join(pair)
    if absent:
        return f"pair {name}: no data set has a layer `{absent}` (there is {', '.join(layers)})"
    kept = sum(len(samples) for samples in opened)
    said = " that meet --where" if where else ""
    return f"pair {name}: none of {kept} samples{said} has both sides outside the held-out {heldout:.0%}"
