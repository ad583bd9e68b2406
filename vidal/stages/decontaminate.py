"""Takes what a benchmark tests out of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.record import Column
from vidal.rows import TableLike
from vidal.stage import Decision
from vidal.stages.vectors import Floats, Ints, Matrix, has_vector, kept_clips, nearest, verdicts
from vidal.terms.benchmark import Benchmark
from vidal.terms.captions import Input
from vidal.terms.wording import display, words

_VECTORS = ("video_embedding", "caption_embedding")


class Decontaminate(Decision):
    """Rejects clips that a benchmark holds: by their texts, and by the embeddings of their frames and captions.

    ``captions`` are files; a caption or title is a benchmark's if it has the same words, or ``overlap_words`` of them
    in a row (a benchmark's caption of 5 to 7 words counts as a whole). ``benchmarks`` are vidal datasets to which
    ``embeddings`` was added with the same model; a clip is a benchmark's if its frames or its caption are at least as
    similar to those of one of their kept clips as a limit says. Similarities are stored for clips that stay, too.
    """

    reads = (*_VECTORS, "embedding_model", "caption", "title")
    columns: ClassVar[Mapping[str, Column]] = {
        "benchmark_words": Column(int, "consecutive words that the texts share with a benchmark's; null for few"),
        "benchmark_clip": Column(str, "clip of a benchmark that the frames are most similar to"),
        "benchmark_video_similarity": Column(float, "cosine of the frames with those of that clip"),
        "benchmark_caption_similarity": Column(float, "highest cosine of the caption with a benchmark's"),
    }
    not_fingerprinted: ClassVar[tuple[str, ...]] = ("captions", "benchmarks")

    captions: list[str] = Field(default_factory=list)
    """Files of captions: ``msrvtt.txt``, ``vatex.jsonl:caption``; also csv, tsv and parquet."""
    benchmarks: list[str] = Field(default_factory=list)
    """Datasets of benchmark clips, with the columns of ``embeddings``."""
    overlap_words: int = Field(8, ge=3)
    """Number of consecutive words in common that makes a text a benchmark's."""
    min_video_similarity: float = Field(0.95, gt=0, le=1)
    """Smallest cosine of the frames of one clip and a benchmark's."""
    min_caption_similarity: float = Field(0.98, gt=0, le=1)
    """Smallest cosine of one caption and a benchmark's."""

    @model_validator(mode="after")
    def _names_a_benchmark(self) -> Decontaminate:
        if not self.captions and not self.benchmarks:
            raise ValueError("name files of `captions` or datasets in `benchmarks`")
        return self

    def identity(self) -> dict[str, Any]:
        """Identify benchmarks by content, not by location."""
        files = [Input.parse(text) for text in self.captions]
        captions = [[hashlib.sha256(file.path.read_bytes()).hexdigest(), file.field] for file in files]
        datasets = [Dataset.open(address) for address in self.benchmarks]
        return {
            **super().identity(), "captions": captions,
            "benchmarks": [[each.info.fingerprint, len(each.committed())] for each in datasets],
        }  # fmt: skip

    def decide(self, rows: TableLike) -> pa.Table:
        clips, vectors = kept_clips(rows, _VECTORS, self.step_name())
        overlaps = self._overlaps(clips)
        ids, known = self._benchmarks(clips)
        video, caption = (_nearest(vectors[name], known[name]) for name in _VECTORS)
        decided = []
        for n, clip_id in enumerate(clips["clip_id"].to_pylist()):
            row: dict[str, Any] = {"clip_id": clip_id, "status": "kept", "benchmark_words": overlaps[n] or None}
            if video[1][n] >= 0:
                row |= {
                    "benchmark_clip": ids[video[1][n]], "benchmark_video_similarity": round(float(video[0][n]), 4)
                }  # fmt: skip
            if caption[1][n] >= 0:
                row["benchmark_caption_similarity"] = round(float(caption[0][n]), 4)
            decided.append(row | self._verdict(row))
        return verdicts(decided, self.columns)

    def _verdict(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the rejection of a clip with these numbers, or nothing."""
        seen = row.get("benchmark_video_similarity"), row.get("benchmark_caption_similarity")
        if row["benchmark_words"]:
            # A short caption of the benchmark's has fewer words, and counts where it is contained as a whole.
            limit: float = min(self.overlap_words, row["benchmark_words"])
            found = "benchmark_text", float(row["benchmark_words"]), f"{row['benchmark_words']} words of a benchmark's"
        elif seen[0] is not None and seen[0] >= self.min_video_similarity:
            limit, found = self.min_video_similarity, ("benchmark_video", seen[0], f"frames as {row['benchmark_clip']}")
        elif seen[1] is not None and seen[1] >= self.min_caption_similarity:
            limit, found = self.min_caption_similarity, ("benchmark_caption", seen[1], "caption as a benchmark's")
        else:
            return {}
        reason, value, words_ = found
        return {
            "status": "rejected", "reason": reason, "decided_value": value, "decided_limit": float(limit),
            "detail": f"{words_}: {value:g} >= {limit:g}",
        }  # fmt: skip

    def _overlaps(self, clips: pa.Table) -> list[int]:
        """Return how many words in a row each clip's caption or title has in common with a benchmark's, 0 for few."""
        known = Benchmark([Input.parse(text) for text in self.captions], None, self.overlap_words)
        columns = (clips["caption"].to_pylist(), clips["title"].to_pylist())
        return [
            max(known.common_words(words(display(text))) if text else 0 for text in texts)
            for texts in zip(*columns, strict=True)
        ]

    def _benchmarks(self, clips: pa.Table) -> tuple[list[str], dict[str, Matrix]]:
        """Return the ids and embeddings of the kept clips of the benchmarks, which are of the clips' own model."""
        own = set(clips["embedding_model"].unique().to_pylist()) - {None}
        ids: list[str] = []
        parts: dict[str, list[Matrix]] = {name: [] for name in _VECTORS}
        for address in self.benchmarks:
            found, vectors = self._benchmark(address, own)
            ids += found
            for name in _VECTORS:
                parts[name].append(vectors[name])
        nothing = [np.empty((0, 0), np.float32)]
        return ids, {name: np.concatenate(of or nothing) for name, of in parts.items()}

    def _benchmark(self, address: str, models: set[str]) -> tuple[list[str], dict[str, Matrix]]:
        dataset, place = Dataset.open(address), f"{self.step_name()}: {address}"
        if missing := [name for name in (*_VECTORS, "embedding_model") if name not in dataset.info.columns]:
            raise SourceError(f"{place}: has no `{missing[0]}`; add the stage `embeddings` to it, with the same model")
        names = ["clip_id", "status", "embedding_model", *_VECTORS]
        found, vectors = kept_clips(pa.concat_tables(dataset.tables(names)), _VECTORS, place)
        if others := (set(found["embedding_model"].unique().to_pylist()) - {None}) - models:
            raise SourceError(f"{place}: its embeddings are by {min(others)}, and not by {', '.join(sorted(models))}")
        return found["clip_id"].to_pylist(), vectors


def _nearest(vectors: Matrix, known: Matrix) -> tuple[Floats, Ints]:
    """Return the cosine and the place of the nearest known vector; the place is -1 where there is no vector."""
    if not known.size or not vectors.size:
        return np.full(len(vectors), -1, np.float32), np.full(len(vectors), -1, np.int64)
    cosines, places = nearest(vectors, known)
    return cosines, np.where(has_vector(vectors), places, -1)
