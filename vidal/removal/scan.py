"""`Scan`: everything in a place that is of the clips to remove, found by reading every byte of it.

It reads as little of vidal's own records as it can: members by the headers of tars, rows by the columns of Parquet
files and Lance tables, addresses in the text of everything else. What it counts before a removal must be nothing after
it.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.dataset.removals import REASON
from vidal.dataset.storage import TEMPORARY_SUFFIX, Storage
from vidal.dataset.tars import suffix_of
from vidal.export.lance import NAME as LANCE
from vidal.export.lance import tables_in

_MAX_LISTED = 20
# What an address may go on with: `https://a/1` is not in `https://a/12`, nor `1.mp4` in `11.mp4`.
_WITHIN = rb"\w.~%/?#&=+-"
# Of no text of a clip's own, and long.
_NOT_READ = ("members", "audio_fingerprint", "embedding")


@dataclass(slots=True)
class Wanted:
    """What a scan looks for."""

    clip_ids: frozenset[str]
    addresses: frozenset[str]
    digests: frozenset[str] = frozenset()
    """SHA-256 of the members of the clips."""
    _address: re.Pattern[bytes] | None = None
    _key: re.Pattern[bytes] | None = None

    def __post_init__(self) -> None:
        def any_of(texts: Collection[str]) -> bytes:
            return b"|".join(re.escape(text.encode("utf-8", "surrogatepass")) for text in sorted(texts))

        if self.addresses:
            words = any_of(self.addresses)
            self._address = re.compile(rb"(?<![" + _WITHIN + rb"])(?:" + words + rb")(?![" + _WITHIN + rb"])")
        if self.clip_ids:
            # As our JSON, VIDAL's, a CSV and a table in Markdown name a clip; a bare word may be a number of anything.
            words = any_of(self.clip_ids)
            self._key = re.compile(
                rb'(?m)"clip_id": ?"(?:%b)"|"(?:%b)"\s*:|^(?:%b),|^\| (?:%b) \|' % (words, words, words, words)
            )

    def in_text(self, text: bytes) -> int:
        """Return how often a text names a clip by its address."""
        return len(self._address.findall(text)) if self._address else 0

    def as_key(self, text: bytes) -> int:
        """Return how often a text lists a clip by its id."""
        return len(self._key.findall(text)) if self._key else 0


@dataclass(slots=True)
class Scan:
    """The content of a place, and what of it is of the clips to remove."""

    sha256: str = ""
    """Of the lines that `sha256sum` prints of all files, by name."""
    files: int = 0
    members: int = 0
    """Members of tars, rows of tables and lines of texts that are of the clips."""
    size_bytes: int = 0
    """Bytes of these members, and of the rows in memory."""
    found: list[str] = field(default_factory=list)
    """Where they are, the first of them."""
    same: list[str] = field(default_factory=list)
    """Members of other clips with the same bytes as a member of a removed one."""

    @classmethod
    def of(cls, storage: Storage, wanted: Wanted, files: Collection[str] = ()) -> Scan:
        """Read a place, or some files of it, whole; hidden files such as the lock are no part of it."""
        scan, total = cls(), hashlib.sha256()
        names = sorted(files or _names(storage))
        for name in names:
            data = storage.read(name)
            total.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode("utf-8", "surrogateescape"))
            scan.files += 1
            kind = name.rpartition(".")[2]
            if LANCE not in name.split("/"):
                {"tar": scan._tar, "parquet": scan._parquet}.get(kind, scan._text)(name, data, wanted)
        if any(name.startswith(f"{LANCE}/") for name in names):
            for place, table in tables_in(storage.local_path(LANCE)):
                scan._table(f"{LANCE}: {place}", table, wanted)
                if not table.num_columns:
                    scan._note(f"{LANCE}: {place}", 0)
        scan.sha256 = total.hexdigest()
        return scan

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def _note(self, place: str, size: int, count: int = 1) -> None:
        self.members += count
        self.size_bytes += size
        if len(self.found) < _MAX_LISTED:
            self.found.append(place)

    def _tar(self, name: str, data: bytes, wanted: Wanted) -> None:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                content = memoryview(data)[member.offset_data : member.offset_data + member.size]
                key = member.name.rpartition("/")[2].partition(".")[0]
                if key in wanted.clip_ids:
                    self._note(f"{name}: {member.name}", member.size)
                elif suffix_of(member.name) == "json":
                    if count := wanted.in_text(bytes(content)):
                        self._note(f"{name}: {member.name} names an address", 0, count)
                elif hashlib.sha256(content).hexdigest() in wanted.digests and len(self.same) < _MAX_LISTED:
                    self.same.append(f"{name}: {member.name}")

    def _parquet(self, name: str, data: bytes, wanted: Wanted) -> None:
        file = pq.ParquetFile(pa.BufferReader(data))
        for group in range(file.metadata.num_row_groups):
            self._table(name, file.read_row_group(group), wanted)
        # Of embeddings: the samples that could not be read.
        metadata = b"\n".join((file.schema_arrow.metadata or {}).values())
        if count := wanted.in_text(metadata) + wanted.as_key(metadata):
            self._note(f"{name}: metadata", 0, count)

    def _table(self, name: str, table: pa.Table, wanted: Wanted) -> None:
        ids, reasons = (
            table[column].to_pylist() if column in table.column_names else [None] * table.num_rows
            for column in ("clip_id", "reason")
        )
        # What `vidal remove` leaves of a clip keeps its id, by which it is refused when it comes again.
        mine = {n: id_ for n, id_ in enumerate(ids) if id_ in wanted.clip_ids and reasons[n] != REASON}
        if mine:
            self._note(f"{name}: {min(mine.values())}", table.take(list(mine)).nbytes, len(mine))
        others = table.drop_columns([column for column in _NOT_READ if column in table.column_names])
        for n, row in enumerate(others.to_pylist()):
            if n not in mine:
                self._row(f"{name}: {ids[n]}", row, wanted)

    def _row(self, place: str, row: dict[str, Any], wanted: Wanted) -> None:
        for value in _leaves(row):
            if isinstance(value, str):
                if wanted.in_text(value.encode("utf-8", "surrogatepass")):
                    self._note(f"{place} names an address", 0)
            elif len(self.same) < _MAX_LISTED and hashlib.sha256(value).hexdigest() in wanted.digests:
                self.same.append(place)

    def _text(self, name: str, data: bytes, wanted: Wanted) -> None:
        if count := wanted.in_text(data) + wanted.as_key(data):
            self._note(name, 0, count)


def _names(storage: Storage) -> Iterator[str]:
    """Yield the names of all files of a place."""
    root = storage.path().rstrip("/")
    with storage.errors(""):
        paths = storage.fs.find(root)
    for name in (str(path)[len(root) :].lstrip("/") for path in paths):
        if not name.endswith(TEMPORARY_SUFFIX) and not any(part.startswith(".") for part in name.split("/")):
            yield name


def _leaves(value: Any) -> Iterator[str | bytes]:
    if isinstance(value, (str, bytes)):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
