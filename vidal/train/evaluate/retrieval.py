"""Retrieval in both directions between every two modalities of a set of clips.

Clips with the same first caption form a group, and all items of a query's group are correct. A text that clips of
several groups share, such as a common title, is correct for each of them. A fused side has the mean of the unit
embeddings that a clip has of its parts; of its texts, the first one's.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidal.train.data.rows import Indices
from vidal.train.evaluate.clips import Clips
from vidal.train.evaluate.metrics import Floats, normalised, retrieval_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The queries and the gallery from one modality, or text, to another."""

    name: str
    """``text_to_depth``."""
    queries: Floats
    """(q, d) embeddings."""
    gallery: Floats
    """(g, d) embeddings."""
    correct: Sequence[Sequence[int]]
    """The indices in the gallery of each query's correct items."""
    clips: Sequence[int]
    """(q,) the sample index of the clip that each query is of."""


def retrieval(
    clips: Clips, sides: Mapping[str, tuple[Indices, Floats]], texts: Mapping[str, Floats], trained: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Return `retrieval_metrics` by direction (``text_to_depth``), with arguments as for `directions`.

    ``trained`` are the names of the pairs that were trained (``text-depth``); a row says whether its pair is one.
    """
    figures: dict[str, dict[str, Any]] = {}
    for one in directions(clips, sides, texts, trained):
        figures[one.name] = retrieval_metrics(one.queries, one.gallery, one.correct, clusters=one.clips)
        a, b = one.name.split("_to_")
        figures[one.name]["trained"] = f"{a}-{b}" in trained or f"{b}-{a}" in trained
    return figures


def directions(
    clips: Clips, sides: Mapping[str, tuple[Indices, Floats]], texts: Mapping[str, Floats], trained: Collection[str]
) -> Iterator[Direction]:
    """Yield the directions from and to text, between any two modalities, and of the fused ones among ``trained``.

    ``sides`` holds the sample indices (n,) and the embeddings (n, d) of each modality, ``texts`` the embedding (d,) of
    each text.
    """
    pairs = [name.partition("-")[::2] for name in sorted(trained) if "+" in name]
    fused = {name: found for _, name in pairs if (found := _fused(name, sides, clips, texts))}
    with_text = [*sides, *(b for a, b in pairs if a == "text" and b in fused)]
    between = [*itertools.permutations(sides, 2)]
    between += [each for a, b in pairs if a in sides and b in fused for each in ((a, b), (b, a))]
    sides = {**sides, **fused}
    for name in with_text:
        yield from _with_text(name, *sides[name], clips, texts)
    for a, b in between:
        both, at_a, at_b = np.intersect1d(sides[a][0], sides[b][0], return_indices=True)
        if len(both) > 1:
            of_group = _by_group(both.tolist(), clips.groups)
            yield Direction(
                name=f"{a}_to_{b}", queries=sides[a][1][at_a], gallery=sides[b][1][at_b],
                correct=[of_group[clips.groups[n]] for n in both.tolist()], clips=both.tolist(),
            )  # fmt: skip


def _fused(
    name: str, sides: Mapping[str, tuple[Indices, Floats]], clips: Clips, texts: Mapping[str, Floats]
) -> tuple[Indices, Floats] | None:
    """The clips that have a part of a fused side, and their embeddings; None if there are not two."""
    numbers = np.asarray(sorted(clips.captions), np.int64)
    of_texts = (numbers, np.stack([texts[clips.captions[n][0]] for n in numbers.tolist()]))
    parts = [{**sides, "text": of_texts}[part] for part in name.split("+") if part == "text" or part in sides]
    has = np.unique(np.concatenate([own for own, _ in parts])) if parts else numbers[:0]
    if len(has) < 2:
        return None
    summed = np.zeros((len(has), parts[0][1].shape[1]), np.float32)
    for own, rows in parts:
        summed[np.searchsorted(has, own)] += normalised(rows)
    return has, summed


def _with_text(
    modality: str, numbers: Indices, rows: Floats, clips: Clips, texts: Mapping[str, Floats]
) -> Iterator[Direction]:
    """Both directions of text and a modality: every caption is a query, the gallery has each distinct text once."""
    groups = clips.groups
    of_group = _by_group(numbers.tolist(), groups)
    queries = [(n, text) for n in numbers.tolist() for text in clips.captions[n]]
    gallery = {text: place for place, text in enumerate(dict.fromkeys(text for _, text in queries))}
    groups_of: dict[str, set[int]] = {}
    texts_of: dict[int, set[int]] = {}
    for n, text in queries:
        groups_of.setdefault(text, set()).add(groups[n])
        texts_of.setdefault(groups[n], set()).add(gallery[text])
    yield Direction(
        name=f"text_to_{modality}", queries=np.stack([texts[text] for _, text in queries]), gallery=rows,
        correct=[sorted(place for group in groups_of[text] for place in of_group[group]) for _, text in queries],
        clips=[n for n, _ in queries],
    )  # fmt: skip
    yield Direction(
        name=f"{modality}_to_text", queries=rows, gallery=np.stack([texts[text] for text in gallery]),
        correct=[sorted(texts_of[groups[n]]) for n in numbers.tolist()], clips=numbers.tolist(),
    )  # fmt: skip


def _by_group(clips: Sequence[int], groups: Mapping[int, int]) -> dict[int, list[int]]:
    """The positions in ``clips`` of the members of each group."""
    positions: dict[int, list[int]] = {}
    for position, n in enumerate(clips):
        positions.setdefault(groups[n], []).append(position)
    return positions
