"""The held-out clips of an ablation: the same for every arm, and near-duplicates of none are trained on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

import vidal
from vidal.ablate.arms import EvaluatedOn
from vidal.errors import RecipeError, SourceError
from vidal.reader.samples import Samples
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.clips import Clips, choose
from vidal.train.material import clusters_of, held_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Queries:
    """The clips that all arms are evaluated on."""

    clips: Clips
    units: Mapping[str, int]
    """The unit of each evaluated clip, by id. Clips that share a near-duplicate cluster or a first text are of one:
    they are hit or missed together."""
    untrained: list[str]
    """Ids of the clips that no arm trains on: those that are held out, and all that are near-duplicates of them."""


def hold_out(data: Sequence[str], evaluate: EvaluatedOn, views: TextViews, share: float) -> Queries:
    """Choose the held-out clips; ``data`` are the datasets that any arm trains on, without a condition.

    Of one of these, whole near-duplicate clusters are held out, a ``share`` of them; of another dataset, all clips are
    evaluated, and what they have in common with ``data`` is not trained on. Raises `RecipeError` if nothing is
    held out, `SourceError` for fewer than two clips.
    """
    address = evaluate.data or data[0]
    is_trained_on = address in data
    if is_trained_on and not share:
        raise RecipeError(f"{address}: all of its clips are trained on: set data.heldout, or evaluate.data")
    opened = {name: vidal.open(name) for name in dict.fromkeys([*data, address])}
    groups = _joined(tie for samples in opened.values() for tie in _ties(samples))
    samples = opened[address]
    if evaluate.where is not None:
        samples = samples.select(evaluate.where)
    ids = [samples.clip_id(i) for i in range(len(samples))]
    is_chosen = held_out(clusters_of(samples), share) if is_trained_on else np.ones(len(ids), np.bool_)
    clips = choose(samples, np.flatnonzero(is_chosen).tolist(), evaluate.views or views, max_clips=evaluate.max_clips)
    held = {groups["clip", ids[n]] for n in clips.captions}
    everything = dict.fromkeys(one.clip_id(i) for one in opened.values() for i in range(len(one)))
    untrained = [clip for clip in everything if groups["clip", clip] in held]
    units = _joined((("group", groups["clip", ids[n]]), ("text", clips.groups[n])) for n in clips.captions)
    numbers = {unit: place for place, unit in enumerate(sorted(set(units.values())))}
    if len(numbers) < 2:
        raise SourceError(f"{address}: all {len(clips.captions)} held-out clips share a text or are near-duplicates")
    return Queries(
        clips=clips, units={ids[n]: numbers[units["text", clips.groups[n]]] for n in clips.captions},
        untrained=sorted(untrained),
    )  # fmt: skip


def _ties(samples: Samples) -> Iterable[tuple[Hashable, Hashable]]:
    """What each clip belongs together with: the first clip of its cluster, and any other clip of the same file."""
    files = samples.column("source_sha256").to_pylist()
    for i, (cluster, file) in enumerate(zip(clusters_of(samples), files, strict=True)):
        yield ("clip", samples.clip_id(i)), ("clip", cluster)
        if file:
            yield ("clip", samples.clip_id(i)), ("file", file)


def _joined(ties: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, int]:
    """Return the number of the group of each thing that is tied to another, directly or through others."""
    places: dict[Hashable, int] = {}
    edges = np.asarray([[places.setdefault(end, len(places)) for end in tie] for tie in ties], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges), np.bool_), edges.T), shape=(len(places), len(places)))
    labels = connected_components(graph, directed=False)[1]
    return {thing: int(labels[place]) for thing, place in places.items()}
