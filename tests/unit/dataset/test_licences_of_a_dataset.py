"""A dataset's licences are counted and its clips credited, and a stranger's title stays a text in every file."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.processes import command
from tests.runs import PAINT, run
from vidal import recipe as recipes
from vidal.dataset.dataset import Dataset
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError
from vidal.export.facts import LOCAL, Facts, host_of, licence_label
from vidal.export.licences import write_licences
from vidal.export.markdown import escaped
from vidal.export.summary import TO_FILL_IN, write_summary
from vidal.licences import NAMES, licence_name, licence_url

HOSTILE = "| [x](javascript:alert(1)) <script>alert('a')</script> `b` \u202egpj.exe\n# c"
ROWS: list[Mapping[str, Any]] = [
    {"url": "https://www.example.org/a.mp4", "title": HOSTILE, "licence": "CC-BY-3.0", "uploader": "=cmd|'/c calc'!A1"},
    {"url": "https://example.org/b.mp4", "title": "a dog", "licence": "Creative Commons Attribution 3.0", "uploader": "Ann"},
    {"url": "https://cdn.test/c.mp4", "title": "a cat", "licence": "</script>mine | all mine", "uploader": "Bo"},
    {"url": "d.mp4", "title": "a cow", "licence": "", "uploader": ""},
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("licensed")
    with (folder / "list.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["clip_id", "url", "title", "licence", "uploader"])
        writer.writeheader()
        writer.writerows({"clip_id": f"c{n}", **row} for n, row in enumerate(ROWS))
    recipe = {
        "name": "licensed",
        "source": {"list": str(folder / "list.csv")},
        "shards": {"size": 3},
        "stages": [PAINT],
    }
    run(recipes.check(recipe, "r"), folder / "out", InProcessEngine())
    return Dataset.open(str(folder / "out"))


def test_the_ledger_counts_spellings_of_one_licence_together(dataset: Dataset, tmp_path: Path) -> None:
    write_licences(dataset, str(tmp_path / "l"), None, None)
    told = json.loads((tmp_path / "l" / "licences.json").read_text())
    assert [(line["licence"], line["clips"], line["url"]) for line in told["licences"]] == [
        ("cc-by 3.0", 2, "https://creativecommons.org/licenses/by/3.0/"),
        ("</script>mine | all mine", 1, None),
        ("not stated", 1, None),
    ]
    assert told["clips"] == 4


def test_every_clip_is_credited_and_no_cell_is_a_formula(dataset: Dataset, tmp_path: Path) -> None:
    write_licences(dataset, str(tmp_path / "l"), None, None)
    credits = {row["clip_id"]: row for row in pq.read_table(tmp_path / "l" / "attribution.parquet").to_pylist()}
    titles = {row["clip_id"]: row["title"] for row in dataset.rows(["clip_id", "title"])}
    assert {clip_id: credit["title"] for clip_id, credit in credits.items()} == titles
    assert credits["c0"]["author"] == ROWS[0]["uploader"]
    with (tmp_path / "l" / "attribution.csv").open(newline="") as handle:
        cells = {row["clip_id"]: row for row in csv.DictReader(handle)}
    assert cells["c0"]["author"] == f"'{ROWS[0]['uploader']}"
    assert {clip_id: cell["url"] for clip_id, cell in cells.items()} == {k: v["url"] for k, v in credits.items()}


@pytest.mark.parametrize("name", ["licences.md", "licences.json"])
def test_a_strangers_text_is_no_markup(name: str, dataset: Dataset, tmp_path: Path) -> None:
    write_licences(dataset, str(tmp_path / "l"), None, None)
    text = (tmp_path / "l" / name).read_text("utf-8")
    assert "<script" not in text and "</script" not in text and "\u202e" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    rows = [line for line in text.splitlines() if line.startswith("| c") and "[cc" not in line]
    assert {len(row.replace(r"\|", "").split("|")) for row in rows} <= {8}


def test_a_summary_says_what_the_manifest_knows_and_marks_the_rest(dataset: Dataset, tmp_path: Path) -> None:
    write_summary(dataset, str(tmp_path / "s"), "clip_id != 'c3'", frozenset({"c0", "c1", "c2"}))
    told = json.loads((tmp_path / "s" / "training-summary.json").read_text())
    sections = {section["number"]: section for section in told["sections"]}
    assert [host["group"] for host in sections["2.3"]["from_manifest"]["Hosts, by size"]] == ["cdn.test", "example.org"]
    assert sections["1.3"]["from_manifest"]["Clips"] == 3
    assert sections["1.3"]["from_manifest"]["Hours of video"] == round(3 * 2 / 3600, 4)
    assert sections["2.6"]["from_manifest"] == {"Clips from local files": 0}
    assert set(sections["1.1"]["to_fill_in"].values()) == {None} and told["where"] == "clip_id != 'c3'"
    page = (tmp_path / "s" / "training-summary.md").read_text()
    assert page.count(f"**{TO_FILL_IN}**\n") == sum(len(s["to_fill_in"]) for s in sections.values())


def test_documents_stay_out_of_a_folder_that_is_not_theirs(dataset: Dataset, tmp_path: Path) -> None:
    write_licences(dataset, str(tmp_path / "l"), None, None)
    with pytest.raises(OutputError, match=r"is an export of dataset licensed .* as licences, not of"):
        write_summary(dataset, str(tmp_path / "l"), None, None)
    with pytest.raises(OutputError, match="is inside the dataset's own folder"):
        write_licences(dataset, f"{dataset.storage.address}/l", None, None)


def test_the_command_writes_them(dataset: Dataset, tmp_path: Path) -> None:
    done = command(
        "export", dataset.storage.address, "--format", "licences", "--out", tmp_path / "l", "--where", "clip_id = 'c1'"
    )
    assert (done.returncode, done.stdout.split(" on ")[1]) == (0, f"1 clips to {tmp_path / 'l'}\n")


def test_facts_are_of_the_kept_clips(dataset: Dataset) -> None:
    facts = Facts.of(dataset)
    assert (facts.all.clips, facts.outcomes) == (4, Counter(kept=4))
    assert {host: tally.clips for host, tally in facts.hosts.items()} == {"example.org": 2, "cdn.test": 1, LOCAL: 1}


@pytest.mark.parametrize(
    ("url", "host"),
    [("https://www.Example.org:8080/a?b", "example.org"), ("http://[::1", "unreadable address"), ("a/b.mp4", LOCAL),
     ("file:///a.mp4", LOCAL), ("s3://bucket/a.mp4", "s3://bucket"), ("https://", "unreadable address")],
)  # fmt: skip
def test_a_host_is_read_from_any_address(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize("name", NAMES)
def test_a_label_has_the_licence_that_it_was_made_of(name: str) -> None:
    assert licence_name(licence_label(name)) == name
    if name.startswith("cc-by"):
        label = licence_label(f"{name} 4.0")
        assert (label, licence_url(label)) == (f"{name} 4.0", f"https://creativecommons.org/licenses/{name[3:]}/4.0/")


@pytest.mark.parametrize(
    ("text", "markdown"),
    [("a | b", r"a \| b"), ("<b>&", "&lt;b&gt;&amp;"), ("a\n# b", "a # b"), ("www.a.b", r"www\.a.b"),
     ("https://a.b", r"https\://a.b"), ("a\u202eb\x00", "ab"), ("x" * 300, "x" * 199 + "…")],
)  # fmt: skip
def test_text_is_escaped_for_markdown(text: str, markdown: str) -> None:
    assert escaped(text) == markdown
