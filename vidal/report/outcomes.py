"""The outcomes of a dataset's clips, counted shard by shard in Arrow; of a crawl, by term, host or platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

import vidal.clip
from vidal.crawl.platforms import platform_of
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import NAME as PLAN_NAME
from vidal.dataset.plan import Plan
from vidal.report.by import By

_OUTCOME = ("status", "stage", "reason")
_CRAWL = ("is_transient", "url", "crawled_at", "source_sha256")
_GENERIC = (None, "generic", "html5mediaembed")
"""What yt-dlp calls the platform of a page that none of its extractors knows."""
# As `urllib.parse.urlsplit` has it: the host follows the last @.
_HOST = r"(?i)^https?://(?:[^/?#]*@)?(?P<host>\[[^\]]*\]|[^/?#:\[\]]+)"
_COLUMNS = {By.platform: ("platform",), By.host: (), By.term: ("search_term",)}


def outcomes(dataset: Dataset, by: By | None = None) -> pa.Table:
    """Return how many ``clips`` have each status, stage and reason; what is not committed is a ``candidate``.

    With ``by`` each outcome is divided by ``name``, ``is_transient``, and by whether the clip's address ``is_asked``
    (a visit was made or attempted), the site had it (``is_found``), and its file came (``is_fetched``).
    """
    names = [*_OUTCOME, *(() if by is None else (*_CRAWL, *_COLUMNS[by]))]
    # An empty one, so that there is a schema.
    empty = pa.table({name: pa.array([], vidal.clip.schema().field(name).type) for name in names})
    parts = [_of_rows(empty, by), *(_of_rows(table, by) for table in dataset.tables(names))]
    # Fewer candidates than rows: a manifest was put there under another number, which `verify` tells.
    if (left := dataset.info.candidates - sum(pc.sum(part["clips"]).as_py() or 0 for part in parts)) > 0:
        parts += [_of_rows(rows, by) for rows in uncommitted(dataset, empty, left)]
    whole = pa.concat_tables(parts)
    return _added_up(_with_platforms(whole) if by is By.platform else whole)


def uncommitted(dataset: Dataset, empty: pa.Table, count: int) -> Iterator[pa.Table]:
    """Yield rows for the candidates that have none yet; while there is no plan, they are null."""
    storages = (dataset.own_storage, dataset.own_storage.child("phases/1"))
    plan = next((Plan(storage) for storage in storages if storage.exists(PLAN_NAME)), None)
    if plan is None or "url" not in empty.column_names:
        yield _open_rows(empty, {}, count)
        return
    known = [name for name in empty.column_names if name in plan.schema.names and name not in _OUTCOME]
    committed = pa.array(dataset.committed(), pa.int64())
    for batch in plan.parts(["shard", *known]).to_batches():
        rows = batch.filter(pc.invert(pc.is_in(batch["shard"], value_set=committed)))
        yield _open_rows(empty, {name: rows[name] for name in known}, rows.num_rows)


def _open_rows(empty: pa.Table, known: Mapping[str, pa.Array], count: int) -> pa.Table:
    columns = {field.name: known.get(field.name, pa.nulls(count, field.type)) for field in empty.schema}
    return pa.table(columns | {"status": pa.repeat(pa.scalar("candidate"), count)}).cast(empty.schema)


def _of_rows(rows: pa.Table, by: By | None) -> pa.Table:
    """Return the outcomes of some rows."""
    columns = {name: rows[name] for name in _OUTCOME}
    if by is not None:
        is_open = pc.equal(rows["status"], "candidate")
        is_in_fetch = pc.fill_null(pc.equal(rows["stage"], "fetch"), False)
        is_failed_fetch = pc.and_(is_in_fetch, pc.equal(rows["status"], "failed"))
        has_file = pc.is_valid(rows["source_sha256"])
        host = pc.utf8_trim(pc.utf8_lower(pc.struct_field(pc.extract_regex(rows["url"], _HOST), "host")), "[]")
        # Rows of earlier versions, and of workers that died, do not say when they were crawled.
        was_asked = pc.or_(pc.or_(pc.is_valid(rows["crawled_at"]), has_file), is_failed_fetch)
        is_asked = pc.and_(pc.and_(was_asked, pc.is_valid(host)), pc.invert(is_open))
        is_found = pc.and_(is_asked, pc.invert(is_failed_fetch))
        columns |= {
            "name": rows["search_term"] if by is By.term else host,
            "is_transient": pc.fill_null(rows["is_transient"], False),
            "is_asked": is_asked,
            "is_found": is_found,
            # A source may state the hash of a file that is not fetched.
            "is_fetched": pc.and_(pc.and_(is_found, has_file), pc.invert(is_in_fetch)),
        }
        if by is By.platform:
            columns["platform"] = rows["platform"]
    return _added_up(pa.table(columns | {"clips": pa.repeat(pa.scalar(1, pa.int64()), rows.num_rows)}))


def _added_up(table: pa.Table) -> pa.Table:
    """Return the table with the clips of equal rows added up."""
    keys = [name for name in table.column_names if name != "clips"]
    return (
        table.group_by(keys).aggregate([("clips", "sum")]).select([*keys, "clips_sum"]).rename_columns([*keys, "clips"])
    )


def _with_platforms(table: pa.Table) -> pa.Table:
    """Return the table with each host replaced by its platform.

    A failed clip has no platform of yt-dlp's: it counts for that of most other clips of its host.
    """
    # In ascending order, so that of a host's platforms the one of most clips is the last that is put in.
    said = table.group_by(["name", "platform"]).aggregate([("clips", "sum")]).sort_by("clips_sum")
    platforms: dict[str | None, str | None] = {}
    for host, platform in zip(said["name"].to_pylist(), said["platform"].to_pylist(), strict=True):
        if platform not in _GENERIC or host not in platforms:
            platforms[host] = host if platform in _GENERIC else platform
    for host in platforms:
        if host is not None and (known := platform_of(host)):
            platforms[host] = known.name
    hosts = table["name"].combine_chunks().dictionary_encode()
    names = pa.array([platforms[host] for host in hosts.dictionary.to_pylist()], pa.string()).take(hosts.indices)
    return table.set_column(table.column_names.index("name"), "name", names).drop_columns("platform")
