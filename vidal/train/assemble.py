"""`build_encoder`: the encoder of a training recipe, before its first step."""

from __future__ import annotations

from vidal.train.recipe import TrainRecipe
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.load import load_encoder
from vidal.train.towers.text import TextTower


def build_encoder(recipe: TrainRecipe) -> Encoder:
    """Build the encoder before its first step, which is also the untrained baseline of `vidal eval`."""
    text = TextTower.load(recipe.text.model, recipe.text.max_tokens)
    pairs = {pair: s.init_temperature for pair, s in recipe.pair_settings().items()}
    towers = {modality: tower.tower_settings() for modality, tower in recipe.towers.items()}
    start = load_encoder(recipe.init_from) if recipe.init_from else None
    return Encoder.build(
        towers, text, pairs=pairs, is_sigmoid=recipe.loss.kind == "sigmoid", seed=recipe.seed, start=start,
        text_tune=recipe.text.tune, text_lora=recipe.text.lora,
    )  # fmt: skip
