"""What clips are compared by: unit vectors, read through a memory map, or frame hashes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vidal.dataset.storage import Storage
from vidal.errors import SourceError, StorageError, one_line
from vidal.stages.near_duplicates import frame_distances, parse_hashes
from vidal.stages.vectors import Matrix, has_vector, matrix, mixed_models
from vidal.view.queries import ManifestTable, Numbers

Values = npt.NDArray[np.float64]
Part = tuple[Numbers, Matrix]


class Features(Protocol):
    """What some clips of a dataset are compared by."""

    numbers: Numbers
    """The clips (m,), by their numbers in the dataset."""

    def compared(self, place: int) -> Values:
        """Return the cosine, or the distance, of the clip at a place with each clip (m,); NaN if there is none."""

    def vectors(self, places: Numbers) -> Matrix:
        """Return vectors (k, dimensions) of the clips at some places."""


class Vectors:
    """Unit vectors, in a temporary file that is gone with the process: a pass over them needs no memory of its own."""

    def __init__(self, parts: Iterable[Part], place: str) -> None:
        """Raises `SourceError` where vectors differ in length, and `StorageError` if they do not fit on the disk."""
        numbers, width = [np.empty(0, np.int64)], 0
        with tempfile.TemporaryFile() as file:
            for some, rows in parts:
                there = has_vector(rows) & np.isfinite(rows).all(axis=1)
                if not there.any():
                    continue
                if rows.shape[1] != width and width:
                    raise mixed_models(place)
                width = rows.shape[1]
                numbers.append(some[there])
                try:
                    file.write(np.ascontiguousarray(rows[there], np.float32).data)
                    file.flush()
                except OSError as error:
                    raise StorageError(
                        f"{tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a larger disk"
                    ) from None
            self.numbers = np.concatenate(numbers)
            shape = (len(self.numbers), width)
            # The mapping outlives the file's descriptor.
            self._matrix: Matrix = (
                np.asarray(np.memmap(file, np.float32, "r", shape=shape)) if width else np.empty(shape, np.float32)
            )

    def compared(self, place: int) -> Values:
        return self.cosines(self._matrix[place])

    def cosines(self, vector: Matrix) -> Values:
        """Return the cosine of a unit vector (dimensions,) with each clip (m,)."""
        return np.asarray(self._matrix @ vector, np.float64)

    def vectors(self, places: Numbers) -> Matrix:
        return self._matrix[places]


class Hashes:
    """The perceptual hashes of the stored frames, compared frame by frame as the stage `duplicates` does."""

    def __init__(self, table: ManifestTable) -> None:
        hashes, _ = parse_hashes(table.texts("frame_hash").tolist())
        self.numbers = np.flatnonzero((hashes != 0).any(axis=1))
        self._hashes = hashes[self.numbers]

    def compared(self, place: int) -> Values:
        here = np.arange(len(self.numbers))
        bits = frame_distances(self._hashes, (np.full(len(here), place), here), min_frames=1)
        return np.where(np.isfinite(bits), bits, np.nan)

    def vectors(self, places: Numbers) -> Matrix:
        """Return for each bit (k, 64) its mean over the frames of a clip: -1 if it is never set, 1 if it always is."""
        hashes = self._hashes[places]
        # Big-endian, so that the bits of a hash come in the order of their weight on every machine.
        bits = np.unpackbits(hashes.astype(">u8").view(np.uint8), axis=1).reshape(*hashes.shape, 64)
        informative = hashes != 0
        signs = np.where(informative[..., None], np.float32(2) * bits - np.float32(1), np.float32(0))
        return np.asarray(signs.sum(axis=1) / informative.sum(axis=1, keepdims=True), np.float32)


def of_column(table: ManifestTable, name: str) -> Iterator[Part]:
    """Yield the numbers and vectors of the clips from a column of the manifests."""
    start = 0
    for column in table.batches(name):
        yield np.arange(start, start + len(column)), matrix(column, name)
        start += len(column)


def of_folder(storage: Storage, modality: str, ids: pa.Array) -> Iterator[Part]:
    """Yield the numbers and vectors of the clips of these ``ids`` from a folder of `vidal embed`.

    Raises `SourceError` for a file that holds no embeddings.
    """
    for name in (name for name in storage.names("") if name.endswith(".parquet")):
        place = f"{storage.address}/{name}"
        try:
            table = pq.read_table(pa.BufferReader(storage.read(name)), columns=["clip_id", "modality", "embedding"])
            found = table.filter(pc.equal(table["modality"], modality)).combine_chunks()
            numbers = np.asarray(pc.fill_null(pc.index_in(found["clip_id"], value_set=ids), -1), np.int64)
            rows = matrix(pa.concat_arrays(found["embedding"].chunks), place) if len(found) else None
        except (pa.ArrowException, KeyError, OSError, ValueError) as error:
            raise SourceError(f"{place}: cannot be read as embeddings: {one_line(error)}") from None
        if rows is not None:
            yield numbers[numbers >= 0], rows[numbers >= 0]
