"""`vidal terms`: reads captions, chooses terms, and writes them with a record of inputs, settings and counts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import vidal
from vidal.errors import OutputError, SourceError, machine_error
from vidal.sources.source import file_hash
from vidal.terms.account import Account
from vidal.terms.balance import Chosen, Frequencies, choose, frequencies, totals
from vidal.terms.benchmark import Benchmark
from vidal.terms.captions import Input
from vidal.terms.gather import Gathered
from vidal.terms.plot import plot
from vidal.terms.settings import TermSettings
from vidal.terms.tagged import Tagger

SCHEMA = pa.schema(
    [
        ("term", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("source", pa.string()),
        ("sources", pa.list_(pa.string())),
        ("count", pa.int64()),
        ("quota", pa.int64()),
    ]
)
"""``source`` is the one that the term was chosen from, ``sources`` all that contain it, ``count`` its captions."""
_NO_CAPTION = ("blank", "not_utf8", "not_json", "not_text", "no_field")
METADATA_KEY = b"vidal.terms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The inputs, settings and output files of one run."""

    inputs: Sequence[Input]
    exclude: Sequence[Input]
    settings: TermSettings
    out: Path
    plot: Path | None


def build(order: Order, tagger: Tagger) -> Account:
    """Choose the terms and write them; raises `SourceError` if there are fewer than ``settings.number``."""
    _check_names(order)
    benchmark = Benchmark(order.exclude, tagger, order.settings.overlap_words)
    if order.exclude and not benchmark.captions:
        raise SourceError(f"{', '.join(str(each.path) for each in order.exclude)}: no captions to exclude")
    gathered = Gathered(tagger, benchmark, order.settings.max_words)
    gathered.add(order.inputs)
    for source, count in zip(gathered.sources, gathered.captions, strict=True):
        if count <= sum(gathered.dropped[source, reason] for reason in _NO_CAPTION):
            paths = ", ".join(str(given.path) for given in order.inputs if given.source == source)
            raise SourceError(f"{paths}: no captions in it")
    frequency = frequencies(gathered, order.settings)
    chosen = choose(gathered, frequency, order.settings)
    account = Account.of(gathered, frequency, chosen, benchmark.captions)
    if len(chosen.candidates) < order.settings.number:
        settings = order.settings
        losses = ", ".join(f"{reason} {count:,}" for reason, count in account.losses())
        raise SourceError(
            f"--number {settings.number}: there are {account.terms:,} terms in {account.captions:,} captions "
            f"({losses}); request fewer, or change min_count ({settings.min_count}) or max_share ({settings.max_share})"
        )
    table = _table(gathered, frequency, chosen)
    record = json.dumps(_record(order, tagger, account), ensure_ascii=False, sort_keys=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: record.encode()}), sink, compression="zstd")
    _write(order.out, sink.getvalue().to_pybytes())
    if order.plot is not None:
        _write(order.plot, plot(gathered, frequency, chosen).encode())
    return account


def _check_names(order: Order) -> None:
    if order.out.suffix.lower() != ".parquet":
        raise OutputError(f"{order.out}: terms are written as Parquet; name a file that ends in .parquet")
    if order.plot is not None and order.plot.suffix.lower() != ".svg":
        raise OutputError(f"{order.plot}: the plot is an SVG; name a file that ends in .svg")
    # Resolved, as two names may lead to one file.
    written = {path.resolve() for path in (order.out, order.plot) if path is not None}
    for given in (*order.inputs, *order.exclude):
        if given.path.resolve() in written:
            raise OutputError(f"{given.path}: is an input, and would be overwritten")


def _table(gathered: Gathered, frequency: Frequencies, chosen: Chosen) -> pa.Table:
    keywords: dict[int, list[str]] = {candidate: [] for candidate in chosen.candidates}
    is_chosen = np.isin(frequency.candidate, chosen.candidates)
    for keyword, candidate in zip(
        frequency.keyword[is_chosen].tolist(), frequency.candidate[is_chosen].tolist(), strict=True
    ):
        keywords[candidate].append(frequency.names[keyword])
    named = sorted(zip(gathered.sources, gathered.counts, strict=True))
    columns = [
        [gathered.texts[candidate] for candidate in chosen.candidates],
        [sorted(keywords[candidate]) for candidate in chosen.candidates],
        [gathered.sources[source] for source in chosen.sources],
        [[name for name, counts in named if counts[candidate]] for candidate in chosen.candidates],
        totals(gathered)[chosen.candidates].tolist(),
        chosen.quotas,
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _record(order: Order, tagger: Tagger, account: Account) -> dict[str, Any]:
    def described(given: Input) -> dict[str, Any]:
        return {"source": given.source, "file": given.path.name, "field": given.field, "sha256": file_hash(given.path)}

    return {
        "vidal": vidal.__version__,
        "tagger": tagger.name,
        "settings": order.settings.model_dump(),
        "inputs": [described(given) for given in order.inputs],
        "exclude": [described(given) for given in order.exclude],
        "account": account.as_json(),
    }


def _write(path: Path, data: bytes) -> None:
    # Whoever reads the file meanwhile sees the old one or the new one, never half of it.
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise machine_error(error, str(path)) or OutputError(f"{path}: cannot be written: {error}") from error
