"""What became of a crawl's candidates by term, host or platform, and how fast its hosts were asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from vidal.dataset import usage
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import DISCOVERED
from vidal.errors import SourceError
from vidal.report.by import By

SHOWN_IN_TERMINAL = 20
SHOWN_IN_PAGE = 100
_COUNTS = ("candidates", "asked", "found", "fetched", "kept", "rejected", "failed", "transient", "open")
_NAME_WIDTH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The ``clips`` of one name that failed for one reason."""

    stage: str
    reason: str
    is_transient: bool
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlGroup:
    """The candidates of one term, host or platform: candidates = kept + rejected + failed + open."""

    name: str | None
    """None for candidates without: a local file has no host."""
    candidates: int
    asked: int
    """A visit was made or attempted; the others were decided before, or are open."""
    found: int
    """The site had it: its file came, or a filter decided on its page."""
    fetched: int
    """The file came."""
    kept: int
    rejected: int
    failed: int
    transient: int
    """Of the failed, those that a retry may mend."""
    open: int
    failures: list[Failure]
    """The failed by reason, most first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The requests that all runs of the dataset charged to one budget, those of its searches and redirects included."""

    name: str
    """Platform or host; ``youtube media`` for media with a rate of their own, ``youtube#guest`` for a guest's."""
    runs: int
    visits: int
    requests: int
    waited_s: float
    asked_s: float
    """From the first to the last request of each run."""
    used_per_s: float | None
    """The rate over that time, pauses included; None for a single request."""
    allowed_per_s: float
    """The rate that the last run's settings, or the host's Crawl-delay, allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """The report of a crawl."""

    by: By
    groups: pa.Table
    """A row per name with the counts of `CrawlGroup`, most candidates first."""
    failures: pa.Table
    """A row per name, stage, reason and ``is_transient`` of failed clips, most clips first."""
    budgets: list[Budget]
    """In the order of requests, most first."""

    @classmethod
    def of(cls, table: pa.Table, dataset: Dataset, by: By) -> Self:
        """Return the report of the table of `vidal.report.outcomes.outcomes`."""
        one = {status: pc.equal(table["status"], status) for status in ("kept", "rejected", "failed")}
        is_open = pc.invert(pc.or_(pc.or_(one["kept"], one["rejected"]), one["failed"]))
        masks = {
            "candidates": pa.scalar(True), "asked": table["is_asked"], "found": table["is_found"],
            "fetched": table["is_fetched"], **one, "transient": pc.and_(one["failed"], table["is_transient"]),
            "open": is_open,
        }  # fmt: skip
        counts = {name: pc.if_else(masks[name], table["clips"], 0) for name in _COUNTS}
        groups = pa.table({"name": table["name"], **counts}).group_by("name").aggregate([(n, "sum") for n in _COUNTS])
        groups = groups.select(["name", *(f"{n}_sum" for n in _COUNTS)]).rename_columns(["name", *_COUNTS])
        keys = ["name", "stage", "reason", "is_transient"]
        failures = table.filter(one["failed"]).group_by(keys).aggregate([("clips", "sum")])
        failures = failures.select([*keys, "clips_sum"]).rename_columns([*keys, "clips"])
        if by is By.term:
            missing = dict.fromkeys(term for term in _terms_asked(dataset))
            for name in groups["name"].to_pylist():
                missing.pop(name, None)
            nothing = pa.repeat(pa.scalar(0, pa.int64()), len(missing))
            columns = {"name": pa.array(missing, pa.string()), **dict.fromkeys(_COUNTS, nothing)}
            groups = pa.concat_tables([groups, pa.table(columns).cast(groups.schema)])
        return cls(
            by=by,
            groups=groups.sort_by([("candidates", "descending"), ("name", "ascending")]),
            failures=failures.sort_by([("clips", "descending"), ("stage", "ascending"), ("reason", "ascending")]),
            budgets=_budgets(list(usage.read(dataset))),
        )

    @property
    def is_any_asked(self) -> bool:
        """Whether any address of the web was visited."""
        return bool(self.budgets) or bool(pc.any(pc.greater(self.groups["asked"], 0)).as_py())

    def top(self, most: int | None = None) -> list[CrawlGroup]:
        """Return the ``most`` groups with the most candidates, or all."""
        groups = self.groups.slice(0, most)
        failures = self.failures
        if most is not None:
            failures = failures.filter(pc.is_in(failures["name"], value_set=groups["name"].combine_chunks()))
        by_name: dict[str | None, list[Failure]] = {}
        for row in failures.to_pylist():
            texts = {"stage": row["stage"] or "", "reason": row["reason"] or ""}
            by_name.setdefault(row.pop("name"), []).append(Failure(**(row | texts)))
        return [CrawlGroup(**row, failures=by_name.get(row["name"], [])) for row in groups.to_pylist()]

    def more(self, most: int) -> int:
        """Return how many groups `top` leaves out."""
        return max(0, int(self.groups.num_rows) - most)

    def lines(self) -> Iterator[str | Table]:
        table = Table(title=f"by {self.by}", title_justify="left", show_edge=False)
        table.add_column(str(self.by))
        shown = ("candidates", "asked", "found", "fetched", "kept", "failed")
        for count in shown:
            table.add_column(count, justify="right", no_wrap=True)
        table.add_column("failures")
        for group in self.top(SHOWN_IN_TERMINAL):
            name, failures = (
                Text(text, overflow="fold") for text in (shown_name(group.name), failures_text(group.failures))
            )
            table.add_row(name, *(str(getattr(group, count)) for count in shown), failures)
        yield table
        if more := self.more(SHOWN_IN_TERMINAL):
            yield f"and {more:,} more"
        if self.budgets:
            yield self._budget_table()
            if len(self.budgets) > SHOWN_IN_TERMINAL:
                yield f"and {len(self.budgets) - SHOWN_IN_TERMINAL:,} more"

    def _budget_table(self) -> Table:
        table = Table(title="requests by platform or host", title_justify="left", show_edge=False)
        table.add_column("budget")
        for name in ("requests", "visits", "used per s", "allowed per s"):
            table.add_column(name, justify="right", no_wrap=True)
        for budget in self.budgets[:SHOWN_IN_TERMINAL]:
            rates = (rate_text(budget.used_per_s), rate_text(budget.allowed_per_s))
            table.add_row(Text(shown_name(budget.name)), str(budget.requests), str(budget.visits), *rates)
        return table

    def as_json(self) -> dict[str, Any]:
        return {
            "by": str(self.by),
            "groups": [asdict(group) for group in self.top()],
            "budgets": [asdict(budget) for budget in self.budgets],
        }


def _terms_asked(dataset: Dataset) -> Iterator[str]:
    """Yield the terms that a search was made for, also those that found nothing or only what another had found."""
    for storage in usage.storages_of_runs(dataset):
        for name in (name for name in storage.names(DISCOVERED) if name.endswith(".jsonl")):
            for line in storage.read(f"{DISCOVERED}/{name}").splitlines():
                try:
                    yield json.loads(line)["term"]
                except (ValueError, KeyError, TypeError):
                    place = f"{storage.address}/{DISCOVERED}/{name}"
                    raise SourceError(f"{place}: not what a search wrote; restore the file, or delete it") from None


def _budgets(runs: Sequence[usage.Counts]) -> list[Budget]:
    by_name: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        for name, counts in run.items():
            by_name.setdefault(name, []).append(counts)
    budgets = []
    for name, counted in by_name.items():
        asked_s = sum(counts["used_at"] - counts["first_at"] for counts in counted)
        # Between n requests there are n - 1 gaps.
        gaps = sum(max(0, counts["requests"] - 1) for counts in counted)
        budgets.append(
            Budget(
                name=name,
                runs=len(counted),
                visits=int(sum(counts["visits"] for counts in counted)),
                requests=int(sum(counts["requests"] for counts in counted)),
                waited_s=sum(counts["waited_s"] for counts in counted),
                asked_s=asked_s,
                used_per_s=gaps / asked_s if gaps and asked_s > 0 else None,
                allowed_per_s=counted[-1]["per_s"],
            )
        )
    return sorted(budgets, key=lambda budget: (-budget.requests, budget.name))


def shown_name(name: str | None) -> str:
    """Return a name from the web for people: short, and without control characters and marks of direction."""
    if name is None:
        return "(none)"
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return plain if len(plain) <= _NAME_WIDTH else f"{plain[: _NAME_WIDTH - 1]}…"


def failures_text(failures: Sequence[Failure]) -> str:
    """Return ``gone 12, private 1; transient: timeout 3``: the clips by reason, most first, whatever their stage."""
    parts = []
    for is_transient in (False, True):
        counts: Counter[str] = Counter()
        for failure in failures:
            if failure.is_transient == is_transient:
                counts[failure.reason] += failure.clips
        text = ", ".join(f"{shown_name(reason)} {clips}" for reason, clips in counts.most_common())
        parts += [f"transient: {text}" if is_transient else text] if text else []
    return "; ".join(parts)


def rate_text(per_s: float | None) -> str:
    """Return a rate with three digits; a dash where it is unknown."""
    return "–" if per_s is None else f"{per_s:.3g}"
