"""Which queries of the held-out clips a finished run answers at the first rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel

from vidal.ablate.queries import Queries
from vidal.train.distributed import World
from vidal.train.evaluate.clips import embed, embed_all_texts, of_clips
from vidal.train.evaluate.metrics import ranks
from vidal.train.evaluate.retrieval import directions
from vidal.train.preprocessing import transforms_of
from vidal.train.recipe import TrainRecipe
from vidal.train.towers.load import load_encoder


class Answered(BaseModel):
    """The answers of one direction, by unit of clips."""

    hits: list[float]
    """Queries whose first item is correct."""
    queries: list[int]
    """Queries."""


def score(run: Path, recipe: TrainRecipe, queries: Queries, here: World) -> dict[str, Answered]:
    """Return the hits by direction (``text_to_depth``), of every pair of the encoder and text.

    Raises `SourceError` if no clip can be read.
    """
    clips, units = queries.clips, len(set(queries.units.values()))
    encoder = load_encoder(run).to(here.device).eval()
    sides = embed(
        [encoder], clips.samples, list(clips.captions), transforms_of(recipe.transforms, encoder),
        workers=recipe.data.workers, is_bf16=recipe.precision == "bf16",
    )  # fmt: skip
    texts = embed_all_texts(encoder.encode_texts, clips.texts())
    found = {}
    for one in directions(clips, of_clips(clips, sides, 0), texts, list(encoder.logit_scale)):
        is_hit = ranks(one.queries, one.gallery, one.correct) <= 1
        unit = [queries.units[clips.samples.clip_id(n)] for n in one.clips]
        # A number for every unit: in a direction some of the clips may have no query.
        found[one.name] = Answered(
            hits=np.bincount(unit, is_hit, minlength=units).tolist(),
            queries=np.bincount(unit, minlength=units).tolist(),
        )
    return found
