"""The funnel of a dataset for the terminal and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from rich.table import Table

from vidal.dataset.dataset import Dataset, committed
from vidal.dataset.embeddings import files, read_info, teachers_of
from vidal.dataset.lock import run_under_way
from vidal.report.by import By
from vidal.report.crawl import Crawl
from vidal.report.funnel import Funnel
from vidal.report.outcomes import outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far a dataset is, and the outcomes of what is committed."""

    name: str
    revision: int
    made_by: str
    manifest: str
    """Folder of the revision's manifest."""
    layers: list[str]
    teachers: list[dict[str, Any]]
    """Name, checkpoint, modalities and text views of each teacher, its shards in all and those that are there."""
    shards: int
    committed: int
    running: str | None
    """The run that is under way."""
    phases: list[tuple[int, int]]
    """Shards committed and shards in all of each phase that has begun."""
    funnel: Funnel
    stage_order: list[str]
    crawl: Crawl | None
    """Of a dataset whose clips come from the web."""

    @classmethod
    def of(cls, dataset: Dataset, by: By | None = None) -> Status:
        """Return the status; the clips of a crawl are counted ``by`` platform by default, others only if asked for."""
        counted_by = by or (By.platform if _may_crawl(dataset) else None)
        counts = outcomes(dataset, counted_by)
        crawl = Crawl.of(counts, dataset, counted_by) if counted_by else None
        return cls(
            name=dataset.info.name, revision=dataset.number, made_by=dataset.info.made_by,
            manifest=dataset.manifest_address, layers=dataset.info.layers, teachers=_teachers(dataset),
            shards=dataset.info.shards, committed=len(dataset.committed()), running=run_under_way(dataset.storage),
            phases=phases(dataset), funnel=_funnel(counts), stage_order=stage_order(dataset),
            crawl=crawl if by or (crawl and crawl.is_any_asked) else None,
        )  # fmt: skip

    def lines(self) -> Iterator[str | Table]:
        yield f"{self.name}: {self.committed} of {self.shards} shards committed, layers {', '.join(self.layers)}"
        if self.committed < self.shards and len(self.phases) > 1:
            numbered = enumerate(self.phases, 1)
            yield ", ".join(f"phase {number}: {done} of {shards} shards" for number, (done, shards) in numbered)
        if self.revision:
            yield f"revision {self.revision}, by {self.made_by}; its manifest: {self.manifest}"
        for one in self.teachers:
            of = ", ".join([*one["modalities"], *one["views"]])
            yield f"teacher {one['name']}: {of}; {one['shards_there']} of {one['shards']} shards"
        if self.running:
            yield f"a run is under way: {self.running}"
        yield as_table(self.funnel, self.stage_order)
        if self.crawl:
            yield from self.crawl.lines()

    def as_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision, "manifest": self.manifest,
            "shards": self.shards, "shards_committed": self.committed, "running": self.running,
            "teachers": self.teachers,
            "phases": [{"shards": shards, "shards_committed": done} for done, shards in self.phases],
            **as_json(self.funnel, self.stage_order),
            **({"crawl": self.crawl.as_json()} if self.crawl else {}),
        }  # fmt: skip


def _teachers(dataset: Dataset) -> list[dict[str, Any]]:
    found = []
    for name, storage in teachers_of(dataset.own_storage).items():
        info = read_info(storage)
        about = info.model_dump(include={"checkpoint", "modalities", "views", "shards"})
        found.append({"name": name, **about, "shards_there": len(files(storage))})
    return found


def funnel_of(dataset: Dataset) -> Funnel:
    """Count the committed outcomes; candidates without a manifest row are `open`."""
    return _funnel(outcomes(dataset))


def crawls_of(dataset: Dataset) -> list[Crawl]:
    """Return the reports of a crawl by platform, by host where that differs, and by term where there are terms.

    Empty for a dataset whose clips do not come from the web.
    """
    if not _may_crawl(dataset):
        return []
    by_platform, by_host, by_term = (
        Crawl.of(outcomes(dataset, by), dataset, by) for by in (By.platform, By.host, By.term)
    )
    if not by_platform.is_any_asked:
        return []
    crawls = [by_platform]
    if by_host.groups["name"] != by_platform.groups["name"]:
        crawls.append(by_host)
    if by_term.groups["name"].null_count < by_term.groups.num_rows:
        crawls.append(by_term)
    return crawls


def _funnel(counts: pa.Table) -> Funnel:
    funnel = Funnel()
    for row in counts.group_by(["status", "stage", "reason"]).aggregate([("clips", "sum")]).to_pylist():
        funnel.count(row, row["clips_sum"])
    return funnel


def _may_crawl(dataset: Dataset) -> bool:
    """Whether the dataset's own stages fetch, rather than take the files of a dataset."""
    recipe = dataset.info.recipe
    names = {stage["name"] for stage in recipe.get("stages", [])}
    return "fetch" in names and not {"dataset", "datasets"} & recipe.get("source", {}).keys()


def stage_order(dataset: Dataset) -> list[str]:
    """Return the stage names of the dataset's recipe, if it has one, in order, between ``plan`` and ``pack``."""
    return ["plan", *(stage["name"] for stage in dataset.info.recipe.get("stages", [])), "pack"]


def phases(dataset: Dataset) -> list[tuple[int, int]]:
    """Return (committed, total) shards of each phase that has begun; the last phase is the dataset's own."""
    numbers = sorted(int(name) for name in dataset.own_storage.names("phases") if name.isdecimal())
    earlier = [dataset.own_storage.child(f"phases/{number}") for number in numbers]
    return [(len(committed(storage)), dataset.info.shards) for storage in [*earlier, dataset.own_storage]]


def as_json(funnel: Funnel, order: list[str]) -> dict[str, Any]:
    """Return counts that reconcile: candidates = kept + rejected + failed + open; ``dropped`` lists the lines."""
    lines = funnel.lines(order)
    return {
        "candidates": funnel.candidates,
        "kept": funnel.kept,
        "rejected": sum(line.count for line in lines if line.outcome == "rejected"),
        "failed": sum(line.count for line in lines if line.outcome == "failed"),
        "open": funnel.open,
        "dropped": [
            {"stage": line.stage, "status": line.outcome, "reason": line.reason, "clips": line.count} for line in lines
        ],
    }


def as_table(funnel: Funnel, order: list[str]) -> Table:
    """Return a table with one line per stage and reason that dropped clips, and how many were left after it."""
    table = Table(title=f"{funnel.candidates} candidates", title_justify="left", show_edge=False)
    for heading in ("stage", "outcome", "reason"):
        table.add_column(heading)
    table.add_column("clips", justify="right")
    table.add_column("left", justify="right")
    for line in funnel.lines(order):
        table.add_row(line.stage, line.outcome, line.reason, str(line.count), str(line.left))
    table.add_section()
    if funnel.open:
        table.add_row("", "not built yet", "", str(funnel.open), "")
    table.add_row("", "kept", "", str(funnel.kept), "", style="bold")
    return table
