"""Figures against torchmetrics and a plain sort, and what they say of a model that has collapsed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidal.train.evaluate.metrics import classification_metrics, normalised, ranks, retrieval_metrics


def embeddings(rows: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_and_reciprocal_rank_are_torchmetrics(k: int) -> None:
    from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

    queries, gallery = embeddings(40, 0), embeddings(40, 1) + embeddings(40, 0)
    ours = retrieval_metrics(queries, gallery, [[n] for n in range(40)])
    # torchmetrics takes an item with a negative score for one that was not found.
    scores = torch.from_numpy(normalised(queries) @ normalised(gallery).T) + 1
    rows = torch.arange(40).repeat_interleave(40)
    right = torch.eye(40).bool().flatten()
    assert ours[f"R@{k}"] == pytest.approx(float(RetrievalRecall(top_k=k)(scores.flatten(), right, indexes=rows)))
    assert ours["mrr"] == pytest.approx(float(RetrievalMRR(top_k=40)(scores.flatten(), right, indexes=rows)))


def test_ranks_are_those_of_a_sort_where_nothing_ties() -> None:
    queries, gallery = embeddings(2050, 2), embeddings(300, 3)
    right = [[n % 300] for n in range(2050)]
    order = np.argsort(-(normalised(queries) @ normalised(gallery).T), axis=1)
    wanted = [int(np.flatnonzero(order[n] == right[n][0])[0]) + 1 for n in range(2050)]
    assert ranks(queries, gallery, right).tolist() == wanted


@pytest.mark.parametrize(("rows", "median"), [(3, 2.0), (10, 5.5), (101, 51.0)])
def test_a_model_that_gives_everything_one_embedding_ranks_in_the_middle(rows: int, median: float) -> None:
    same = np.ones((rows, 4), np.float32)
    found = retrieval_metrics(same, same, [[n] for n in range(rows)])
    assert (found["R@1"], found["median_rank"], found["mean_rank"]) == (0.0, median, median)


def test_of_several_right_answers_the_best_counts_and_none_is_another_s_rival() -> None:
    queries = np.asarray([[1.0, 0.0]], np.float32)
    gallery = np.asarray([[0.0, 1.0], [1.0, 0.1], [0.9, 0.5], [1.0, 0.0]], np.float32)
    assert ranks(queries, gallery, [[2, 0]]).tolist() == [3.0]
    assert ranks(queries, gallery, [[3, 1]]).tolist() == [1.0]
    assert ranks(queries, gallery, [[1]]).tolist() == [2.0]


def test_the_interval_holds_the_figure_and_widens_where_captions_share_a_clip() -> None:
    queries = embeddings(200, 4)
    # The first half is found, the second is not: captions of one clip stand or fall together.
    gallery = np.where(np.arange(200)[:, None] < 100, queries, embeddings(200, 5))
    right = [[n] for n in range(200)]
    alone = retrieval_metrics(queries, gallery, right)
    shared = retrieval_metrics(queries, gallery, right, clusters=[n // 10 for n in range(200)])
    low, high = alone["ci95_R@1"]
    assert low <= alone["R@1"] <= high and 0 < high - low < 0.3
    wide_low, wide_high = shared["ci95_R@1"]
    assert wide_high - wide_low > 2 * (high - low)
    assert retrieval_metrics(queries, gallery, right)["ci95_R@1"] == alone["ci95_R@1"]


def test_classification_counts_ties_fairly_and_gives_the_mean_over_classes() -> None:
    rows = np.asarray([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    classes = np.asarray([[1, 0], [0, 1]], np.float32)
    found = classification_metrics(rows, classes, np.asarray([0, 0, 1, 1]))
    assert (found["top1"], found["mean_per_class"], found["chance_top1"]) == (0.75, 0.75, 0.5)
    assert (
        classification_metrics(np.ones((4, 2), np.float32), np.ones((2, 2), np.float32), np.asarray([0, 0, 1, 1]))[
            "top1"
        ]
        == 0
    )
