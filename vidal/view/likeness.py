"""`Likeness`: which clips are like a clip or a text, and where all lie on a map, by whatever there is to compare by."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset.dataset import Dataset
from vidal.dataset.embeddings import read_info
from vidal.dataset.storage import Storage
from vidal.errors import SourceError
from vidal.reader.where import no_column
from vidal.stages.vectors import mixed_models
from vidal.view.chart import Chart
from vidal.view.features import Features, Hashes, Values, Vectors, of_column, of_folder
from vidal.view.queries import ManifestTable, Numbers
from vidal.view.words import Words

_COLUMNS = {"video_embedding": "video", "caption_embedding": "caption"}
_FOLDER = "folder."
_MOST_VALUES = 7
"""The colours of the page's map, but for that of all other values."""
_CACHED_EXAMPLES, _CACHED_CHARTS = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How likeness is measured."""

    name: str
    text: str
    """What is compared, for people."""
    unit: str
    is_distance: bool = False
    """Whether the nearest clips have the smallest values."""
    takes_words: bool = False
    """Whether clips can be compared with words."""


class Likeness:
    """Compares the clips of one revision; its methods may be called from several threads."""

    def __init__(self, dataset: Dataset, table: ManifestTable, embeddings: Storage | None = None) -> None:
        """Compare by the embeddings of a folder, by those in the manifests, and by frame hashes, whatever is there.

        Nothing but the folder's ``embeddings.json`` is read before it is asked for. Raises `SourceError` if the folder
        has no embeddings.
        """
        self._table, self._folder = table, embeddings
        self._info = read_info(embeddings) if embeddings is not None else None
        self._words = Words(dataset, embeddings.address if embeddings is not None else "", self._info)
        self._computing = threading.RLock()
        self._loaded: dict[str, Features] = {}
        self._compared = functools.lru_cache(_CACHED_EXAMPLES)(self._compare)
        self._compared_with_words = functools.lru_cache(_CACHED_EXAMPLES)(self._compare_with_words)
        self._charts = functools.lru_cache(_CACHED_CHARTS)(
            lambda measure: Chart.of(self._features(measure.name), len(self._table))
        )

    def measures(self) -> list[Measure]:
        """Return what the clips can be compared by, the best first."""
        with self._computing:
            return self._measures

    @functools.cached_property
    def _measures(self) -> list[Measure]:
        found = []
        if self._info is not None:
            of = f"embeddings of {self._info.checkpoint}"
            found += [
                Measure(name=f"{_FOLDER}{m}", text=f"{m} {of}", unit="cosine", takes_words=self._words.has_folder)
                for m in self._info.modalities
            ]
        if self._models:
            of = f"embeddings of {', '.join(self._models)}"
            columns = ((name, kind) for name, kind in _COLUMNS.items() if name in self._table.schema.names)
            found += [
                Measure(name=name, text=f"{kind} {of}", unit="cosine", takes_words=self._words.has_columns)
                for name, kind in columns
            ]
        if self._table.has_any("frame_hash"):
            unit = "differing bits of 64"
            found.append(Measure(name="frame_hash", text="perceptual hashes of frames", unit=unit, is_distance=True))
        return found

    @functools.cached_property
    def _models(self) -> list[str]:
        """The models that made the embeddings in the manifests."""
        if not self._table.has_any("embedding_model"):
            return []
        return sorted({model for model in self._table.texts("embedding_model") if model})

    @functools.cached_property
    def _ids(self) -> pa.Array:
        return pa.array(self._table.texts("clip_id"), pa.string())

    def measure(self, name: str) -> Measure:
        """Return the measure of a name, or the best one for none; raises `SourceError` if there is none."""
        found = {measure.name: measure for measure in self.measures()}
        if not found:
            raise SourceError(
                "nothing to compare clips by: add the stage `fingerprints` or `embeddings` to the recipe, "
                "or start the viewer as: vidal view DIR --embeddings FOLDER, with the FOLDER of `vidal embed`"
            )
        if name and name not in found:
            raise SourceError(f"by={name[:40]}: clips can be compared by {', '.join(found)}")
        return found[name or next(iter(found))]

    def nearest(self, measure: Measure, clip_id: str, numbers: Numbers) -> tuple[Numbers, Values]:
        """Return those of some clips that can be compared with a clip, the nearest first, with cosine or distance.

        The clip itself is left out. Raises `SourceError` if there is no such clip, or it has nothing to compare by.
        """
        with self._computing:
            return _ordered(self._compared(measure, clip_id), numbers, is_distance=measure.is_distance)

    def nearest_to_words(self, measure: Measure, words: str, numbers: Numbers) -> tuple[Numbers, Values]:
        """Return those of some clips that can be compared with words, the nearest first, with the cosine.

        Raises `SourceError` if their embeddings, or the model that made them, cannot be compared with words here.
        """
        if not measure.takes_words:
            raise SourceError(f"{measure.text}: cannot be compared with words here; search in the texts")
        with self._computing:
            return _ordered(self._compared_with_words(measure, words), numbers)

    def chart(self, measure: Measure) -> Chart:
        """Return where all clips lie."""
        with self._computing:
            return self._charts(measure)

    def drawn(self, measure: Measure, colour: str) -> dict[str, Any]:
        """Return the clips of the map with the values of a category column, of which the rarest are ``others``.

        Raises `SourceError` for a column that is no category.
        """
        if colour not in self._table.categories():
            raise SourceError(f"colour: {no_column(colour, self._table.categories())}")
        chart = self.chart(measure)
        texts = ["none" if value is None else str(value) for value in self._table.texts(colour)[chart.drawn]]
        counted = Counter(texts)
        # Of values that are as frequent, the first in the alphabet.
        frequent = sorted(counted, key=lambda value: (-counted[value], value))[:_MOST_VALUES]
        values = [{"value": value, "clips": counted[value]} for value in frequent]
        if (others := len(texts) - sum(counted[value] for value in frequent)) > 0:
            values.append({"value": "others", "clips": others})
        place_of = {value: place for place, value in enumerate(frequent)}
        # In single precision, which is written with the digits it has and no more.
        x, y = (column.astype(str).astype(float).tolist() for column in chart.points[chart.drawn].T)
        places = [self._table.place(number) for number in chart.drawn.tolist()]
        return {
            "clips": int(np.isfinite(chart.points[:, 0]).sum()), "drawn": len(chart.drawn),
            "variance_share": round(chart.variance_share, 4), "x": x, "y": y,
            "clip": self._ids.take(pa.array(chart.drawn)).to_pylist(), "shard": [shard for shard, _ in places],
            "values": values, "value": [place_of.get(text, _MOST_VALUES) for text in texts],
        }  # fmt: skip

    def _compare(self, measure: Measure, clip_id: str) -> Values:
        """Return the cosine, or the distance, of a clip with each clip (n,); NaN if there is none, and for itself."""
        number = pc.index(self._ids, clip_id).as_py()
        if number < 0:
            raise SourceError(f"no clip {clip_id[:80]}")
        features = self._features(measure.name)
        places = np.flatnonzero(features.numbers == number)
        if not len(places):
            raise SourceError(f"clip {clip_id}: has nothing to compare by {measure.text}")
        values = np.full(len(self._table), np.nan)
        values[features.numbers] = features.compared(int(places[0]))
        values[number] = np.nan
        return values

    def _compare_with_words(self, measure: Measure, words: str) -> Values:
        features = self._features(measure.name)
        assert isinstance(features, Vectors), "a measure that takes words"
        is_column = measure.name in _COLUMNS
        vector = self._words.of_columns(words, self._models) if is_column else self._words.of_folder(words)
        values = np.full(len(self._table), np.nan)
        values[features.numbers] = features.cosines(vector)
        return values

    def _features(self, name: str) -> Features:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Features:
        if name == "frame_hash":
            return Hashes(self._table)
        if name in _COLUMNS:
            if len(self._models) > 1:
                raise mixed_models(name)
            return Vectors(of_column(self._table, name), name)
        assert self._folder is not None, "a measure of the folder"
        vectors = Vectors(of_folder(self._folder, name.removeprefix(_FOLDER), self._ids), self._folder.address)
        if not len(vectors.numbers):
            raise SourceError(
                f"{self._folder.address}: has no embedding of a clip of this dataset; run `vidal embed` with it"
            )
        return vectors


def _ordered(of_all: Values, numbers: Numbers, *, is_distance: bool = False) -> tuple[Numbers, Values]:
    """Return those of some clips that have a value, and the values, the nearest first."""
    values = of_all[numbers]
    numbers, values = numbers[~np.isnan(values)], values[~np.isnan(values)]
    order = np.argsort(values if is_distance else -values, kind="stable")
    return numbers[order], values[order]
