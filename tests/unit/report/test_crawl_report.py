"""What became of a crawl's candidates by platform, host and term, on manifests made by hand."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.conftest import ROOT
from tests.processes import command
from tests.store import s3_server
from vidal.clip import SCHEMA_VERSION, Clip, manifest_schema
from vidal.dataset import manifest, planning
from vidal.dataset import plan as plans
from vidal.dataset.dataset import Dataset, DatasetInfo, write_info
from vidal.dataset.storage import Storage
from vidal.report.by import By
from vidal.report.crawl import Failure, failures_text, shown_name
from vidal.report.summary import Status, crawls_of
from vidal.rows import whole

EVIL = "<script>alert(1)</script>\x1b[31m\u202e[bold]"
AT = {"crawled_at": "2026-11-26T12:00:00Z"}
CAME = {**AT, "source_sha256": "0" * 64}
LOST = {**AT, "status": "failed", "stage": "fetch"}


def clip(url: str, term: str | None = "a dog", **columns: Any) -> Clip:
    return Clip(**{"url": url, "search_term": term, "status": "kept", **columns})


CLIPS = [
    clip("https://www.youtube.com/watch?v=1", platform="youtube", **CAME),
    clip("https://youtu.be/2", platform="youtube", **CAME),
    clip("https://m.youtube.com/watch?v=3", **LOST, reason="gone"),
    clip("https://m.youtube.com/watch?v=4", **LOST, reason="blocked", is_transient=True),
    clip("https://youtu.be/5", platform="youtube", **AT, status="rejected", stage="fetch", reason="too_long"),
    clip("https://tube.example/6", "a cat", platform="peertube", **CAME),
    clip("http://user:p@ss@Tube.Example:8080/7", "a cat", **LOST, reason="timeout", is_transient=True),
    clip("https://films.example/8.mp4", EVIL, **CAME, status="failed", stage="probe", reason="undecodable"),
    clip("https://films.example/9.mp4", EVIL, status="rejected", stage="plan", reason="removed"),
    clip("https://[2001:db8::1]:443/10.mp4", platform="generic", **CAME),
    clip("somewhere/11.mp4", None, source_sha256="0" * 64),
    # Of a list that states a hash, whose file never came.
    clip("https://films.example/12.mp4", **{**CAME, **LOST}, reason="changed_content"),
]
OPEN = [clip("https://films.example/13.mp4", "a cat", status="candidate")]


def dataset_of(folder: Path | str, shards: list[list[Clip]], uncommitted: list[Clip] = [], **recipe: Any) -> Dataset:  # noqa: B006
    """A dataset of these rows; the last shard is not committed."""
    storage = Storage(str(folder))
    rows = [row for shard in [*shards, uncommitted] for row in shard]
    for number, shard in enumerate(shards):
        storage.write(manifest.name_of(number), manifest.to_parquet(shard, pa.schema([]), {}))
    candidates = pa.table({"url": [row.url for row in rows], "search_term": [row.search_term for row in rows]})
    plan = whole(planning.make(candidates, shard_size=1, seed=0))
    shard_of = [number for number, shard in enumerate([*shards, uncommitted]) for _ in shard]
    plan = plan.take(pa.array([plan["url"].to_pylist().index(row.url) for row in rows]))
    plan = plan.set_column(plan.column_names.index("shard"), "shard", pa.array(shard_of))
    plans.write_cuts(storage, plan, [plans.Cut(len(rows), max(1, len(rows)))])
    info = DatasetInfo(
        name="crawl", schema_version=SCHEMA_VERSION, fingerprint="0", layers=[], candidates=len(rows),
        shards=len(shards) + bool(uncommitted), definition={}, created_by="vidal",
        recipe={"source": {"search": "0"}, "stages": [{"name": "fetch"}, {"name": "probe"}], **recipe},
    )  # fmt: skip
    write_info(storage, info)
    return Dataset.open(str(folder))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return dataset_of(tmp_path / "crawl", [CLIPS[:5], CLIPS[5:9], CLIPS[9:]], OPEN)


def counted(dataset: Dataset, by: By) -> dict[str | None, tuple[int, ...]]:
    crawl = Status.of(dataset, by).crawl
    assert crawl is not None
    groups = crawl.top()
    assert all(g.candidates == g.kept + g.rejected + g.failed + g.open for g in groups)
    assert sum(g.candidates for g in groups) == len(CLIPS) + len(OPEN)
    assert [g.candidates for g in groups] == sorted((g.candidates for g in groups), reverse=True)
    return {g.name: (g.candidates, g.asked, g.found, g.fetched, g.kept, g.failed, g.transient) for g in groups}


COUNTS: dict[By, dict[str | None, tuple[int, ...]]] = {
    # candidates, asked, found, fetched, kept, failed, transient
    By.platform: {
        "youtube": (5, 5, 3, 2, 2, 2, 1),
        "films.example": (4, 2, 1, 1, 0, 2, 0),
        "peertube": (2, 2, 1, 1, 1, 1, 1),
        "2001:db8::1": (1, 1, 1, 1, 1, 0, 0),
        None: (1, 0, 0, 0, 1, 0, 0),
    },
    By.host: {
        "www.youtube.com": (1, 1, 1, 1, 1, 0, 0),
        "youtu.be": (2, 2, 2, 1, 1, 0, 0),
        "m.youtube.com": (2, 2, 0, 0, 0, 2, 1),
        "films.example": (4, 2, 1, 1, 0, 2, 0),
        "tube.example": (2, 2, 1, 1, 1, 1, 1),
        "2001:db8::1": (1, 1, 1, 1, 1, 0, 0),
        None: (1, 0, 0, 0, 1, 0, 0),
    },
    By.term: {
        "a dog": (7, 7, 4, 3, 3, 3, 1),
        "a cat": (3, 2, 1, 1, 1, 1, 1),
        EVIL: (2, 1, 1, 1, 0, 1, 0),
        None: (1, 0, 0, 0, 1, 0, 0),
    },
}


@pytest.mark.parametrize("by", By)
def test_every_candidate_counts_once_for_its_platform_its_host_and_its_term(dataset: Dataset, by: By) -> None:
    assert counted(dataset, by) == COUNTS[by]


def test_the_page_counts_by_platform_by_host_and_by_term(dataset: Dataset, tmp_path: Path) -> None:
    done = command("report", dataset.address, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "report.html").read_text().split("<h3>By ")[1:]
    for table, by in zip(tables, (By.platform, By.host, By.term), strict=True):
        assert table.startswith(str(by))
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in table.split("</table>")[0].split("<tr>")[2:]]
        # Names are escaped and shortened, so counts alone are compared.
        assert sorted([int(cell) for cell in row[1:6]] for row in rows) == sorted(
            [*counts[:5]] for counts in COUNTS[by].values()
        )


def test_failures_are_told_by_reason_and_whether_they_may_pass(dataset: Dataset) -> None:
    told = json.loads(command("status", dataset.address, "--json").stdout)["crawl"]
    assert told["by"] == "platform"
    youtube = next(group for group in told["groups"] if group["name"] == "youtube")
    assert youtube["failures"] == [
        {"stage": "fetch", "reason": "blocked", "is_transient": True, "clips": 1},
        {"stage": "fetch", "reason": "gone", "is_transient": False, "clips": 1},
    ]


COUNTED = {"visits": 2, "requests": 11, "waited_s": 3.0, "first_at": 100.0, "used_at": 120.0, "per_s": 1.0}


def usage(dataset: Dataset, number: int, **budgets: dict[str, float]) -> None:
    dataset.storage.write(f"usage/2026112{number}T000000Z-0-fetch.json", json.dumps(budgets).encode())


def test_the_rate_used_is_that_of_all_runs_beside_what_the_last_one_allowed(dataset: Dataset) -> None:
    usage(dataset, 1, youtube=COUNTED)
    usage(dataset, 2, youtube={**COUNTED, "requests": 21, "first_at": 500.0, "used_at": 540.0, "per_s": 0.6})
    usage(dataset, 3, films={**COUNTED, "requests": 1, "used_at": 100.0})
    crawl = crawls_of(dataset)[0]
    youtube, films = crawl.budgets
    assert (youtube.name, youtube.runs, youtube.requests, youtube.asked_s) == ("youtube", 2, 32, 60)
    assert (youtube.used_per_s, youtube.allowed_per_s, films.used_per_s) == (30 / 60, 0.6, None)
    said = command("status", dataset.address).stdout
    assert ["youtube", "32", "4", "0.5", "0.6"] in [line.replace("│", " ").split() for line in said.splitlines()]


def test_a_term_that_found_nothing_new_is_told_too(dataset: Dataset) -> None:
    for number, folder in enumerate(("", "revisions/1/grown/")):
        lines = [{"asked": "1", "term": term, "rows": []} for term in ("a dog", f"a unicorn {number}")]
        text = "\n".join(json.dumps(line) for line in lines)
        dataset.storage.write(f"{folder}discovered/000000.jsonl", text.encode())
    dataset.storage.write("discovered/secrets.json", b"[]")
    crawl = Status.of(dataset, By.term).crawl
    assert crawl is not None
    groups = {group.name: group.candidates for group in crawl.top()}
    assert groups == {name: counts[0] for name, counts in COUNTS[By.term].items()} | {"a unicorn 0": 0}


@pytest.mark.parametrize("text", [b"{", b"{}", b"[]"])
def test_damaged_answers_of_a_search_are_one_line(dataset: Dataset, text: bytes) -> None:
    dataset.storage.write("discovered/000000.jsonl", text)
    done = command("status", dataset.address, "--by", "term")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "discovered/000000.jsonl: not what" in done.stderr


def test_a_crawl_in_an_object_store_is_told_alike(dataset: Dataset) -> None:
    with s3_server("crawls"):
        there = dataset_of("s3://crawls/films", [CLIPS[:5], CLIPS[5:9], CLIPS[9:]], OPEN)
        usage(there, 1, youtube=COUNTED)
        usage(dataset, 1, youtube=COUNTED)
        for by in By:
            said, wanted = (command("status", each.address, "--by", by, "--json").stdout for each in (there, dataset))
            assert json.loads(said)["crawl"] == json.loads(wanted)["crawl"]


def test_a_damaged_record_of_a_run_is_one_line(dataset: Dataset) -> None:
    dataset.storage.write("usage/1.json", b"{")
    done = command("status", dataset.address)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "usage/1.json: not JSON; delete it" in done.stderr


def test_text_of_the_web_is_neither_markup_nor_a_command_of_the_terminal(dataset: Dataset, tmp_path: Path) -> None:
    done = command("status", dataset.address, "--by", "term")
    assert done.returncode == 0
    assert "<script>alert(1)</script>\ufffd[31m\ufffd[bold]" in done.stdout
    assert not {"\x1b", "\u202e"} & set(done.stdout)
    dataset = dataset_of(tmp_path / "hosts", [[clip("https://<b>\u202e.example/1", **CAME)]])
    done = command("report", dataset.address, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Crawl</h2>" in page and "&lt;b&gt;\ufffd.example" in page and "<b>\ufffd" not in page


def test_of_many_hosts_the_terminal_has_those_with_the_most_candidates(tmp_path: Path) -> None:
    clips = [clip(f"https://host{n}.example/{m}", **CAME) for n in range(25) for m in range(n + 1)]
    dataset = dataset_of(tmp_path / "crawl", [clips])
    said = command("status", dataset.address, "--by", "host").stdout
    assert "host24.example" in said and "host5.example" in said and "host4.example" not in said
    assert said.endswith("and 5 more\n")
    told = json.loads(command("status", dataset.address, "--by", "host", "--json").stdout)
    assert len(told["crawl"]["groups"]) == 25


@pytest.mark.parametrize(
    ("shards", "recipe"),
    [
        ([[clip("a.mp4", source_sha256="0" * 64)]], {}),
        ([CLIPS], {"source": {"dataset": "0"}}),
        ([CLIPS], {"stages": [{"name": "probe"}]}),
    ],
    ids=["files of this machine", "from a crawl", "nothing fetched"],
)
def test_a_dataset_that_did_not_crawl_has_no_such_table_unless_asked_for(
    tmp_path: Path, shards: list[list[Clip]], recipe: dict[str, Any]
) -> None:
    dataset = dataset_of(tmp_path / "built", shards, **recipe)
    assert "crawl" not in json.loads(command("status", dataset.address, "--json").stdout)
    assert command("status", dataset.address, "--by", "term").stdout.count("a dog") == 1


def test_a_dataset_of_an_earlier_schema_can_be_counted() -> None:
    done = command("status", ROOT / "tests" / "datasets" / "schema-3", "--by", "term")
    assert done.returncode == 0 and "(none)" in done.stdout


def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    rows, shard = 1_000_000, 20_000
    schema = manifest_schema(pa.schema([]))
    info = dataset_of(tmp_path / "crawl", [CLIPS[:1]]).info
    storage = Storage(str(tmp_path / "crawl"))
    for number in range(rows // shard):
        values: dict[str, list[Any]] = {
            "url": [f"https://host{n % 3000}.example/watch?v={number}-{n}" for n in range(shard)],
            "search_term": [f"term {(number * shard + n) % 50_000}" for n in range(shard)],
            "status": ["failed" if n % 3 else "kept" for n in range(shard)],
            "stage": ["fetch" if n % 3 else None for n in range(shard)],
            "reason": [("gone", "private", "timeout")[n % 7 % 3] if n % 3 else None for n in range(shard)],
            "is_transient": [bool(n % 2) if n % 3 else None for n in range(shard)],
            "crawled_at": [AT["crawled_at"]] * shard,
            "source_sha256": [None if n % 3 else f"{n:064x}" for n in range(shard)],
        }
        columns = [
            pa.array(values[field.name], pa.string() if pa.types.is_dictionary(field.type) else field.type).cast(
                field.type
            )
            if field.name in values
            else pa.nulls(shard, field.type)
            for field in schema
        ]
        storage.write(manifest.name_of(number), manifest.table_to_parquet(pa.table(columns, schema=schema)))
    write_info(storage, info.model_copy(update={"candidates": rows, "shards": rows // shard}))
    dataset, started = Dataset.open(storage.address), time.process_time()
    status = Status.of(dataset, By.term)
    assert status.crawl is not None and len(status.crawl.top(20)) == 20
    assert status.funnel.candidates == rows and status.crawl.groups.num_rows == 50_000
    assert time.process_time() - started < 15


def test_names_are_cut_and_reasons_are_added_up_over_stages() -> None:
    assert shown_name("a" * 100) == "a" * 47 + "…" and shown_name(None) == "(none)"
    failures = [("fetch", "not_media", 2), ("fetch", "timeout", 9), ("fetch", "gone", 3), ("probe", "not_media", 2)]
    told = [
        Failure(stage=stage, reason=reason, is_transient=reason == "timeout", clips=clips)
        for stage, reason, clips in failures
    ]
    assert failures_text(told) == "not_media 4, gone 3; transient: timeout 9"
    assert failures_text(told[1:2]) == "transient: timeout 9" and failures_text([]) == ""
