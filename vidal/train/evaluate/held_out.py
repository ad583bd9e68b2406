"""`HeldOut`: evaluates the encoder of a run between its steps, on clips that it does not train on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import vidal
from vidal.errors import RecipeError
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.clips import choose, embed, embed_all_texts, of_clips
from vidal.train.evaluate.embeddings import EncodeTexts
from vidal.train.evaluate.retrieval import retrieval
from vidal.train.evaluate.run import part_of
from vidal.train.material import Material
from vidal.train.preprocessing import transforms_of
from vidal.train.recipe import EvalSettings, TrainRecipe
from vidal.train.run_folder import RunFolder
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an evaluation between two steps found."""

    clips: int
    """Clips that were evaluated."""
    recall: dict[str, float]
    """R@1 by direction (``text_to_depth``)."""
    mean_recall: float
    """Mean R@1 of both directions of the trained pairs, by which the best checkpoint is chosen."""


class HeldOut:
    """The clips of a recipe's ``eval``; every rank has the same."""

    def __init__(self, recipe: TrainRecipe, settings: EvalSettings, folder: RunFolder, data: Material) -> None:
        """Choose the clips; raises `RecipeError` where several datasets train, `SourceError` for too few clips."""
        if settings.data is not None:
            samples = vidal.open(settings.data, where=settings.where)
            numbers = part_of(folder, samples, "auto")[1]
        elif len(data.samples) > 1:
            raise RecipeError("eval: of several datasets name one in eval.data; ranks among their clips do not compare")
        else:
            samples, numbers = data.samples[0], np.flatnonzero(~data.training[0])
        views: TextViews = recipe.text.views
        self.clips = choose(samples, numbers.tolist(), views, max_clips=settings.max_clips)
        self.every_steps = settings.every_steps
        """Steps of training from one evaluation to the next."""
        self._recipe = recipe

    def score(self, encoder: Encoder, encode_texts: EncodeTexts, device: torch.device) -> Score:
        """Evaluate the encoder as it is; a collective. Raises `SourceError` if no clip can be read."""
        recipe, clips = self._recipe, self.clips
        with torch.no_grad():
            sides = embed(
                [encoder], clips.samples, list(clips.captions), transforms_of(recipe.transforms, encoder),
                workers=recipe.data.workers, is_bf16=recipe.precision == "bf16",
            )  # fmt: skip
            texts = embed_all_texts(encode_texts, clips.texts())
        rows = retrieval(clips, of_clips(clips, sides, 0), texts, set(encoder.logit_scale))
        recall = {name: float(row["R@1"]) for name, row in rows.items()}
        trained = [recall[name] for name, row in rows.items() if row["trained"]]
        return Score(clips=len(clips.captions), recall=recall, mean_recall=float(np.mean(trained)) if trained else 0.0)
