"""Finds clips that show the same thing, by their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from vidal.record import Column
from vidal.rows import TableLike
from vidal.stage import Decision
from vidal.stages.vectors import has_vector, kept_clips, unlike, verdicts


class SemanticDuplicates(Decision):
    """Rejects clips whose frames look like those of a clip with a better caption, by the cosine of their embeddings.

    Clips are gone through by ``caption_match``, then in plan order; one stays unless its cosine with a clip that stayed
    is at least ``min_similarity``. The comparison is exact: its time grows with the clips times those that stay. The
    limit depends on the model: look at ``nearest_similarity`` in `vidal view`. Clips without an embedding all stay.
    """

    reads = ("video_embedding", "caption_match")
    columns: ClassVar[Mapping[str, Column]] = {
        "nearest_clip": Column(str, "clip that semantic_duplicates rejected this one for"),
        "nearest_similarity": Column(float, "cosine with the most similar clip that stayed and went before it"),
    }

    min_similarity: float = Field(0.95, gt=0, le=1)
    """Smallest cosine of near-duplicates."""

    def decide(self, rows: TableLike) -> pa.Table:
        clips, vectors = kept_clips(rows, ["video_embedding"], self.step_name())
        video = vectors["video_embedding"]
        quality = clips["caption_match"].to_numpy(zero_copy_only=False).astype(float)
        order = np.argsort(-np.nan_to_num(quality, nan=-1.0), kind="stable")
        cosines, places = unlike(video, order[has_vector(video)[order]], self.min_similarity)
        ids = clips["clip_id"].to_pylist()
        decided = []
        for clip_id, cosine, place in zip(ids, cosines.astype(float), places, strict=True):
            row = {
                "clip_id": clip_id,
                "status": "kept",
                "nearest_similarity": round(cosine, 4) if cosine > -1 else None,
            }
            if place >= 0:
                row |= {
                    "status": "rejected", "reason": "semantic_duplicate", "nearest_clip": ids[place],
                    "decided_value": row["nearest_similarity"], "decided_limit": self.min_similarity,
                    "detail": f"cosine {cosine:.4f} >= {self.min_similarity:g} with {ids[place]}",
                }  # fmt: skip
            decided.append(row)
        return verdicts(decided, self.columns)
