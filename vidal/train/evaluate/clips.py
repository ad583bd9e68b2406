"""`choose` and `embed`: the clips of an evaluation, and their embeddings by all ranks and of several encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidal.errors import SourceError
from vidal.modality.modality import Transform
from vidal.reader.samples import Samples
from vidal.train.data.rows import Broken, Indices
from vidal.train.data.text_views import TextViews
from vidal.train.distributed import from_all, position
from vidal.train.evaluate.embeddings import Embedded, EncodeTexts, embed_samples, embed_texts
from vidal.train.evaluate.metrics import Floats
from vidal.train.towers.encoder import Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """The clips of an evaluation."""

    samples: Samples
    captions: Mapping[int, Sequence[str]]
    """The texts of each clip, by the index of its sample, in the order of the dataset."""
    groups: Mapping[int, int]
    """Number of each clip's group: clips with the same first text, which are all correct for each other."""

    def texts(self) -> list[str]:
        """Return the distinct texts."""
        return list(dict.fromkeys(text for of_clip in self.captions.values() for text in of_clip))


def choose(
    samples: Samples, numbers: Sequence[int], views: TextViews, *, one_per_caption: bool = False,
    max_clips: int | None = None,
) -> Clips:  # fmt: skip
    """Choose the clips that have a text of ``views`` from the sample indices ``numbers``.

    With ``one_per_caption`` only the first clip of each caption is used, and at most ``max_clips`` of them. Raises
    `SourceError` for fewer than two clips.
    """
    captions = {n: texts for n in map(int, numbers) if (texts := views.every(samples.part(n, views.columns)))}
    if one_per_caption:
        # From the back, so that of the clips with one caption the first remains.
        first = {captions[n][0]: n for n in reversed(captions)}
        captions = {n: texts for n, texts in captions.items() if first[texts[0]] == n}
    captions = dict(list(captions.items())[:max_clips])
    if len(captions) < 2:
        raise SourceError(
            f"{samples.address}: {len(captions)} clips with a text to evaluate on; at least two are needed"
        )
    group_numbers: dict[str, int] = {}
    groups = {n: group_numbers.setdefault(texts[0], len(group_numbers)) for n, texts in captions.items()}
    return Clips(samples=samples, captions=captions, groups=groups)


def embed(
    encoders: Sequence[Encoder], samples: Samples, numbers: Sequence[int], transforms: Mapping[str, Transform], *,
    batch_size: int = 32, workers: int = 0, is_bf16: bool = False,
) -> dict[str, Embedded]:  # fmt: skip
    """Embed the samples ``numbers`` in every modality that the dataset and ``transforms`` share; a collective.

    A modality in which fewer than two samples can be read is left out. Raises `SourceError` if none is left.
    """
    rank, ranks = position()
    sides: dict[str, Embedded] = {}
    broken: list[Broken] = []
    for modality, transform in transforms.items():
        own = embed_samples(
            encoders, samples, numbers, modality, transform, batch_size=batch_size, workers=workers, is_bf16=is_bf16,
            rank=rank, ranks=ranks,
        )  # fmt: skip
        parts = from_all([own])
        found = np.concatenate([part.numbers for part in parts])
        order = np.argsort(found, kind="stable")
        rows = [np.concatenate(of_encoder)[order] for of_encoder in zip(*(part.rows for part in parts), strict=True)]
        side = Embedded(numbers=found[order], rows=rows, broken=[b for part in parts for b in part.broken])
        broken += side.broken
        if len(side.numbers) > 1:
            sides[modality] = side
    if not sides:
        why = f"has {', '.join(samples.layers)}; the encoder supports {', '.join(transforms)}"
        if broken:
            why = f"no sample can be read, for example {broken[0].clip_id} ({broken[0].why})"
        raise SourceError(f"{samples.address}: {why}")
    return sides


def of_clips(clips: Clips, sides: Mapping[str, Embedded], encoder: int) -> dict[str, tuple[Indices, Floats]]:
    """Return the sample indices (n,) and the embeddings (n, d) of one of the encoders, of ``clips`` alone."""
    found = {}
    for modality, side in sides.items():
        is_own = np.asarray([n in clips.captions for n in side.numbers.tolist()], np.bool_)
        if is_own.sum() > 1:
            found[modality] = (side.numbers[is_own], side.rows[encoder][is_own])
    return found


@torch.no_grad()
def embed_all_texts(encode: EncodeTexts, texts: Sequence[str]) -> dict[str, Floats]:
    """Return the embedding (d,) of each distinct text, each rank encoding its share; a collective."""
    rank, ranks = position()
    distinct = sorted(set(texts))
    # As many on every rank: a pass of a sharded tower is a collective.
    own = [distinct[place % len(distinct)] for place in range(rank, -(-len(distinct) // ranks) * ranks, ranks)]
    return {text: row for part in from_all([embed_texts(encode, own)]) for text, row in part.items()}
