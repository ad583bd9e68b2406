"""The training data of a run: datasets, opened, checked, and divided into the samples of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import vidal
from vidal.dataset.removals import Removals
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.data.rows import Indices
from vidal.train.data.split import held_out
from vidal.train.data.text_views import COLUMNS, TextViews
from vidal.train.recipe import Pair

_NO_REMOVALS = Removals()


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The datasets, and the samples that each pair trains on."""

    samples: list[Samples]
    """One per dataset."""
    index: dict[Pair, list[Indices]]
    """By pair, the indices of the samples that have both sides and are not held out, one array per dataset."""
    skipped: int
    """Samples in damaged shards."""
    training: list[npt.NDArray[np.bool_]]
    """(n,) for each dataset, True for the samples that are trained on; the others are held out."""

    @property
    def held(self) -> int:
        """Number of held-out samples."""
        return sum(int((~mask).sum()) for mask in self.training)

    def split(self) -> dict[str, bool]:
        """Return whether each clip, by id, is held out."""
        return {
            samples.clip_id(i): not trained
            for samples, mask in zip(self.samples, self.training, strict=True)
            for i, trained in enumerate(mask.tolist())
        }

    def identity(self) -> list[dict[str, Any]]:
        """Return what must be the same when a run is resumed: the samples of each dataset, and their order."""
        return [{"address": s.address, "fingerprint": s.fingerprint, "samples": len(s)} for s in self.samples]


def gather(
    addresses: Sequence[str], pairs: Sequence[Pair], views: TextViews, *,
    where: str | None, heldout: float, skip_damaged: bool, cache_bytes: int, removals: Removals = _NO_REMOVALS,
) -> Material:  # fmt: skip
    """Open the datasets; raises `SourceError` for a damaged shard, a missing layer, or a pair without samples.

    Only the layers of the pairs need to exist and be intact. ``heldout`` is the share of near-duplicate clusters to
    hold out; ``skip_damaged`` drops the samples of damaged shards instead of raising.
    """
    opened, skipped = [], 0
    layers = {side for pair in pairs for side in pair}
    for address in addresses:
        samples = vidal.open(address, where=where, cache_bytes=cache_bytes, removals=removals)
        damaged = samples.damaged(layers)
        if damaged and not skip_damaged:
            more = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise SourceError(
                f"{address}: {damaged[0]}{more}; rebuild it with `vidal build`, or train with --skip-damaged"
            )
        opened.append(samples.without(damaged) if damaged else samples)
        skipped += len(samples) - len(opened[-1])
    training: list[npt.NDArray[np.bool_]] = []
    index: dict[Pair, list[Indices]] = {pair: [] for pair in pairs}
    for samples in opened:
        # Whole near-duplicate clusters, the same in any dataset; a clip of no cluster is one by itself.
        clusters = [cluster or samples.clip_id(i) for i, cluster in enumerate(samples.column("cluster").to_pylist())]
        training.append(~held_out(clusters, heldout))
        for pair, parts in index.items():
            sides = [views.has_text(samples.rows(COLUMNS)) if side == "text" else samples.has(side) for side in pair]
            parts.append(np.flatnonzero(sides[0] & sides[1] & training[-1]))
    for pair, parts in index.items():
        if not any(len(part) for part in parts):
            raise SourceError(_why_empty(opened, pair, where, heldout))
    return Material(samples=opened, index=index, skipped=skipped, training=training)


def _why_empty(opened: Sequence[Samples], pair: Pair, where: str | None, heldout: float) -> str:
    layers = sorted({layer for samples in opened for layer in samples.layers})
    missing = next((side for side in pair if side != "text" and side not in layers), None)
    name = "-".join(pair)
    if missing:
        return f"pair {name}: no dataset has a layer `{missing}` (layers: {', '.join(layers)})"
    count = sum(len(samples) for samples in opened)
    condition = " that match --where" if where else ""
    return f"pair {name}: none of {count} samples{condition} has both sides outside the held-out {heldout:.0%}"
