"""The training data of a run: datasets, opened, checked, and divided into the samples of each kind of step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import vidal
from vidal.dataset.removals import Removals
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.data.plan import Sides, label, modalities_of, optional_of
from vidal.train.data.rows import Indices
from vidal.train.data.text_views import TextViews

_NO_REMOVALS = Removals()
_HASHES = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The datasets, and the samples that the steps train on."""

    samples: list[Samples]
    """One per dataset."""
    index: dict[Sides, list[Indices]]
    """By the sides of a step, the indices of the samples that have all of them, and of a fused one any part, and are
    not held out, one array per dataset."""
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
    addresses: Sequence[str], sides: Sequence[Sides], views: TextViews, *,
    where: str | None, heldout: float, skip_damaged: bool, cache_bytes: int, removals: Removals = _NO_REMOVALS,
) -> Material:  # fmt: skip
    """Open the datasets; raises `SourceError` for a damaged shard, a missing layer, or sides without samples.

    ``sides`` are those of each kind of step; only their layers need to exist and be intact. ``heldout`` is the share of
    near-duplicate clusters to hold out; ``skip_damaged`` drops the samples of damaged shards instead of raising.
    """
    opened, skipped = [], 0
    layers = {modality for group in sides for modality in modalities_of(group)}
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
    index: dict[Sides, list[Indices]] = {group: [] for group in sides}
    for samples in opened:
        training.append(~held_out(clusters_of(samples), heldout))
        for group, parts in index.items():
            has = {
                name: views.has_text(samples.rows(views.columns)) if name == "text" else samples.has(name)
                for name in modalities_of(group)
            }
            either = [np.logical_or.reduce([has[name] for name in side.split("+")]) for side in group]
            parts.append(np.flatnonzero(np.logical_and.reduce([*either, training[-1]])))
    for group, parts in index.items():
        for name in {*optional_of(group)} - {"text"}:
            if not any(name in samples.layers for samples in opened):
                raise SourceError(_why_empty(opened, group, where, heldout))
        if not any(len(part) for part in parts):
            raise SourceError(_why_empty(opened, group, where, heldout))
    return Material(samples=opened, index=index, skipped=skipped, training=training)


def clusters_of(samples: Samples) -> list[str]:
    """Return the near-duplicate cluster of each of the n clips; a clip of none is one by itself."""
    return [cluster or samples.clip_id(i) for i, cluster in enumerate(samples.column("cluster").to_pylist())]


def held_out(clusters: Sequence[str], share: float) -> npt.NDArray[np.bool_]:
    """Return (n,) bool, True for the clips to hold out; ``clusters`` are the cluster ids of the n clips.

    A cluster is held out if its hash is in the lowest ``share`` (0 … 1) of all hashes, which does not depend on the
    dataset or its order.
    """
    limit = int(share * _HASHES)
    # The prefix is part of every split that was made: another one would hold out other clusters.
    digests = (hashlib.sha256(f"vidal\0{cluster}".encode()).digest() for cluster in clusters)
    return np.fromiter((int.from_bytes(digest[:8], "big") < limit for digest in digests), np.bool_, len(clusters))


def _why_empty(opened: Sequence[Samples], sides: Sides, where: str | None, heldout: float) -> str:
    layers = sorted({layer for samples in opened for layer in samples.layers})
    missing = next((side for side in modalities_of(sides) if side != "text" and side not in layers), None)
    if missing:
        return f"{label(sides)}: no dataset has a layer `{missing}` (layers: {', '.join(layers)})"
    count = sum(len(samples) for samples in opened)
    condition = " that match --where" if where else ""
    both, mend = (
        ("both sides", "") if len(sides) == 2 else ("all of them", "; pairs_per_step: one needs only two of them")
    )
    return f"{label(sides)}: none of {count} samples{condition} has {both} outside the held-out {heldout:.0%}{mend}"
