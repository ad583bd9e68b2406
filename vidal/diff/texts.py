"""The texts that changed of clips which both datasets kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vidal.diff.pairs import SIDES, Pairs
from vidal.report.texts import MODEL_OF


class ChangedTexts:
    """The clips whose texts changed, those with another caption first; its methods may be called from threads."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        names = [set(schema.names) for schema in pairs.schemas.values()]
        self.columns = [name for name in reversed(MODEL_OF) if name in names[0] & names[1]]
        """The columns that are compared; the enhanced caption is the first."""
        # Hashes, as the texts of a million clips would fill the memory that joins them.
        hashed = {
            side: ", ".join(f"hash({self._text(side, name)}) AS h{k}" for k, name in enumerate(self.columns))
            for side in SIDES
        }
        is_other = [f"b.h{k} <> a.h{k} AS t{k}" for k in range(len(self.columns))]
        pairs.cursor().execute(f"""
            CREATE TABLE changed AS SELECT * FROM (
                SELECT number, {", ".join(is_other)} FROM clips
                JOIN (SELECT shard, file_row_number AS row, {hashed["before"]} FROM rows_before WHERE status = 'kept') b
                    ON (b.shard = before_shard AND b.row = before_row)
                JOIN (SELECT shard, file_row_number AS row, {hashed["after"]} FROM rows_after WHERE status = 'kept') a
                    ON (a.shard = after_shard AND a.row = after_row)
            ) WHERE {" OR ".join(f"t{k}" for k in range(len(self.columns)))}
        """)

    def _text(self, side: str, name: str) -> str:
        """Return a column as an expression of SQL, a list as lines, and no text as an empty one."""
        is_list = pa.types.is_list(self._pairs.schemas[side].field(name).type)
        return f"coalesce({f'array_to_string({name}, chr(10))' if is_list else name}, '')"

    def counts(self) -> dict[str, int]:
        """Return how many clips have another text, by column, and of all columns together as ``clips``."""
        parts = ", ".join(f"count(*) FILTER (t{k})" for k in range(len(self.columns)))
        total, *each = self._pairs.cursor().sql(f"SELECT count(*), {parts} FROM changed").fetchall()[0]
        return {"clips": total, **{name: count for name, count in zip(self.columns, each, strict=True) if count}}

    def page(self, offset: int, limit: int) -> list[dict[str, Any]]:
        """Return clips with the ``texts`` that changed, each with its column, and text and model before and after."""
        found = (
            self._pairs.cursor()
            .sql(f"""
            SELECT c.clip_id, c.before_id, before_shard, before_row, after_shard, after_row, d.* EXCLUDE (number)
            FROM (SELECT * FROM changed ORDER BY NOT t0, number LIMIT {int(limit)} OFFSET {int(offset)}) d
            JOIN clips c USING (number) ORDER BY NOT t0, number
        """)
            .fetchall()
        )
        before = self._rows("before", [tuple(row[2:4]) for row in found])
        after = self._rows("after", [tuple(row[4:6]) for row in found])
        clips = []
        for clip_id, before_id, before_shard, before_row, after_shard, after_row, *is_other in found:
            old, new = before[before_shard, before_row], after[after_shard, after_row]
            texts = [
                {
                    "column": name, "before": old[name], "after": new[name],
                    "before_model": old.get(MODEL_OF[name] or ""), "after_model": new.get(MODEL_OF[name] or ""),
                }
                for name, is_changed in zip(self.columns, is_other, strict=True)
                if is_changed
            ]  # fmt: skip
            clips.append({"clip_id": clip_id, "before_id": before_id, "shard": after_shard, "texts": texts})
        return clips

    def _rows(self, side: str, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], dict[str, Any]]:
        """Return the texts and models of some clips, by shard and row."""
        if not places:
            return {}
        models = [name for name in {*MODEL_OF.values()} if name and name in self._pairs.schemas[side].names]
        names = [*self.columns, *models]
        columns = ", ".join([*(self._text(side, name) for name in self.columns), *models])
        shards = ", ".join(str(int(shard)) for shard in {shard for shard, _ in places})
        wanted = ", ".join(f"({int(shard)}, {int(row)})" for shard, row in places)
        rows = self._pairs.cursor().sql(
            f"SELECT shard, file_row_number, {columns} FROM rows_{side} "
            f"WHERE shard IN ({shards}) AND (shard, file_row_number) IN (VALUES {wanted})"
        )
        return {(shard, row): dict(zip(names, values, strict=True)) for shard, row, *values in rows.fetchall()}
