"""`ManifestTable`: queries over the manifests of one revision, evaluated by DuckDB on the Parquet files themselves.

A row is known by its number in the order of the plan. A query gives an array of such numbers, as a million clips may
match, and only the rows of one page are read.
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vidal.dataset import flags, manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.local_manifests import create_view, local_manifests
from vidal.errors import SourceError
from vidal.reader.where import no_column, parsed

SEARCHED = ("title", "clean_title", "caption", "video_caption", "sound_caption", "transcript", "ocr_text")
"""Columns that a text is searched in."""
_CACHED_SELECTIONS, _CACHED_COLUMNS = 16, 12
_FLAGGED = ", ".join(
    f"clip_id IN (SELECT clip_id FROM flagged WHERE flag = '{name}') AS {flags.PREFIX}{name}" for name in flags.NAMES
)

Numbers = npt.NDArray[np.int64]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which clips, in which order; without a ``sort`` column in the order of the plan."""

    where: str = ""
    """Condition on manifest columns and on flags, as everywhere in vidal."""
    search: str = ""
    """Text that one of the texts contains, in upper or lower case."""
    sort: str = ""
    is_descending: bool = False
    flagged: frozenset[tuple[str, str]] = frozenset()
    """Flags with the clips that have them now, for a condition on flags."""


def _cached(most: int, compute: Callable[..., Value]) -> Callable[..., Value]:
    """Keep the last results; what one thread computes another waits for, and does not compute again."""
    making = threading.Lock()

    @functools.lru_cache(most)
    def cells(*key: Any) -> tuple[threading.Lock, list[Value]]:
        return threading.Lock(), []

    def get(*key: Any) -> Value:
        with making:
            computing, results = cells(*key)
        with computing:
            if not results:
                results.append(compute(*key))
            return results[0]

    return get


