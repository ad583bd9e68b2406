"""Retrieval and classification metrics, with ties resolved to the mean rank.

The rank of a correct item is 1, plus the number of incorrect items that score higher, plus half of those that score
the same. A model whose embeddings are all equal, or not finite, thus ranks every item in the middle, not first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Blocks of 1024 queries by 16384 items bound the float64 scores to 128 MiB, for a gallery of any size.
_QUERIES = 1024
_ITEMS = 16384
_RESAMPLES = 1000
_TIE = 1e-9
"""Scores within this count as equal: a matrix product may round equal embeddings differently in different columns."""
_NOT_FINITE = -2.0
"""The score of a similarity that is not finite: below every cosine, and tied with all others of its kind."""
_AT = (1, 5, 10)


def normalised(embeddings: Floats) -> Floats:
    """Return the rows (n, d) divided by their L2 norms; rows of zeros stay zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12), np.float32)


def ranks(queries: Floats, gallery: Floats, correct: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Return (q,) the rank of each query's best correct item among the incorrect ones, by cosine similarity.

    ``queries`` is (q, d), ``gallery`` (g, d), and ``correct`` lists the gallery indices of each query's correct items.
    """
    queries, gallery = normalised(queries), normalised(gallery)
    rank = np.ones(len(queries))
    for first in range(0, len(queries), _QUERIES):
        block = queries[first : first + _QUERIES]
        own = [np.asarray(items, np.int64) for items in correct[first : first + _QUERIES]]
        best = np.asarray([_scores(query[None], gallery[items]).max() for query, items in zip(block, own, strict=True)])
        rows, columns = np.repeat(np.arange(len(block)), [len(items) for items in own]), np.concatenate(own)
        for start in range(0, len(gallery), _ITEMS):
            scores = _scores(block, gallery[start : start + _ITEMS])
            is_here = (columns >= start) & (columns < start + _ITEMS)
            # The correct items of a query do not compete with each other.
            scores[rows[is_here], columns[is_here] - start] = -np.inf
            above = scores > best[:, None] + _TIE
            ties = (scores >= best[:, None] - _TIE) & ~above
            rank[first : first + _QUERIES] += above.sum(axis=1) + ties.sum(axis=1) / 2
    return rank


def _scores(queries: Floats, gallery: Floats) -> npt.NDArray[np.float64]:
    # In float64, where the rounding of a matrix product is far below a tie.
    with np.errstate(invalid="ignore"):
        scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    return np.where(np.isfinite(scores), scores, _NOT_FINITE)


def retrieval_metrics(
    queries: Floats, gallery: Floats, correct: Sequence[Sequence[int]], *, clusters: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Return R@1/5/10, the median, mean and mean reciprocal rank, and chance level and 95 % interval of R@1.

    Arguments are as for `ranks`. The interval is a bootstrap over queries, or over their ``clusters`` (q,).
    """
    rank = ranks(queries, gallery, correct)
    return {
        **{f"R@{k}": float((rank <= k).mean()) for k in _AT},
        "median_rank": float(np.median(rank)),
        "mean_rank": float(rank.mean()),
        "mrr": float((1 / rank).mean()),
        "n": len(rank),
        "gallery": len(gallery),
        "chance_R@1": float(np.mean([len(own) / len(gallery) for own in correct])),
        "ci95_R@1": _interval(rank <= 1, clusters, seed),
    }


def _interval(hits: npt.NDArray[np.bool_], clusters: Sequence[int] | None, seed: int) -> list[float]:
    """Cluster bootstrap: the captions of one clip are not independent, so whole clips are resampled."""
    _, owner = np.unique(np.arange(len(hits)) if clusters is None else np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(owner, hits.astype(float)), np.bincount(owner)
    generator, means = np.random.default_rng(seed), []
    # One resample at a time: all at once would take gigabytes for a large dataset.
    for _ in range(_RESAMPLES):
        drawn = generator.integers(len(counts), size=len(counts))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return [float(x) for x in np.quantile(means, [0.025, 0.975])]


def classification_metrics(embeddings: Floats, classes: Floats, labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return top-1 and top-5 accuracy, and the mean top-1 accuracy over classes, by cosine similarity.

    ``embeddings`` is (n, d), ``classes`` (c, d) the embeddings of the classes, ``labels`` (n,) indices into them.
    """
    rank = ranks(embeddings, classes, [[int(label)] for label in labels])
    per_class = [float((rank[labels == c] <= 1).mean()) for c in np.unique(labels)]
    return {
        "top1": float((rank <= 1).mean()), "top5": float((rank <= 5).mean()),
        "mean_per_class": float(np.mean(per_class)), "n": len(labels), "classes": len(classes),
        "chance_top1": 1 / len(classes),
    }  # fmt: skip
