"""`Teachers`: stored embeddings of other encoders, from which a run distils (dataset reinforcement; Vasu et al., 2024).

`vidal reinforce` writes them once, into the dataset; a step looks up those of its clips and texts.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from vidal.dataset.embeddings import (
    TEACHER_NAME,
    TEXT,
    EmbeddingsInfo,
    files,
    is_finite,
    missing,
    read,
    read_info,
    text_key,
)
from vidal.dataset.storage import Storage
from vidal.errors import RecipeError, SourceError
from vidal.train.data.loader import Batch
from vidal.train.loss import Taught
from vidal.train.material import Material
from vidal.train.recipe import DistilSettings, Pair, TrainRecipe

_KEY = np.dtype("S16")


@dataclass(frozen=True, slots=True)
class _Stored:
    """The embeddings (n, d) of one modality, by their keys (n,), which are sorted."""

    keys: npt.NDArray[np.bytes_]
    rows: npt.NDArray[np.float16 | np.float32]

    def find(self, wanted: npt.NDArray[np.bytes_]) -> tuple[Tensor, Tensor]:
        """Return the rows (b, d) in float32, zeros for those that are not there, and which are there (b,)."""
        # A key above all others would be placed behind the last.
        places = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        known = self.keys[places] == wanted
        rows = np.where(known[:, None], self.rows[places], 0).astype(np.float32)
        return torch.from_numpy(rows), torch.from_numpy(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Teacher:
    identity: str
    sides: Mapping[str, _Stored]
    scales: Mapping[Pair, float]


class Teachers:
    """The teachers of a run, in memory on each rank."""

    def __init__(self, teachers: Sequence[_Teacher], settings: DistilSettings) -> None:
        self._teachers, self._settings = teachers, settings

    @classmethod
    def load(cls, settings: DistilSettings, recipe: TrainRecipe, data: Material) -> Teachers:
        """Read what the pairs of a recipe need.

        Raises `SourceError` for embeddings that are not of the run's datasets and texts, and `RecipeError` for a pair
        that a teacher cannot judge.
        """
        folders: dict[str, list[tuple[Storage, EmbeddingsInfo]]] = {}
        for storage in (storage for teacher in settings.teachers for storage in _places(teacher, data)):
            info = read_info(storage)
            if lacking := missing(storage, info):
                raise SourceError(f"distil: {storage.address}: {lacking}; repeat the command that writes them")
            folders.setdefault(f"{info.identity} {info.preprocessing}", []).append((storage, info))
        teachers = [_read(identity, parts, recipe, settings, data) for identity, parts in folders.items()]
        return cls(teachers, settings)

    def identity(self) -> list[dict[str, Any]]:
        """Return what must be the same when a run is resumed."""
        identities = []
        for teacher in self._teachers:
            content = hashlib.sha256()
            for name, stored in sorted(teacher.sides.items()):
                # Where they lie: as bytes, the rows would be in memory once more.
                for part in (name.encode(), stored.keys.data, stored.rows.data):
                    content.update(part)
            identities.append({"encoder": teacher.identity, "content": content.hexdigest()})
        return identities

    def of(self, pair: Pair, batch: Batch) -> list[Taught]:
        """Return what each teacher says of the rows of a batch."""
        found = []
        for teacher in self._teachers:
            (image, has_image), (text, has_text) = (self._side(teacher, side, batch) for side in pair)
            found.append(Taught(image=image, text=text, known=has_image & has_text, logit_scale=teacher.scales[pair]))
        return found

    def _side(self, teacher: _Teacher, side: str, batch: Batch) -> tuple[Tensor, Tensor]:
        texts = map(text_key, batch.texts) if side == TEXT else None
        device = batch.valid.device
        found = teacher.sides[_taught(teacher.sides, side, self._settings)].find(_keys(batch.clip_ids, texts))
        # From pinned memory, as the CPU would wait for any other copy.
        rows, known = ((x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True) for x in found)
        return rows, known


def _places(teacher: str, data: Material) -> list[Storage]:
    """The folders of a teacher: the one that is named, or of each dataset that is trained on the one of that name."""
    if not TEACHER_NAME.fullmatch(teacher):
        return [Storage(teacher)]
    for samples in data.samples:
        if teacher not in samples.teachers:
            there = f"only {', '.join(samples.teachers)}" if samples.teachers else "no other either"
            raise SourceError(
                f"distil: {samples.address} has no teacher `{teacher}`, {there}; `vidal reinforce {samples.address} "
                f"--checkpoint C --name {teacher}` writes it (a folder is named with a slash: ./{teacher})"
            )
    return [samples.teachers[teacher] for samples in data.samples]


def _taught(has: Iterable[str], side: str, settings: DistilSettings) -> str:
    """The modality of a teacher that stands for a side of the run."""
    return side if side in has else settings.instead.get(side, side)


def _read(
    identity: str, parts: Sequence[tuple[Storage, EmbeddingsInfo]], recipe: TrainRecipe, settings: DistilSettings,
    data: Material,
) -> _Teacher:  # fmt: skip
    (storage, first), *_ = parts
    has = {*first.modalities, *([TEXT] if first.views else [])}
    stands = {side: _taught(has, side, settings) for pair in recipe.pair_settings() for side in pair}
    for side, other in stands.items():
        if other not in has:
            mend = "write it with --views" if side == TEXT else f"set distil.instead: {{{side}: …}}"
            raise RecipeError(f"distil: {storage.address} has no {other}, only {', '.join(sorted(has))}; {mend}")
    drawn = {view for view, weight in recipe.text.views.weights.items() if weight > 0}
    for part, info in parts:
        if TEXT in stands and (lacks := drawn - set(info.views)):
            raise SourceError(
                f"distil: {part.address} has no text view {min(lacks)}, which text.views draws; write embeddings "
                f"with --views {','.join(sorted(drawn))}"
            )
    for samples in data.samples:
        if samples.fingerprint not in {info.fingerprint for _, info in parts}:
            raise SourceError(
                f"distil: no embeddings of {samples.address} by {first.checkpoint}; `vidal reinforce` makes them"
            )
    scales: dict[Pair, float] = {}
    for pair in recipe.pair_settings():
        a, b = (stands[side] for side in pair)
        own = first.logit_scale.get(f"{a}-{b}", first.logit_scale.get(f"{b}-{a}"))
        if settings.temperature is None and own is None:
            raise RecipeError(f"distil: {storage.address} has no temperature for {a}-{b}; set distil.temperature")
        scales[pair] = 1 / settings.temperature if settings.temperature is not None else float(own or 1)
    sides = _rows(parts, set(stands.values()))
    for name in sorted(set(sides) - {TEXT}):
        trained = pa.chunked_array(
            [c for samples, mask in zip(data.samples, data.training, strict=True)
             for c in samples.column("clip_id").filter(pa.array(mask)).chunks],
            pa.string(),
        )  # fmt: skip
        known = sides[name].find(_keys(trained.to_pylist()))[1]
        if not known.any():
            raise SourceError(f"distil: {storage.address} has no {name} embedding of any clip that is trained on")
    return _Teacher(identity=identity, sides=sides, scales=scales)


def _rows(parts: Sequence[tuple[Storage, EmbeddingsInfo]], names: Collection[str]) -> dict[str, _Stored]:
    found: dict[str, list[tuple[npt.NDArray[np.bytes_], npt.NDArray[Any]]]] = {name: [] for name in names}
    for storage, _ in parts:
        for file in files(storage):
            table = read(storage, file)
            if not is_finite(table):
                raise SourceError(f"{storage.address}/{file}: cannot be read as embeddings (some are not finite)")
            for name in names:
                part = table.filter(pc.equal(table["modality"], name))
                values = part["embedding"].combine_chunks().flatten().to_numpy()
                texts = part["text"].to_pylist() if name == TEXT else None
                width = part.schema.field("embedding").type.list_size
                found[name].append((_keys(part["clip_id"].to_pylist(), texts), values.reshape(-1, width)))
    return {name: _sorted(of_files, parts[0][0].address) for name, of_files in found.items()}


def _sorted(of_files: Sequence[tuple[npt.NDArray[np.bytes_], npt.NDArray[Any]]], place: str) -> _Stored:
    if not any(len(keys) for keys, _ in of_files):
        raise SourceError(f"{place}: holds no embedding; repeat the command that writes them")
    keys = np.concatenate([keys for keys, _ in of_files])
    if len({rows.shape[1] for _, rows in of_files}) > 1:
        raise SourceError(f"{place}: has embeddings of several lengths")
    order = np.argsort(keys)
    if (keys[order][1:] == keys[order][:-1]).any():
        raise SourceError(
            f"{place}: a clip has two embeddings; name each folder once, of datasets with no clip in common"
        )
    return _Stored(keys[order], np.concatenate([rows for _, rows in of_files])[order])


def _keys(clip_ids: Sequence[str | None], texts: Iterable[str] | None = None) -> npt.NDArray[np.bytes_]:
    """The keys (n,) of clips, or of their texts by their `text_key`."""
    named = (f"{clip}\0{text}" for clip, text in zip(clip_ids, texts or itertools.repeat(""), strict=False))
    return np.array([hashlib.sha256(name.encode()).digest()[:16] for name in named], _KEY)
