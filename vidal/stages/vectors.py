"""Embeddings in the columns of a manifest, as matrices; and what decisions by similarity do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vidal.clip import schema
from vidal.errors import SourceError
from vidal.record import Column, fields
from vidal.rows import TableLike

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK, _OTHERS = 2048, 16384
"""Vectors that are compared at once, and those that they are compared with: 128 MB of cosines."""
_ITERATIONS = 20
_DRAWN_PER_CENTRE = 50


def kept_clips(rows: TableLike, names: Sequence[str], place: str) -> tuple[pa.Table, dict[str, Matrix]]:
    """Return the rows that a decision is about, without the embeddings, and the named embeddings by column.

    They are (clips, dimensions), zeros for a clip without one. Raises `SourceError` where they differ in length.
    """
    tables = [pa.table({f.name: pa.array([], f.type) for f in rows.schema if f.name not in names})]
    parts: dict[str, list[Matrix]] = {name: [] for name in names}
    for batch in rows.to_batches():
        kept = pa.Table.from_batches([batch]).filter(pc.equal(batch["status"], "kept"))
        # One part at a time: as lists of Arrow they take twice the memory.
        for name in names:
            parts[name].append(matrix(kept[name].combine_chunks(), place))
        tables.append(kept.drop_columns(list(names)))
    return pa.concat_tables(tables), {name: _joined(of, place) for name, of in parts.items()}


def matrix(column: pa.Array, place: str) -> Matrix:
    """Return the unit vectors of a column of lists (clips, dimensions), zeros where one is missing or empty.

    Raises `SourceError` where they differ in length; ``place`` says of what.
    """
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)
    width = int(lengths.max(initial=0))
    if not np.isin(lengths, (0, width)).all():
        raise mixed_models(place)
    vectors = np.zeros((len(lengths), width), np.float32)
    if width:
        rows = np.asarray(column.flatten(), np.float32).reshape(-1, width)
        # Stored with few digits, they are of unit length almost.
        # The bound leaves a vector of zeros, which counts as none, as it is.
        vectors[lengths > 0] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return vectors


def _joined(parts: Sequence[Matrix], place: str) -> Matrix:
    width = max((part.shape[1] for part in parts), default=0)
    if any(part.shape[1] not in (0, width) for part in parts):
        raise mixed_models(place)
    wide = [part if part.shape[1] else np.zeros((len(part), width), np.float32) for part in parts]
    return np.concatenate([np.empty((0, width), np.float32), *wide])


def mixed_models(place: str) -> SourceError:
    """Return the error of embeddings that cannot be compared with each other."""
    return SourceError(f"{place}: the embeddings are of several models; make all of them anew with one")


def verdicts(rows: Sequence[Mapping[str, Any]], declared: Mapping[str, Column]) -> pa.Table:
    """Return the rows of a decision as a table of typed columns, as one of nulls alone would have no type."""
    known = schema()
    names = ("clip_id", "status", "reason", "detail", "decided_value", "decided_limit")
    return pa.Table.from_pylist(rows, schema=pa.schema([*(known.field(name) for name in names), *fields(declared)]))


def has_vector(vectors: Matrix) -> Flags:
    """Return which clips have an embedding (clips,)."""
    return np.asarray((vectors != 0).any(axis=1))


def nearest(vectors: Matrix, others: Matrix) -> tuple[Floats, Ints]:
    """Return the cosine (clips,) of each vector with the nearest of some others, and its place; -1 if there is none."""
    cosines, places = np.full(len(vectors), -1, np.float32), np.full(len(vectors), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        here = slice(start, start + BLOCK)
        for first in range(0, len(others), _OTHERS):
            block = vectors[here] @ others[first : first + _OTHERS].T
            best = block.argmax(axis=1)
            values = block[np.arange(len(best)), best]
            # Of equals the first is kept, wherever blocks end.
            is_nearer = values > cosines[here]
            cosines[here] = np.where(is_nearer, values, cosines[here])
            places[here] = np.where(is_nearer, first + best, places[here])
    return cosines, places


def unlike(vectors: Matrix, order: Ints, limit: float) -> tuple[Floats, Ints]:
    """Go through vectors in an order, and leave out each that has a cosine of at least ``limit`` with one that stayed.

    Returns for each vector (clips,) its cosine with the nearest of those that stayed before it, and the place of that
    one; the place is -1 for a vector that stays. The comparison is exact, of each vector with all that stay.
    """
    cosines, places = np.full(len(vectors), -1, np.float32), np.full(len(vectors), -1, np.int64)
    stayed = np.empty(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        cosines[block], found = nearest(vectors[block], vectors[stayed])
        places[block] = np.where(cosines[block] >= limit, stayed[found] if len(stayed) else -1, -1)
        within = vectors[block] @ vectors[block].T
        for number, clip in enumerate(block):
            if places[clip] >= 0:
                continue
            behind = block[number + 1 :]
            row = within[number, number + 1 :]
            is_nearer = row > cosines[behind]
            cosines[behind[is_nearer]] = row[is_nearer]
            places[behind[is_nearer & (row >= limit)]] = clip
        stayed = np.concatenate([stayed, block[places[block] < 0]])
    return cosines, places


def clusters(vectors: Matrix, count: int, seed: int) -> Ints:
    """Return the cluster of each vector (clips,): k-means on the sphere, from a seed; clips of no vector get -1."""
    members = np.flatnonzero(has_vector(vectors))
    random, found = np.random.default_rng(seed), np.full(len(vectors), -1, np.int64)
    if not len(members):
        return found
    drawn = vectors[random.permutation(members)[: count * _DRAWN_PER_CENTRE]]
    centres = _spread_out(drawn, min(count, len(members)), random)
    for _ in range(_ITERATIONS):
        _, owner = nearest(drawn, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, drawn)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre that no vector is nearest to stays where it is.
        moved = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    found[members] = nearest(vectors[members], centres)[1]
    return found


def _spread_out(vectors: Matrix, count: int, random: np.random.Generator) -> Matrix:
    """Return vectors to start from, each drawn by its distance to those before it (k-means++)."""
    chosen = [int(random.integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.maximum(0, 1 - vectors @ vectors[chosen[-1]]).astype(np.float64))
        total = distance.sum()
        chosen.append(int(random.choice(len(vectors), p=distance / total) if total else random.integers(len(vectors))))
    return vectors[chosen]
