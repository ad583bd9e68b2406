"""The kept clips of finished datasets, with their rows and members: of one dataset, or of several together."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from vidal.clip import column_names
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import PLAN_COLUMNS, SOURCE_PLACE
from vidal.dataset.removals import Removals, lists_of
from vidal.errors import RecipeError, SourceError
from vidal.reader.where import matching_by_shard
from vidal.record import Column, type_name
from vidal.rows import Spill, Stream, TableLike
from vidal.sources.source import Source
from vidal.stage import digest

Value = TypeVar("Value")


class _Finished(Source):
    """Finished datasets, whose clips come one dataset after the other."""

    where: str | None = None
    """Condition on the columns of their clips, flags among them: ``not flag_wrong_caption``."""

    def candidates(self) -> TableLike:
        several = self._open()
        spills = [
            _kept_clips(earlier, number if len(several) > 1 else None, self.where)
            for number, earlier in enumerate(several)
        ]
        union = spills[0].schema.empty_table()
        for earlier, spill in zip(several, spills, strict=True):
            try:
                union = _in_schema_of(union, spill.schema.empty_table())
            except pa.ArrowTypeError as error:
                raise SourceError(
                    f"{earlier.address}: cannot be merged with {several[0].address}: {error}; build one of them anew "
                    f"with another name for that column"
                ) from None

        def read() -> Iterator[pa.RecordBatch]:
            for batch in itertools.chain.from_iterable(spill.to_batches() for spill in spills):
                yield from _in_schema_of(union, pa.Table.from_batches([batch])).to_batches()

        return Stream(union.schema, sum(spill.num_rows for spill in spills), read)

    def identity(self) -> dict[str, Any]:
        each = []
        for earlier in self._open():
            # A retry or a removal changes rows but no fingerprint; sizes show it at the cost of one request a manifest.
            sizes = [[shard, earlier.storage.size(earlier.manifest_name(shard))] for shard in earlier.committed()]
            identity = {"dataset": earlier.info.fingerprint, "manifests": digest(sizes)}
            if self.where is not None:
                flagged = flags.current(earlier.storage) if flags.PREFIX in self.where.lower() else {}
                identity |= {
                    "where": self.where,
                    "flagged": digest({name: sorted(ids) for name, ids in flagged.items()}),
                }
            each.append(identity)
        return each[0] if len(each) == 1 else {"datasets": each}

    def removals(self) -> list[str]:
        lists: dict[str, None] = {}
        for earlier in self._open():
            for path in lists_of(earlier.info.definition):
                if not Path(path).is_file():
                    raise SourceError(
                        f"{path}: no such file; it lists what {earlier.address} may not contain: restore it, or name "
                        f"another list with --set removals=FILE"
                    )
                lists[path] = None
        return list(lists)

    def removed(self) -> Removals:
        several = self._open()
        return functools.reduce(operator.or_, map(Removals.of, several)) if len(several) > 1 else Removals()

    def columns(self) -> set[str]:
        own = (name for earlier in self._open() for name in (*earlier.extra_schema.names, *earlier.info.layers))
        return {*column_names(), *own}

    def declared(self) -> dict[str, Column]:
        return self._united(
            "column", lambda earlier: earlier.info.columns, lambda column: f"{type_name(column.type)} ({column.group})"
        )

    def layers(self) -> list[str]:
        return list(dict.fromkeys(layer for earlier in self._open() for layer in earlier.info.layers))

    def modalities(self) -> dict[str, str]:
        return self._united("layer", lambda earlier: earlier.info.modalities, str)

    def _united(
        self, kind: str, given: Callable[[Dataset], Mapping[str, Value]], described: Callable[[Value], str]
    ) -> dict[str, Value]:
        """Return by name what the datasets declare; raises `RecipeError` where two declare one name differently."""
        united: dict[str, tuple[Value, str]] = {}
        for earlier in self._open():
            for name, value in given(earlier).items():
                other, by = united.setdefault(name, (value, earlier.address))
                if described(other) != described(value):
                    raise RecipeError(
                        f"source.datasets: {by} has the {kind} `{name}` as {described(other)}, {earlier.address} as "
                        f"{described(value)}; build one of them anew with another name for it"
                    )
        return {name: value for name, (value, _) in united.items()}

    def _open(self) -> list[Dataset]:
        several = []
        for address in self.earlier_datasets():
            earlier = Dataset.open(address)
            earlier.own_tars("which a build does not start from; train on it as it is")
            if missing := earlier.info.shards - len(earlier.committed()):
                raise SourceError(f"{address}: {missing} shard(s) are not built yet; finish that run first")
            several.append(earlier)
        return several


class DatasetSource(_Finished):
    """``{dataset: DIR, where: CONDITION}``; the dataset must be complete, so that the plan covers all of it."""

    dataset: str = Field()

    def earlier_datasets(self) -> list[str]:
        return [self.dataset]


class DatasetsSource(_Finished):
    """``{datasets: [DIR, DIR@2]}``: the kept clips of complete datasets, in this order.

    A clip has the layers of its own dataset, and null in columns that only another has. A clip whose id an earlier
    dataset has, too, is rejected as ``repeated``.
    """

    datasets: list[str] = Field(min_length=2)

    def earlier_datasets(self) -> list[str]:
        return self.datasets


def _in_schema_of(empty: pa.Table, table: pa.Table) -> pa.Table:
    """Return the table with the columns of both; permissive: a column that only one of them has is null."""
    return pa.concat_tables([empty, table], promote_options="permissive")


def _kept_clips(earlier: Dataset, number: int | None, where: str | None) -> Spill:
    """The plan's columns of the kept clips that meet a condition, and their places; all else is read in the worker."""
    # What became of a clip stays behind, and a column that a decision declares is read with the others.
    outcome = ("shard", "position", "status", "stage", "reason", "detail", "is_transient")
    own = [name for name in earlier.plan.extra_schema().names if name not in earlier.info.columns]
    wanted = [name for name in (*PLAN_COLUMNS, *own) if name not in outcome]
    dataset_column, shard_column, row_column = SOURCE_PLACE
    spill: Spill | None = None
    chosen = iter(()) if where is None else matching_by_shard(earlier, where)
    for shard in earlier.committed():
        table = earlier.table(shard, ["status", *wanted]).replace_schema_metadata(None)
        is_kept = pc.equal(table.column("status"), "kept")
        if where is not None:
            is_kept = pc.and_(is_kept, pa.array(next(chosen)[1]))
        table = table.drop_columns(["status"])
        place = (shard_column, [shard] * table.num_rows), (row_column, range(table.num_rows))
        for name, values in (*place, *([] if number is None else [(dataset_column, [number] * table.num_rows)])):
            table = table.append_column(name, pa.array(values, pa.int64()))
        spill = spill or Spill(table.schema)
        spill.add(table.filter(is_kept))
    if spill is None or spill.num_rows == 0:
        meets = "" if where is None else f" that meets where: {' '.join(where.split())}"
        raise SourceError(f"{earlier.address}: the dataset has no kept clip{meets}")
    return spill
