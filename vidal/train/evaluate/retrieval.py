"""Retrieval in both directions between every two modalities of a set of clips.

Clips with the same first caption form a group, and all items of a query's group are correct. A text that clips of
several groups share, such as a common title, is correct for each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken
from vidal.train.data.text_views import COLUMNS, TextViews
from vidal.train.evaluate.embeddings import Embedded, embed_samples, embed_texts
from vidal.train.evaluate.metrics import Floats, retrieval_metrics
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Metrics of `retrieval`."""

    figures: dict[str, dict[str, Any]]
    """`retrieval_metrics` by direction (``text_to_depth``), with whether the pair was ``trained``."""
    broken: list[Broken]
    """Samples that could not be read."""
    clips: int
    """Clips that were evaluated."""


def retrieval(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: Mapping[str, Transform],
    views: TextViews, *, one_per_caption: bool = False, max_clips: int | None = None, workers: int = 0,
) -> Retrieval:  # fmt: skip
    """Evaluate every direction between text and the encoder's modalities, and between every two of these.

    ``numbers`` are sample indices; with ``one_per_caption`` only the first clip of each caption is used, and at most
    ``max_clips`` of them. Raises `SourceError` for fewer than two clips, or if the dataset has no readable samples of
    the encoder's modalities.
    """
    captions = {n: views.every(samples.part(n, COLUMNS)) for n in map(int, numbers)}
    chosen = [n for n in map(int, numbers) if captions[n]]
    if one_per_caption:
        # From the back, so that of the clips with one caption the first remains.
        chosen = list({captions[n][0]: n for n in reversed(chosen)}.values())[::-1]
    chosen = chosen[:max_clips]
    if len(chosen) < 2:
        raise SourceError(f"{samples.address}: {len(chosen)} clips with a text to evaluate on; at least two are needed")
    group_numbers: dict[str, int] = {}
    groups = {n: group_numbers.setdefault(captions[n][0], len(group_numbers)) for n in chosen}
    texts = embed_texts(encoder, [text for n in chosen for text in captions[n]])
    sides = {
        modality: embed_samples(encoder, samples, chosen, modality, transform, workers=workers)
        for modality, transform in transforms.items()
    }
    broken = [b for side in sides.values() for b in side.broken]
    sides = {modality: side for modality, side in sides.items() if len(side.numbers) > 1}
    if not sides:
        why = f"has {', '.join(samples.layers)}; the encoder supports {', '.join(transforms)}"
        if broken:
            why = f"no sample can be read, for example {broken[0].clip_id} ({broken[0].why})"
        raise SourceError(f"{samples.address}: {why}")
    figures: dict[str, dict[str, Any]] = {}
    for modality, side in sides.items():
        figures |= _with_text(modality, side, captions, texts, groups)
    for a, b in itertools.permutations(sides, 2):
        both, at_a, at_b = np.intersect1d(sides[a].numbers, sides[b].numbers, return_indices=True)
        of_group = _by_group(both.tolist(), groups)
        figures[f"{a}_to_{b}"] = retrieval_metrics(
            sides[a].rows[at_a], sides[b].rows[at_b], [of_group[groups[n]] for n in both.tolist()]
        )
    trained = set(encoder.logit_scale)
    for name, row in figures.items():
        a, b = name.split("_to_")
        row["trained"] = f"{a}-{b}" in trained or f"{b}-{a}" in trained
    return Retrieval(figures=figures, broken=broken, clips=len(chosen))


def _with_text(
    modality: str, side: Embedded, captions: Mapping[int, Sequence[str]], texts: Mapping[str, Floats],
    groups: Mapping[int, int],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Both directions of text and a modality: every caption is a query, the gallery has each distinct text once."""
    clips = [int(n) for n in side.numbers]
    of_group = _by_group(clips, groups)
    queries = [(n, text) for n in clips for text in captions[n]]
    gallery = {text: place for place, text in enumerate(dict.fromkeys(text for _, text in queries))}
    groups_of: dict[str, set[int]] = {}
    texts_of: dict[int, set[int]] = {}
    for n, text in queries:
        groups_of.setdefault(text, set()).add(groups[n])
        texts_of.setdefault(groups[n], set()).add(gallery[text])
    to_clips = retrieval_metrics(
        np.stack([texts[text] for _, text in queries]), side.rows,
        [sorted(place for group in groups_of[text] for place in of_group[group]) for _, text in queries],
        clusters=[n for n, _ in queries],
    )  # fmt: skip
    to_text = retrieval_metrics(
        side.rows, np.stack([texts[text] for text in gallery]), [sorted(texts_of[groups[n]]) for n in clips]
    )
    return {f"text_to_{modality}": to_clips, f"{modality}_to_text": to_text}


def _by_group(clips: Sequence[int], groups: Mapping[int, int]) -> dict[int, list[int]]:
    """The positions in ``clips`` of the members of each group."""
    positions: dict[int, list[int]] = {}
    for position, n in enumerate(clips):
        positions.setdefault(groups[n], []).append(position)
    return positions
