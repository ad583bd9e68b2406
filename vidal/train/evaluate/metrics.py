"""Retrieval and classification figures, with ties counted fairly.

The rank of a right item is 1, plus the wrong items that score higher, plus half of those that score the same: a model
that gives everything one embedding ranks every item in the middle, not first. So does one that gives no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# 1024 queries against 16384 items in float64 are 128 MiB of scores, whatever the size of the gallery.
_QUERIES = 1024
_ITEMS = 16384
_RESAMPLES = 1000
_TIE = 1e-9
"""A matrix product rounds a column by where it stands: in float64, equal embeddings score alike to well within this."""
_NO_NUMBER = -2.0
"""The score of what is not finite: below every cosine, and tied with every other such."""
_AT = (1, 5, 10)


def normalised(embeddings: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12), np.float32)


def ranks(queries: Floats, gallery: Floats, right: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """(q,) the rank of each query's best right item among the wrong ones, by cosine; ``right`` are gallery numbers."""
    queries, gallery = normalised(queries), normalised(gallery)
    parts = [
        _ranks(queries[start : start + _QUERIES], gallery, right[start : start + _QUERIES])
        for start in range(0, len(queries), _QUERIES)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _ranks(queries: Floats, gallery: Floats, right: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    best = np.asarray([
        _scores(query[None], gallery[list(mine)]).max() for query, mine in zip(queries, right, strict=True)
    ])[:, None]  # fmt: skip
    rows = np.repeat(np.arange(len(queries)), [len(mine) for mine in right])
    items = np.concatenate([np.asarray(mine, np.int64) for mine in right])
    found = np.ones(len(queries))
    for start in range(0, len(gallery), _ITEMS):
        scores = _scores(queries, gallery[start : start + _ITEMS])
        here = (items >= start) & (items < start + _ITEMS)
        # Right items are no rivals of each other.
        scores[rows[here], items[here] - start] = -np.inf
        above = scores > best + _TIE
        found += above.sum(axis=1) + ((scores >= best - _TIE) & ~above).sum(axis=1) / 2
    return found


def _scores(queries: Floats, gallery: Floats) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    return np.where(np.isfinite(scores), scores, _NO_NUMBER)


def retrieval_metrics(
    queries: Floats, gallery: Floats, right: Sequence[Sequence[int]], *, clusters: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """R@1/5/10, median, mean and reciprocal rank; ``ci95`` of R@1 by drawing queries (or their ``clusters``) again."""
    found = ranks(queries, gallery, right)
    return {
        **{f"R@{k}": float((found <= k).mean()) for k in _AT},
        "median_rank": float(np.median(found)),
        "mean_rank": float(found.mean()),
        "mrr": float((1 / found).mean()),
        "n": len(found),
        "gallery": len(gallery),
        "chance_R@1": float(np.mean([len(mine) / len(gallery) for mine in right])),
        "ci95_R@1": _interval(found <= 1, clusters, seed),
    }


def _interval(hits: npt.NDArray[np.bool_], clusters: Sequence[int] | None, seed: int) -> list[float]:
    """Bootstrap: captions of one clip are no independent draws, so whole clips are drawn."""
    _, owner = np.unique(np.arange(len(hits)) if clusters is None else np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(owner, hits.astype(float)), np.bincount(owner)
    generator, means = np.random.default_rng(seed), []
    # One draw at a time: all of them at once would be gigabytes for a large set.
    for _ in range(_RESAMPLES):
        drawn = generator.integers(len(counts), size=len(counts))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return [float(x) for x in np.quantile(means, [0.025, 0.975])]


def classification_metrics(embeddings: Floats, classes: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Top-1, top-5 and the mean over classes, by cosine with each class's embedding."""
    found = ranks(embeddings, classes, [[int(label)] for label in labels])
    per_class = [float((found[labels == c] <= 1).mean()) for c in np.unique(labels)]
    return {
        "top1": float((found <= 1).mean()), "top5": float((found <= 5).mean()),
        "mean_per_class": float(np.mean(per_class)), "n": len(labels), "classes": len(classes),
        "chance_top1": 1 / len(classes),
    }  # fmt: skip
