"""Keeps the best share of a dataset by how well and how specifically captions match, from each cluster alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from vidal.record import Column
from vidal.rows import TableLike
from vidal.stage import Decision
from vidal.stages.vectors import Flags, Floats, Matrix, clusters, has_vector, kept_clips, verdicts


class BestShare(Decision):
    """Keeps the best ``share`` of the clips of each cluster by their captions' match and specificity.

    The score is ``caption_match`` + ``specificity`` × ``caption_margin``. The margin is by how much the cosine of a
    caption with its own frames is above the mean of its cosines with all other clips' frames: "a nice video" matches
    many clips alike and has none. Clusters are those of k-means over the frames' embeddings, so that a subject with low
    scores keeps its share, too; 1 ranks all clips together. Of ties, the first in plan order stays. Clips without both
    embeddings all stay.
    """

    reads = ("video_embedding", "caption_embedding")
    columns: ClassVar[Mapping[str, Column]] = {
        "caption_margin": Column(float, "cosine of caption and own frames above the mean of those with other clips'"),
        "selection_score": Column(float, "what best_share ranks by"),
        "selection_cluster": Column(int, "number of the cluster that best_share ranks the clip in"),
    }

    share: float = Field(0.3, gt=0, le=1)
    """Share of each cluster that stays, rounded up to whole clips."""
    specificity: float = Field(1.0, ge=0)
    """Weight of the margin beside the match."""
    clusters: int = Field(100, ge=1)
    """Largest number of clusters; a cluster has at least 10 clips on average."""
    seed: int = 0
    """Seed of the clusters."""

    def decide(self, rows: TableLike) -> pa.Table:
        clips, vectors = kept_clips(rows, ["video_embedding", "caption_embedding"], self.step_name())
        video, caption = vectors["video_embedding"], vectors["caption_embedding"]
        is_scored = has_vector(video) & has_vector(caption)
        margin, score = self._scores(video, caption, is_scored)
        count = max(1, min(self.clusters, int(is_scored.sum()) // 10))
        owner = np.where(is_scored, clusters(video, count, self.seed), -1)
        limits = {}
        for cluster in np.unique(owner[is_scored]):
            scores = np.sort(score[owner == cluster])[::-1]
            # Rounded first, as 0.07 * 100 is a little more than 7 and would let an eighth clip stay.
            limits[cluster] = scores[math.ceil(round(self.share * len(scores), 9)) - 1]
        stays = np.zeros(len(score), np.bool_)
        for cluster in limits:
            members = np.flatnonzero(owner == cluster)
            best = members[np.argsort(-score[members], kind="stable")]
            stays[best[: math.ceil(round(self.share * len(best), 9))]] = True
        decided = []
        for n, clip_id in enumerate(clips["clip_id"].to_pylist()):
            row: dict[str, object] = {"clip_id": clip_id, "status": "kept"}
            if is_scored[n]:
                value, limit, cluster = round(float(score[n]), 4), round(float(limits[owner[n]]), 4), int(owner[n])
                row |= {
                    "caption_margin": round(float(margin[n]), 4), "selection_score": value,
                    "selection_cluster": cluster,
                }  # fmt: skip
                if not stays[n]:
                    row |= {
                        "status": "rejected", "reason": "not_selected", "decided_value": value, "decided_limit": limit,
                        "detail": f"score {value:g} is not among the best {self.share:.0%} of cluster {cluster}, "
                        f"which end at {limit:g}",
                    }  # fmt: skip
            decided.append(row)
        return verdicts(decided, self.columns)

    def _scores(self, video: Matrix, caption: Matrix, is_scored: Flags) -> tuple[Floats, Floats]:
        """Return margin and score of each clip (clips,)."""
        if not is_scored.any():
            return np.zeros(len(video), np.float32), np.zeros(len(video), np.float32)
        own = np.einsum("nd,nd->n", video, caption)
        others = int(is_scored.sum()) - 1
        total = video[is_scored].sum(axis=0, dtype=np.float64)
        # The mean of the cosines is the cosine with the mean: one product for all clips, and not one for each pair.
        rest = (caption @ total.astype(np.float32) - own) / max(others, 1)
        margin = own - rest if others else np.zeros_like(own)
        return margin, own + self.specificity * margin
