"""The ledger of a dataset's licences: clips under each, and whom to credit for every clip.

    licences.json  licences.md             clips and hours by licence
    attribution.parquet  attribution.csv   a row a clip: title, author, credit line, address, licence

A licence is as the source states it. Its name and its address come from `vidal.licences`, and are absent where the
text has no name: such a clip is under a licence that somebody has to read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vidal.dataset.dataset import Dataset
from vidal.export.document import Documents, claimed, json_text, write_all
from vidal.export.facts import Facts, ranked
from vidal.export.markdown import escaped, table
from vidal.licences import licence_name, licence_url

SCHEMA = pa.schema(
    [(name, pa.string()) for name in (
        "clip_id", "title", "author", "attribution", "url", "licence", "licence_name", "licence_url",
    )]
)  # fmt: skip
CREDITS_ON_PAGE = 200
"""Clips up to which the page credits each of them itself."""

_READ = ["clip_id", "title", "uploader", "attribution", "url", "licence", "status"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_HEAD = """# Licences of {name}

{clips} clips, each under its own licence, as its source states it; this is no legal advice, and vidal has not checked
the statements. `attribution.parquet` and `attribution.csv` credit every clip. Media were re-encoded and cut into
layers, some of them derived by models, which counts as a change of the work.

"""

Row = dict[str, Any]


def write_licences(dataset: Dataset, out: str, where: str | None, selected: Collection[str] | None) -> Documents:
    """Write the ledger of the kept clips, or of those of them that are selected."""
    storage = claimed(dataset, out, "licences", where)
    facts = Facts.of(dataset, selected)
    shown: list[Row] = []
    with storage.writer("attribution.parquet") as parquet, storage.writer("attribution.csv") as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        lines = csv.DictWriter(text, SCHEMA.names)
        lines.writeheader()
        with pq.ParquetWriter(parquet, SCHEMA, compression="zstd") as writer:
            for credits in _credits(dataset, selected):
                writer.write_table(pa.Table.from_pylist(credits, SCHEMA))
                lines.writerows({name: _cell(value) for name, value in credit.items()} for credit in credits)
                # One more than the page has room for tells that there are too many.
                shown += credits[: CREDITS_ON_PAGE + 1 - len(shown)]
        # Flushes, and leaves the file to the storage, which syncs and renames it.
        text.detach()
    ledger = {"dataset": dataset.info.name, **facts.all.as_json(), "licences": ledger_of(facts)}
    files = {"licences.json": json_text(ledger), "licences.md": _page(dataset, facts, shown)}
    return write_all(storage, files, facts.all.clips, ["attribution.parquet", "attribution.csv"])


def ledger_of(facts: Facts) -> list[dict[str, Any]]:
    """Return clips, hours and bytes by licence, the most frequent first."""
    return [
        {"licence": label, "name": licence_name(label), "url": licence_url(label), **tally.as_json()}
        for label, tally in ranked(facts.licences)
    ]


def ledger_table(facts: Facts) -> str:
    """Return the ledger as a Markdown table."""
    rows = [
        [f"[{escaped(line['licence'])}]({line['url']})" if line["url"] else escaped(line["licence"]),
         str(line["clips"]), f"{line['hours']:.2f}"]
        for line in ledger_of(facts)
    ]  # fmt: skip
    return table(["licence", "clips", "hours"], rows)


def _credits(dataset: Dataset, selected: Collection[str] | None) -> Iterator[list[Row]]:
    for part in dataset.tables(_READ):
        rows = part.to_pylist()
        yield [
            {"clip_id": row["clip_id"], "title": row["title"], "author": row["uploader"],
             "attribution": row["attribution"], "url": row["url"], "licence": row["licence"],
             "licence_name": licence_name(row["licence"]), "licence_url": licence_url(row["licence"])}
            for row in rows if row["status"] == "kept" and (selected is None or row["clip_id"] in selected)
        ]  # fmt: skip


def _cell(value: str | None) -> str:
    # A spreadsheet runs a cell that begins so; the Parquet file has the very characters.
    return f"'{value}" if value and value.startswith(_FORMULA) else value or ""


def _page(dataset: Dataset, facts: Facts, shown: list[Row]) -> str:
    page = _HEAD.format(name=escaped(dataset.info.name), clips=facts.all.clips) + ledger_table(facts)
    if len(shown) > CREDITS_ON_PAGE:
        return page
    names = ("clip_id", "title", "author", "attribution", "url", "licence")
    credits = table(names, ([escaped(row[name] or "") for name in names] for row in shown))
    return f"{page}\n## Credits\n\n{credits}"
