"""A dataset as one Lance table, ``OUT/clips.lance``: a row a clip, with all columns of its manifest and its media.

`video` and `audio` are blobs, which a scan leaves where they are and which are read by range; frames of a kind are one
list of bytes. A fragment of the table is a shard, so that an export that is run again writes what has changed alone;
what it has written is in the table by one commit at the end, and what no longer belongs to it is deleted then.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vidal import extras
from vidal.clip import schema
from vidal.dataset import manifest
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.tars import suffix_of
from vidal.errors import OutputError
from vidal.export import card
from vidal.export.export import Exported, claim_folder, kept_rows
from vidal.export.facts import Facts, ranked
from vidal.export.huggingface import columns_of, is_list
from vidal.export.licences import ledger_table
from vidal.export.markdown import escaped
from vidal.export.record import ExportedShard, source_of

if TYPE_CHECKING:
    import lance

Row = dict[str, Any]

NAME = "clips.lance"
BATCH_BYTES = 32_000_000
"""Media of a batch at least, but for the last of a shard: what is held at once."""

# The first stable one with blobs of their own files.
_STORAGE_VERSION = "2.2"
_TEXT = """# {name}

{clips} short clips, {hours:.2f} hours, exported by vidal: a row a clip of one Lance table, with media in it.

```python
import lance

rows = lance.dataset("{table}")
rows.take([0], columns=["clip_id", "caption"])
(video,) = rows.take_blobs("video", indices=[0])  # a file, read by range
```

Made by models, not by sensors: {synthetic}. Captions and scores are machine-made, too. A clip without a member has null
there. `export.json` says which dataset, recipe and condition this is of.

## Licences

Each clip keeps its own licence, as its source states it, unchecked; `licence` and `attribution` of its row credit it.

{ledger}"""


def write_lance(dataset: Dataset, out: str, where: str | None = None) -> Exported:
    """Write the kept clips, or those that meet ``where``, into a Lance table in the local folder ``out``.

    Raises `UserError` if pylance is missing, and `OutputError` if ``out`` is not local or holds another export.
    """
    extras.require({"--format lance": ["lance"]})
    dataset.own_tars("whose columns vidal does not know; export it as joint")
    storage = Storage(out)
    if not storage.is_local:
        raise OutputError(f"{out}: --format lance writes to a local folder; write it there, and copy the folder")
    columns = columns_of(dataset)
    claim, selected = claim_folder(dataset, storage, where, "lance")
    shards: dict[str, ExportedShard] = {}
    written = 0
    with storage.errors(NAME, writing=True):
        table = _Table(storage.local_path(NAME), _schema(dataset, columns))
        for shard in dataset.committed():
            rows, stem = list(kept_rows(dataset, shard, selected)), manifest.stem_of(shard)
            source = source_of(dataset, shard, [row["clip_id"] for row in rows])
            shards[stem] = ExportedShard(source=source, clips=len(rows))
            if not claim.has(stem, source) or table.clips(shard) != len(rows):
                table.write(shard, _batches(dataset, rows, columns, table.schema))
                written += 1
        table.commit(dataset.committed(), is_changed=bool(written) or shards != claim.record.shards)
    # Recorded behind the commit: what is recorded is in the table.
    claim.record.shards = shards
    claim.save()
    storage.write(card.NAME, _card(dataset, selected))
    clips = sum(shard.clips for shard in shards.values())
    return Exported(out=out, clips=clips, left_out=0, shards_written=written, why_left_out="")


def tables_in(path: Path) -> Iterator[tuple[str, pa.Table]]:
    """Yield all that a Lance table holds, in parts, each with its place: the rows of every version, media included.

    A file of no version, such as a killed export leaves, has an empty table. Raises `UserError` without pylance.
    """
    extras.require({str(path): ["lance"]})
    known: set[str] = set()
    newest = _lance().dataset(str(path))
    for version in newest.versions():
        dataset = newest.checkout_version(version["version"])
        known |= {file.path for fragment in dataset.get_fragments() for file in fragment.data_files()}
        for batch in dataset.scanner(batch_size=64, blob_handling="all_binary").to_batches():
            yield f"version {version['version']}", pa.Table.from_batches([batch])
    for file in sorted((path / "data").glob("*.lance")):
        if file.name not in known:
            yield f"data/{file.name} of no version", pa.table({})


class _Table:
    """A Lance table, and the fragments that it is to have, by shard."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._path = str(path)
        self._fragments: dict[int, list[lance.FragmentMetadata]] = {}
        self._clips: dict[int, int] = {}
        if not (path / "_versions").exists():
            return
        dataset = _lance().dataset(self._path)
        # A column more, of a later vidal, is in all fragments or in none.
        for fragment in dataset.get_fragments() if dataset.schema.equals(schema) else ():
            shard = fragment.to_table(columns=["shard"], limit=1)["shard"][0].as_py()
            self._fragments.setdefault(shard, []).append(fragment.metadata)
            self._clips[shard] = self.clips(shard) + fragment.count_rows()

    def clips(self, shard: int) -> int:
        """Return how many clips of a shard are in the table."""
        return self._clips.get(shard, 0)

    def write(self, shard: int, batches: Iterator[pa.RecordBatch]) -> None:
        """Write the files of a shard, which no reader sees before `commit`."""
        failed: list[BaseException] = []

        def noted() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except BaseException as error:
                failed.append(error)
                raise

        reader = pa.RecordBatchReader.from_batches(self.schema, noted())
        try:
            self._fragments[shard] = _lance().fragment.write_fragments(
                reader, self._path, mode="overwrite", data_storage_version=_STORAGE_VERSION
            )
        except OSError:
            # Of an error of reading Lance makes one of its own, with a traceback for a text.
            if failed:
                raise failed[0] from None
            raise

    def commit(self, shards: Sequence[int], *, is_changed: bool) -> None:
        """Make the table that of these shards by one atomic step, and delete what is no longer of it."""
        lance = _lance()
        if is_changed:
            fragments = [fragment for shard in shards for fragment in self._fragments.get(shard, ())]
            dataset = lance.LanceDataset.commit(self._path, lance.LanceOperation.Overwrite(self.schema, fragments))
        else:
            dataset = lance.dataset(self._path)
        # Always: a run that was killed behind its commit has left them.
        dataset.cleanup_old_versions(timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False)


