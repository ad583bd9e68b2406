"""What figures say of models that learned nothing, whatever the machine's rounding and the size of the gallery."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from vidal.train.evaluate import metrics
from vidal.train.evaluate.metrics import classification_metrics, ranks, retrieval_metrics


@pytest.mark.parametrize(("rows", "width"), [(3, 384), (101, 384), (257, 768), (1003, 512)])
def test_one_embedding_for_all_ties_in_the_middle_at_any_width(rows: int, width: int) -> None:
    """A matrix product rounds its last columns otherwise: in float32 that alone broke these ties."""
    same = np.tile(np.random.default_rng(width).normal(size=width).astype(np.float32), (rows, 1))
    found = retrieval_metrics(same, same, [[n] for n in range(rows)])
    middle = (rows + 1) / 2
    assert (found["R@1"], found["median_rank"], found["mean_rank"]) == (0.0, middle, middle)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_embeddings_that_are_no_numbers_are_not_found(value: float) -> None:
    broken = np.full((9, 4), value, np.float32)
    found = retrieval_metrics(broken, broken, [[n] for n in range(9)])
    assert (found["R@1"], found["median_rank"], found["mrr"]) == (0.0, 5.0, pytest.approx(0.2))


def test_one_gallery_item_that_is_no_number_stands_last_and_hinders_no_other() -> None:
    gallery = np.eye(4, dtype=np.float32)
    gallery[2] = math.nan
    assert ranks(np.eye(4, dtype=np.float32), gallery, [[0], [1], [2], [3]]).tolist() == [1, 1, 4, 1]


@pytest.mark.parametrize(("queries", "items"), [(1, 1), (3, 7), (64, 5)])
def test_chunks_change_nothing(queries: int, items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    # Few values in few dimensions: many ties.
    a, b = (random.integers(-1, 2, (40, 3)).astype(np.float32) for _ in range(2))
    right = [sorted(random.choice(40, size=random.integers(1, 5), replace=False).tolist()) for _ in range(40)]
    whole = ranks(a, b, right)
    monkeypatch.setattr(metrics, "_QUERIES", queries)
    monkeypatch.setattr(metrics, "_ITEMS", items)
    assert ranks(a, b, right).tolist() == whole.tolist()


def test_ranks_are_those_of_the_definition_row_by_row() -> None:
    random = np.random.default_rng(1)
    a, b = (random.integers(-2, 3, (30, 2)).astype(np.float32) for _ in range(2))
    right = [sorted(random.choice(30, size=3, replace=False).tolist()) for _ in range(30)]
    scores = metrics.normalised(a).astype(float) @ metrics.normalised(b).astype(float).T
    for row, (line, mine) in enumerate(zip(scores.round(6), right, strict=True)):
        wrong = [line[k] for k in range(30) if k not in mine]
        best = max(line[mine])
        wanted = 1 + sum(s > best for s in wrong) + sum(s == best for s in wrong) / 2
        assert ranks(a, b, right)[row] == wanted


def test_memory_does_not_grow_with_the_scores() -> None:
    rows = np.random.default_rng(2).normal(size=(6000, 4)).astype(np.float32)
    tracemalloc.start()
    retrieval_metrics(rows, rows, [[n] for n in range(6000)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All scores at once would be 288 MB, all draws of the interval 48 MB.
    assert peak < 200e6


def test_a_collapsed_classifier_is_right_about_nothing() -> None:
    same = np.tile(np.random.default_rng(3).normal(size=512).astype(np.float32), (60, 1))
    found = classification_metrics(same, same[:20], np.arange(60) % 20)
    assert (found["top1"], found["top5"], found["mean_per_class"], found["chance_top1"]) == (0.0, 0.0, 0.0, 0.05)
