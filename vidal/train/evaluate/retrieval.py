"""Retrieval between every two modalities that a set of clips has, in both directions.

Clips whose first captions are the same text are one group, and a query's right answers are all that its group has.
A text that clips of several groups share (a title, say) is right for each of them: where two clips are described alike,
either is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken
from vidal.train.data.text_views import COLUMNS, TextViews
from vidal.train.evaluate.embeddings import Embedded, embed_samples, embed_texts
from vidal.train.evaluate.metrics import retrieval_metrics
from vidal.train.towers.encoder import Encoder

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """What an evaluation gave: figures by direction, and the samples that could not be read."""

    figures: dict[str, dict[str, Any]]
    broken: list[Broken]
    clips: int


def retrieval(
    encoder: Encoder, samples: Samples, numbers: Sequence[int], transforms: Mapping[str, Transform],
    views: TextViews, *, one_per_caption: bool = False, max_clips: int | None = None, workers: int = 0,
) -> Retrieval:  # fmt: skip
    """Every direction between text and the encoder's modalities, and between each two of these.

    With ``one_per_caption`` the first clip of each caption stands for all that share it. Raises `SourceError` for fewer
    than two clips, or where no modality of the encoder is in the data set.
    """
    captions = {n: views.every(samples.part(n, COLUMNS)) for n in map(int, numbers)}
    chosen = [n for n in map(int, numbers) if captions[n]]
    if one_per_caption:
        chosen = list({captions[n][0]: n for n in reversed(chosen)}.values())[::-1]
    chosen = chosen[:max_clips]
    if len(chosen) < 2:
        raise SourceError(f"{samples.address}: {len(chosen)} clips with a text to evaluate on; two are the least")
    groups = dict(zip(chosen, _groups([captions[n] for n in chosen]), strict=True))
    texts = embed_texts(encoder, [text for n in chosen for text in captions[n]])
    sides = {
        modality: embed_samples(encoder, samples, chosen, modality, transform, workers=workers)
        for modality, transform in transforms.items()
    }
    broken = [b for side in sides.values() for b in side.broken]
    sides = {modality: side for modality, side in sides.items() if len(side.numbers) > 1}
    if not sides:
        raise SourceError(_why_none(samples, transforms, broken))
    figures: dict[str, dict[str, Any]] = {}
    for modality, side in sides.items():
        figures |= _with_text(modality, side, captions, texts, groups)
    for a, b in itertools.permutations(sides, 2):
        figures[f"{a}_to_{b}"] = _between(sides[a], sides[b], groups)
    trained = set(encoder.logit_scale)
    for name, row in figures.items():
        a, b = name.split("_to_")
        row["trained"] = f"{a}-{b}" in trained or f"{b}-{a}" in trained
    return Retrieval(figures=figures, broken=broken, clips=len(chosen))


def _why_none(samples: Samples, transforms: Mapping[str, Transform], broken: Sequence[Broken]) -> str:
    if broken:
        return f"{samples.address}: no sample can be read, for one {broken[0].clip_id} ({broken[0].why})"
    return f"{samples.address}: has {', '.join(samples.layers)}; the encoder knows {', '.join(transforms)}"


def _groups(captions: Sequence[Sequence[str]]) -> list[int]:
    """A number for each clip, the same for clips whose first captions are the same."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(texts[0], len(numbers)) for texts in captions]


def _with_text(
    modality: str, side: Embedded, captions: Mapping[int, Sequence[str]], texts: Mapping[str, Floats],
    groups: Mapping[int, int],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Text to a modality and back: a text query for each caption of a clip, each distinct text once in the gallery."""
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


def _between(a: Embedded, b: Embedded, groups: Mapping[int, int]) -> dict[str, Any]:
    """Clips that have both, one modality asked for the other."""
    both = sorted(set(map(int, a.numbers)) & set(map(int, b.numbers)))
    at_a, at_b = ({int(n): k for k, n in enumerate(side.numbers)} for side in (a, b))
    of_group = _by_group(both, groups)
    return retrieval_metrics(
        a.rows[[at_a[n] for n in both]], b.rows[[at_b[n] for n in both]], [of_group[groups[n]] for n in both]
    )


def _by_group(clips: Sequence[int], groups: Mapping[int, int]) -> dict[int, list[int]]:
    """Places of the clips of each group."""
    found: dict[int, list[int]] = {}
    for place, n in enumerate(clips):
        found.setdefault(groups[n], []).append(place)
    return found
