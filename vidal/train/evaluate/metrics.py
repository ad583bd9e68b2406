"""Retrieval and classification figures, with ties counted fairly.

The rank of a right item is 1, plus the wrong items that score higher, plus half of those that score the same: a model
that gives everything one embedding ranks every item in the middle, not first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_CHUNK_ROWS = 1024
_RESAMPLES = 1000
_AT = (1, 5, 10)


def normalised(embeddings: Floats) -> Floats:
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12), np.float32)


def ranks(queries: Floats, gallery: Floats, right: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """(q,) the rank of each query's best right item among the wrong ones, by cosine; ``right`` are gallery numbers."""
    queries, gallery = normalised(queries), normalised(gallery)
    found = np.empty(len(queries))
    for start in range(0, len(queries), _CHUNK_ROWS):
        scores = queries[start : start + _CHUNK_ROWS] @ gallery.T
        for row, line in enumerate(scores, start):
            mine = list(right[row])
            best = line[mine].max()
            wrong = np.delete(line, mine)
            found[row] = 1 + (wrong > best).sum() + (wrong == best).sum() / 2
    return found


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
    drawn = np.random.default_rng(seed).integers(len(counts), size=(_RESAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
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