def _lance() -> Any:
    # Its warnings of a table that is not there yet, on standard error.
    os.environ.setdefault("LANCE_LOG", "error")
    import lance

    return lance


def _schema(dataset: Dataset, columns: dict[str, list[str]]) -> pa.Schema:
    of_rows = [field.remove_metadata() for field in schema(dataset.extra_schema)]
    of_media = [
        pa.field(name, pa.list_(pa.large_binary())) if is_list(suffixes) else _lance().blob_field(name)
        for name, suffixes in columns.items()
    ]
    return pa.schema([*of_rows, *of_media])


def _batches(
    dataset: Dataset, rows: Sequence[Row], columns: dict[str, list[str]], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield rows with their media, of `BATCH_BYTES` at least."""
    begin, size = 0, 0
    media: dict[str, list[Any]] = {name: [] for name in columns}
    for number, row in enumerate(rows, 1):
        names = {suffix_of(member["name"]): member["name"] for member in row["members"]}
        for column, suffixes in columns.items():
            values = [dataset.read_member(row, names[suffix]) for suffix in suffixes if suffix in names]
            size += sum(map(len, values))
            media[column].append((values or None) if is_list(suffixes) else next(iter(values), None))
        if size >= BATCH_BYTES or number == len(rows):
            yield _batch(rows[begin:number], media, schema)
            begin, size = number, 0
            media = {name: [] for name in columns}


def _batch(rows: Sequence[Row], media: dict[str, list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    of_rows = pa.schema([field for field in schema if field.name not in media])
    arrays = dict(zip(of_rows.names, pa.RecordBatch.from_pylist(list(rows), of_rows).columns, strict=True))
    for name, values in media.items():
        kind = schema.field(name).type
        arrays[name] = pa.array(values, kind) if pa.types.is_list(kind) else _lance().blob_array(values)
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _card(dataset: Dataset, selected: Collection[str] | None) -> bytes:
    facts = Facts.of(dataset, selected)
    synthetic = ", ".join(name for name, _ in ranked(facts.synthetic_layers)) or "none"
    return _TEXT.format(
        name=escaped(dataset.info.name), clips=facts.all.clips, hours=facts.all.duration_s / 3600, table=NAME,
        synthetic=synthetic, ledger=ledger_table(facts),
    ).encode()  # fmt: skip
