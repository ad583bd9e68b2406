"""Selection by embeddings: planted copies and benchmark clips are found, and each cluster keeps the share asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.toys import clip_of, image
from vidal.clip import Clip, schema
from vidal.errors import SourceError
from vidal.record import fields
from vidal.rows import Stream, TableLike
from vidal.stages import vectors
from vidal.stages.best_share import BestShare
from vidal.stages.decontaminate import Decontaminate
from vidal.stages.semantic_duplicates import SemanticDuplicates
from vidal.stages.text.embeddings import Embeddings

Vectors = npt.NDArray[np.float64]
SIZE = 32


def unit(rows: Vectors) -> Vectors:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random_vectors(seed: int, count: int) -> Vectors:
    return unit(np.random.default_rng(seed).normal(size=(count, SIZE)))


def table_of(rows: Sequence[dict[str, Any]], *, part: int = 1000) -> TableLike:
    """Manifest rows as a decision reads them, in parts; a row is kept unless it says otherwise."""
    known = schema(fields(Embeddings.columns))
    wanted = ("clip_id", "status", "title", "caption", *Embeddings.columns)
    kind = pa.schema([known.field(name) for name in wanted])
    full = [{"status": "kept", "embedding_model": "m", **row} for row in rows]
    table = pa.Table.from_pylist(full, schema=kind)
    return Stream(kind, len(rows), lambda: table.to_batches(max_chunksize=part))


def rows_of(video: Vectors, caption: Vectors | None = None, **columns: Sequence[Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for n, vector in enumerate(video):
        row = {"clip_id": f"c{n:04d}", "video_embedding": vector.tolist()}
        if caption is not None:
            row |= {"caption_embedding": caption[n].tolist(), "caption_match": float(vector @ caption[n])}
        rows.append(row | {name: values[n] for name, values in columns.items()})
    return rows


def decided(decision: Any, rows: TableLike) -> dict[str, dict[str, Any]]:
    return {row["clip_id"]: row for row in decision.decide(rows).to_pylist()}


@pytest.mark.parametrize("part", [7, 1000])
def test_planted_copies_are_found_and_the_best_captioned_of_them_stays(part: int) -> None:
    video = random_vectors(0, 300)
    # Clips 250 to 299 each resemble one of the first 50; the copy has the better caption in every other pair.
    video[250:] = unit(video[:50] + 0.02 * random_vectors(1, 50))
    match = [0.5] * 250 + [0.6 if n % 2 else 0.4 for n in range(50)]
    found = decided(SemanticDuplicates(min_similarity=0.95), table_of(rows_of(video, caption_match=match), part=part))
    worse = {f"c{n if n % 2 else 250 + n:04d}" for n in range(50)}
    assert {clip_id for clip_id, row in found.items() if row["status"] == "rejected"} == worse
    for n in range(50):
        stays, goes = (250 + n, n) if n % 2 else (n, 250 + n)
        row = found[f"c{goes:04d}"]
        assert (row["reason"], row["nearest_clip"], row["decided_limit"]) == (
            "semantic_duplicate",
            f"c{stays:04d}",
            0.95,
        )
        assert row["decided_value"] == row["nearest_similarity"] == pytest.approx(video[stays] @ video[goes], abs=1e-4)


def test_a_chain_of_likenesses_does_not_reject_its_far_end() -> None:
    angles = np.radians([0, 15, 30])
    video = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = decided(SemanticDuplicates(min_similarity=0.95), table_of(rows_of(video)))
    assert [found[f"c000{n}"]["status"] for n in range(3)] == ["kept", "rejected", "kept"]


def test_what_is_left_out_is_what_comparing_all_pairs_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "BLOCK", 16)
    monkeypatch.setattr(vectors, "_OTHERS", 24)
    few = unit(np.random.default_rng(3).normal(size=(200, 4))).astype(np.float32)
    order = np.random.default_rng(4).permutation(200)
    cosines, places = vectors.unlike(few, order, 0.9)
    stayed: list[int] = []
    for clip in order:
        near = max(stayed, key=lambda other: few[clip] @ few[other], default=None)
        similarity = -1 if near is None else float(few[clip] @ few[near])
        assert cosines[clip] == pytest.approx(similarity, abs=1e-6)
        assert places[clip] == (near if similarity >= 0.9 else -1)
        stayed += [] if similarity >= 0.9 else [clip]
    assert 10 < len(stayed) < 150


def grouped(sizes: Sequence[int]) -> tuple[Vectors, list[int]]:
    centres = random_vectors(5, len(sizes))
    owners = [group for group, size in enumerate(sizes) for _ in range(size)]
    return unit(centres[owners] + 0.1 * random_vectors(6, len(owners))), owners


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_each_cluster_keeps_the_share_that_was_asked(share: float) -> None:
    video, owners = grouped([40, 25, 10])
    caption = unit(video + np.linspace(0.1, 3, 75)[:, None] * random_vectors(7, 75))
    found = decided(BestShare(share=share, clusters=3), table_of(rows_of(video, caption)))
    clusters = [found[f"c{n:04d}"]["selection_cluster"] for n in range(75)]
    assert len({*zip(owners, clusters, strict=True)}) == 3
    kept = Counter(owners[int(clip[1:])] for clip, row in found.items() if row["status"] == "kept")
    assert kept == {group: math.ceil(share * size - 1e-9) for group, size in enumerate([40, 25, 10])}
    for group in range(3):
        scores = {True: [], False: []}  # type: ignore[var-annotated]
        for n in (n for n in range(75) if owners[n] == group):
            row = found[f"c{n:04d}"]
            scores[row["status"] == "kept"].append(row["selection_score"])
            if row["status"] == "rejected":
                assert (row["reason"], row["decided_value"]) == ("not_selected", row["selection_score"])
                assert row["decided_limit"] >= row["decided_value"]
        assert min(scores[True]) >= max(scores[False], default=-9)


def test_a_caption_that_fits_every_clip_has_no_margin() -> None:
    video = unit(random_vectors(8, 20) + 1)
    specific = unit(video - video.mean(axis=0))
    generic = np.tile(unit(video.mean(axis=0)), (20, 1))
    caption = np.concatenate([specific[:10], generic[:10]])
    found = decided(BestShare(share=0.5, clusters=1), table_of(rows_of(video, caption)))
    margins = [found[f"c{n:04d}"]["caption_margin"] for n in range(20)]
    own = [float(video[n] @ caption[n]) for n in range(20)]
    rest = [np.mean([caption[n] @ video[k] for k in range(20) if k != n]) for n in range(20)]
    assert margins == pytest.approx([a - b for a, b in zip(own, rest, strict=True)], abs=1e-3)
    assert min(margins[:10]) > max(margins[10:])
    # By the match alone the generic captions win; the margin turns that round.
    by_match = decided(BestShare(share=0.5, clusters=1, specificity=0), table_of(rows_of(video, caption)))
    by_both = decided(BestShare(share=0.5, clusters=1, specificity=50), table_of(rows_of(video, caption)))
    assert sum(by_match[f"c{n:04d}"]["status"] == "kept" for n in range(10)) < 5
    assert all(by_both[f"c{n:04d}"]["status"] == "kept" for n in range(10))


def test_clips_without_embeddings_and_rejected_ones_are_left_alone() -> None:
    rows = [
        *rows_of(random_vectors(9, 12), random_vectors(10, 12)), {"clip_id": "bare"},
        {"clip_id": "out", "status": "rejected"},
    ]  # fmt: skip
    for decision in (BestShare(share=0.1), SemanticDuplicates()):
        found = decided(decision, table_of(rows))
        assert found["bare"]["status"] == "kept" and "out" not in found
        assert decided(decision, table_of(rows[-2:]))["bare"]["status"] == "kept"


TEXTS = [
    ("A man is playing the guitar on a stage!", 9, "the same words"),
    ("Live: a man is playing the guitar on a boat", 8, "eight in a row"),
    ("a man is playing the guitar in a boat", None, "seven in a row of nine"),
    ("see how two dogs run in snow today", 5, "a short one as a whole"),
    ("two dogs run", None, "part of a short one"),
    ("", None, "no text"),
]


@pytest.mark.parametrize("column", ["caption", "title"])
def test_planted_captions_of_a_benchmark_are_found(column: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.txt"
    file.write_text("a man is playing the guitar on a stage\ntwo dogs run in snow\n")
    rows = [{"clip_id": f"c{n}", column: text} for n, (text, _, _) in enumerate(TEXTS)]
    found = decided(Decontaminate(captions=[str(file)]), table_of(rows))
    for n, (_, words, _) in enumerate(TEXTS):
        row = found[f"c{n}"]
        assert (row["reason"], row["benchmark_words"]) == ("benchmark_text" if words else None, words)
        assert row["decided_value"] == words


def test_a_decision_without_a_benchmark_or_with_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name files of `captions`"):
        Decontaminate()
    with pytest.raises(SourceError, match="no such file"):
        Decontaminate(captions=[str(tmp_path / "gone.txt")]).identity()


def test_embeddings_of_two_models_are_refused() -> None:
    rows = [*rows_of(random_vectors(11, 2)), {"clip_id": "x", "video_embedding": [1.0, 0.0]}]
    with pytest.raises(SourceError, match="semantic_duplicates: the embeddings are of several models"):
        SemanticDuplicates().decide(table_of(rows, part=1))


class Seen:
    """A matcher by mean colour; texts get the vector of their first letter."""

    def images(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        return unit(np.stack([frame.mean(axis=(0, 1)) for frame in frames])).astype(np.float32)

    def texts(self, texts: Sequence[str]) -> Any:
        return np.stack([np.eye(3)[ord(text[0]) % 3] for text in texts]).astype(np.float32)


def test_the_embedding_of_a_clip_is_the_mean_of_its_frames_in_half_precision() -> None:
    stage = Embeddings()
    stage.setup(Seen())
    blank = dict.fromkeys(Embeddings.columns)
    clips = [
        clip_of([image(1), image(2)], caption="a dog", extra={**blank}), clip_of([image(3)], title="", extra={**blank}),
        Clip(clip_id="no frames", title="x", extra={**blank}),
    ]  # fmt: skip
    stage.process_batch(clips)
    wanted = unit(Seen().images([image(1), image(2)]).astype(float).mean(axis=0))
    assert clips[0]["video_embedding"] == pytest.approx(wanted, abs=1e-3)
    assert clips[0]["caption_match"] == pytest.approx(wanted[ord("a") % 3], abs=1e-3)
    assert all(float(np.float16(value)) == value for value in clips[0]["video_embedding"])
    assert clips[1]["caption_embedding"] is None and clips[1]["caption_match"] is None
    assert clips[2]["video_embedding"] is None
