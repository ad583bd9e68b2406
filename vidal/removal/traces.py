"""What there is of a clip beside its row and members: embeddings, answers of searches, counts of hosts, a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from vidal.dataset import embeddings, flags, plan, usage
from vidal.dataset.dataset import Dataset, read_info, write_info
from vidal.dataset.removals import KEYS, REASON, Removals, hashed_address
from vidal.dataset.storage import Storage
from vidal.errors import SourceError

_COLUMNS = (*KEYS, "platform")


@dataclass(slots=True)
class Traces:
    """What the clips to remove were called, as far as their rows still say it."""

    removals: Removals
    ids: set[str] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    platform_ids: set[tuple[str | None, str]] = field(default_factory=set)

    @classmethod
    def of(cls, parts: Iterable[Dataset], removals: Removals) -> Traces:
        """Return what the rows on a list, and those that were removed before, were called in any part of a dataset."""
        traces, parts = cls(removals), list(parts)
        for part in parts:
            for row in part.rows([*_COLUMNS, "reason"]):
                traces._note(row, is_removed=row["reason"] == REASON)
        # A plan may still have the address of a clip whose row has lost it.
        for part in (part for part in parts if part.own_storage.exists(plan.NAME)):
            for row in part.plan.table([name for name in _COLUMNS if name in part.plan.schema.names]).to_pylist():
                traces._note(row)
        return traces

    def _note(self, row: Mapping[str, Any], *, is_removed: bool = False) -> None:
        if is_removed or self.name(row):
            self.ids.add(row["clip_id"])
            self.urls |= {row["url"]} if row["url"] else set()
            self.platform_ids |= {(row.get("platform"), row["platform_id"])} if row.get("platform_id") else set()

    def name(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row, or a candidate that became none, is a clip to remove by another of its names."""
        url = row.get("url") or ""
        return (
            self.removals.match(row) is not None
            or (row["clip_id"] if "clip_id" in row else plan.id_of(url)) in self.ids
            or url in self.urls
            or (row.get("platform"), row.get("platform_id")) in self.platform_ids
        )

    def erase(self, parts: Iterable[Dataset]) -> None:
        """Take them out of the files beside the rows of every part: before the rows, which alone say what to erase."""
        parts = list(parts)
        hosts = self._hosts_of_no_other(parts)
        for root in {part.storage.address: part.storage for part in parts}.values():
            flags.erase(root, self.ids)
        for storage in (part.own_storage for part in parts):
            for teacher in embeddings.teachers_of(storage).values():
                embeddings.erase(teacher, self.ids)
            _erase_answers(storage, self)
            _erase_addresses(storage, self.urls)
            for name in (f"{usage.FOLDER}/{name}" for name in storage.names(usage.FOLDER) if hosts):
                _erase_hosts(storage, name, hosts)

    def _hosts_of_no_other(self, parts: Iterable[Dataset]) -> set[str]:
        hosts = {host for url in self.urls if (host := _host_of(url))}
        for part in (part for part in parts if hosts and part.own_storage.exists(plan.NAME)):
            table = part.plan.table(["clip_id", "url"])
            urls = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=pa.array(sorted(self.ids)))))["url"]
            for host in list(hosts):
                same = urls.filter(pc.match_substring(pc.fill_null(urls, ""), host, ignore_case=True))
                if any(_host_of(url.as_py()) == host for url in same):
                    hosts.discard(host)
        return hosts


def _erase_answers(storage: Storage, traces: Traces) -> None:
    for name in (f"{plan.DISCOVERED}/{n}" for n in storage.names(plan.DISCOVERED) if n.endswith(".jsonl")):
        before = storage.read(name)
        try:
            records = [json.loads(line) for line in before.splitlines()]
            for record in (record for record in records if "rows" in record):
                record["rows"] = [row for row in record["rows"] if not traces.name(row)]
        except (ValueError, TypeError, AttributeError):
            raise SourceError(
                f"{storage.address}/{name}: not what a search wrote; restore the file, or delete it"
            ) from None
        if (after := plan.as_answers(records)) != before:
            storage.write(name, after)


def _erase_hosts(storage: Storage, name: str, hosts: Collection[str]) -> None:
    try:
        counts = json.loads(storage.read(name))
    except ValueError:
        # A record only, of which nothing can be said but what it must not say.
        return storage.remove(name)
    # `example.org`, `example.org media` and `example.org#guest`.
    left = {budget: used for budget, used in counts.items() if re.split("[ #]", budget)[0] not in hosts}
    if left != counts:
        storage.write(name, usage.as_json(left))


def _erase_addresses(storage: Storage, urls: Collection[str]) -> None:
    """Replace addresses that the recipe lists itself, and those of `vidal grow --source urls=[…]`, by their hashes."""
    if (info := read_info(storage)) is None:
        return
    definition, made_by = info.definition, info.made_by
    source = definition.get("source")
    if isinstance(source, dict) and isinstance(listed := source.get("urls"), list):
        listed = [hashed_address(url) if url in urls else url for url in listed]
        definition = {**definition, "source": {**source, "urls": listed}}
    # The longest first, as one may be the beginning of another.
    for url in sorted((url for url in urls if "://" in url), key=len, reverse=True):
        made_by = made_by.replace(url, hashed_address(url))
    if (definition, made_by) != (info.definition, info.made_by):
        write_info(storage, info.model_copy(update={"definition": definition, "made_by": made_by}))


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
