"""Stores an embedding of the frames and one of the caption of each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from vidal.clip import Clip
from vidal.models.frame_batch import FrameBatch
from vidal.models.match import Matcher, Vectors
from vidal.record import Column
from vidal.stages.matcher_stage import MatcherStage


class Embeddings(MatcherStage):
    """Writes an embedding of the frames, their mean, and of the caption, by any CLIP-family model.

    The title stands in for a caption that is missing. The embeddings have unit length and the precision of float16,
    and are in the manifest, where ``decontaminate``, ``semantic_duplicates`` and ``best_share`` read them.
    """

    reads = ("video",)
    columns: ClassVar[Mapping[str, Column]] = {
        "video_embedding": Column(list[float], "unit vector of the frames, their mean", "fingerprints"),
        "caption_embedding": Column(list[float], "unit vector of the caption or title", "fingerprints"),
        "caption_match": Column(float, "cosine of the two: how well the caption or title matches the frames"),
        "embedding_model": Column(str, "model that made the embeddings", "provenance"),
    }
    imports = ("timm", "torch", "torchvision", "transformers", "huggingface_hub", "safetensors")

    def process_batch(self, clips: Sequence[Clip]) -> None:
        assert self._matcher is not None, "setup() comes first"
        seen = self.with_frames(clips)
        # A CPU takes clip by clip, as the last bits of a clip's embeddings would depend on the others of its batch.
        batches = [seen] if self.chosen_device() == "cuda" else [[clip] for clip in seen]
        for batch in filter(None, batches):
            self._embed(self._matcher, batch)

    def _embed(self, matcher: Matcher, seen: Sequence[Clip]) -> None:
        texts = [(clip.caption or clip.title or "").strip() for clip in seen]
        # A clip without a text keeps its place in the batch; what stands there is not stored.
        of_texts = matcher.texts([text or "-" for text in texts])
        images, at = matcher.images(FrameBatch.of(clip.work for clip in seen)), 0
        for clip, text, of_text in zip(seen, texts, of_texts, strict=True):
            count = len(clip.work.frame_members())
            video, at = images[at : at + count].mean(axis=0), at + count
            video = video / max(float(np.linalg.norm(video)), 1e-12)
            clip["video_embedding"], clip["embedding_model"] = _stored(video), self.matcher_name
            if text:
                clip["caption_embedding"] = _stored(of_text)
                clip["caption_match"] = round(float(video @ of_text), 4)


def _stored(vector: Vectors) -> list[float]:
    numbers: list[float] = vector.astype(np.float16).astype(np.float64).tolist()
    return numbers