class ManifestTable:
    """The committed rows of a dataset as of now; its methods may be called from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        """Open the manifests; those in an object store are copied to a temporary folder first.

        Raises `SourceError` if no shard is committed, and `StorageError`.
        """
        self._files = local_manifests(dataset, self)
        self._connection = duckdb.connect()
        # A condition reads the manifests and nothing else, and cannot change that.
        self._connection.execute("SET allowed_directories = ?", [[str(self._files[0].parent)]])
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET parquet_metadata_cache = true")
        self._connection.execute("SET lock_configuration = true")
        self.schema = create_view(self._connection, dataset, self._files, "clips")
        self.select = _cached(_CACHED_SELECTIONS, self._select)
        self.numbers = _cached(_CACHED_COLUMNS, self._numbers)
        self.is_kept = _cached(1, self._is_kept)
        self._counted = _cached(1, self._count)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def _starts(self) -> Numbers:
        """The number of the first row of each file, and of all rows."""
        return self._counted()

    def _count(self) -> Numbers:
        # By DuckDB, which keeps the footers that it reads for the queries to come.
        counted = self._cursor().sql(
            "SELECT file_name, num_rows FROM parquet_file_metadata(?)", params=[list(map(str, self._files))]
        )
        rows = dict(counted.fetchall())
        return np.cumsum([0, *(rows[str(file)] for file in self._files)])

    @functools.cached_property
    def _file_of_shard(self) -> Numbers:
        shards = [int(file.stem) for file in self._files]
        places = np.zeros(max(shards) + 1, np.int64)
        places[shards] = np.arange(len(shards))
        return places

    def outcomes(self) -> list[dict[str, Any]]:
        """Return how many ``clips`` have each status, stage and reason."""
        counted = self._cursor().sql(
            "SELECT status, stage, reason, count(*)::BIGINT AS clips FROM clips GROUP BY ALL ORDER BY ALL"
        )
        names = counted.columns
        return [dict(zip(names, row, strict=True)) for row in counted.fetchall()]

    def clusters(self, most: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many near-duplicate clusters have several clips, and the largest: clips, and those kept."""
        if "cluster" not in self.schema.names:
            return 0, []
        found = self._cursor().sql(
            "SELECT cluster, count(*)::BIGINT AS clips, count(*) FILTER (status = 'kept')::BIGINT AS kept, "
            "count(*) OVER ()::BIGINT AS clusters FROM clips WHERE cluster IS NOT NULL "
            f"GROUP BY cluster HAVING count(*) > 1 ORDER BY clips DESC, cluster LIMIT {most}"
        )
        rows = found.fetchall()
        return rows[0][-1] if rows else 0, [dict(zip(("cluster", "clips", "kept"), row, strict=False)) for row in rows]

    def _select(self, query: Query) -> Numbers:
        """Return the numbers of the clips of a query, in its order.

        Raises `SourceError` for an invalid condition or an unknown column.
        """
        if query == Query():
            return np.arange(len(self))
        cursor = self._cursor()
        rows, columns = cursor.view("clips"), list(self.schema.names)
        if flags.PREFIX in query.where.lower():
            flag, clip_id = (pa.array([pair[part] for pair in query.flagged], pa.string()) for part in (0, 1))
            cursor.register("flagged", pa.table({"flag": flag, "clip_id": clip_id}))
            rows = cursor.sql(f"SELECT *, {_FLAGGED} FROM clips")
            columns += [f"{flags.PREFIX}{name}" for name in flags.NAMES]
        if query.search:
            rows = rows.filter(self._contains(query.search))
        if query.sort:
            by = duckdb.ColumnExpression(self.sortable(query.sort))
            rows = rows.sort((by.desc() if query.is_descending else by.asc()).nulls_last())
        if not query.where:
            return self._numbered(rows)
        with parsed(query.where, columns) as meets:
            return self._numbered(rows.filter(meets))

    def _numbered(self, rows: Any) -> Numbers:
        places = rows.project("shard, file_row_number").fetchnumpy()
        return self.numbered(places["shard"], places["file_row_number"])

    def numbered(self, shards: Numbers, rows: Numbers) -> Numbers:
        """Return the numbers of the clips at these rows of these shards."""
        return np.asarray(self._starts[self._file_of_shard[shards]] + rows)

    def _contains(self, text: str) -> Any:
        call = duckdb.FunctionExpression
        wanted = call("lower", duckdb.ConstantExpression(text))
        columns = [duckdb.ColumnExpression(name) for name in SEARCHED if name in self.schema.names]
        return functools.reduce(operator.or_, (call("contains", call("lower", column), wanted) for column in columns))

    def sortable(self, name: str) -> str:
        """Return the name of a column that clips can be sorted by; raises `SourceError` for any other."""
        if name not in self.schema.names or pa.types.is_nested(self.schema.field(name).type):
            kinds = [field.name for field in self.schema if not pa.types.is_nested(field.type)]
            raise SourceError(f"sort: {no_column(name, kinds)}")
        return name

    def numeric(self) -> list[str]:
        """Return the names of the columns that hold numbers."""
        place = ("shard", "position")
        is_number = (pa.types.is_integer, pa.types.is_floating)
        return [f.name for f in self.schema if f.name not in place and any(test(f.type) for test in is_number)]

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return the numbers of a column (n,), NaN where missing; raises `SourceError` for any other column."""
        if name not in self.numeric():
            raise SourceError(f"no column of numbers: {no_column(name, self.numeric())}")
        column = self._cursor().view("clips").project(duckdb.ColumnExpression(name)).fetchnumpy()[name]
        return np.ma.filled(np.ma.asarray(column).astype(np.float64), np.nan)

    def categories(self) -> list[str]:
        """Return the names of the columns with few distinct values."""
        return [f.name for f in self.schema if pa.types.is_dictionary(f.type) or pa.types.is_boolean(f.type)]

    def texts(self, name: str) -> npt.NDArray[np.object_]:
        """Return the values of a column (n,) as objects, None where missing."""
        column = self._cursor().view("clips").project(duckdb.ColumnExpression(name)).fetchnumpy()[name]
        values = np.ma.getdata(column).astype(object)
        values[np.ma.getmaskarray(column)] = None
        return values

    def has_any(self, name: str) -> bool:
        """Return whether there is such a column, and any clip has it."""
        if name not in self.schema.names:
            return False
        # Ends at the first clip that has it.
        return bool(self._cursor().sql(f"SELECT 1 FROM clips WHERE {name} IS NOT NULL LIMIT 1").fetchall())

    def batches(self, name: str) -> Iterator[pa.Array]:
        """Yield a column part by part, in the order of the plan; a file without it has nulls."""
        for path in self._files:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                if name in file.schema_arrow.names:
                    yield from (batch.column(0) for batch in file.iter_batches(columns=[name]))
                else:
                    yield pa.nulls(file.metadata.num_rows, pa.list_(pa.float64()))

    def _is_kept(self) -> npt.NDArray[np.bool_]:
        """Return a mask of the kept clips (n,)."""
        kept = self._cursor().sql("SELECT status = 'kept' AS is_kept FROM clips").fetchnumpy()["is_kept"]
        return np.ma.filled(np.ma.asarray(kept), False).astype(np.bool_)

    def place(self, number: int) -> tuple[int, int]:
        """Return the shard of a clip, and its row there."""
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return int(self._files[file].stem), int(number - self._starts[file])

    def rows(self, numbers: Sequence[int], columns: Collection[str]) -> list[dict[str, Any]]:
        """Return some columns of clips by their numbers."""
        names = [name for name in self.schema.names if name in columns]
        tables: dict[int, pa.Table] = {}
        rows = []
        for number in numbers:
            shard, row = self.place(number)
            if shard not in tables:
                file = pq.ParquetFile(self._files[int(self._file_of_shard[shard])], page_checksum_verification=True)
                present = [name for name in names if name in file.schema_arrow.names]
                tables[shard] = manifest.without_categories(file.read(columns=present, use_threads=False))
            rows.append(dict.fromkeys(names) | tables[shard].slice(row, 1).to_pylist()[0])
        return rows

    def _cursor(self) -> Any:
        """A connection of the calling thread; the views are shared."""
        return self._connection.cursor()
