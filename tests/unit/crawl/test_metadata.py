"""yt-dlp's metadata to crawl columns, on metadata in yt-dlp's documented form, written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vidal.crawl.metadata import TABLE, crawl_columns, hashtags

CASES = json.loads(Path(__file__).with_name("youtube_metadata.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[case["about"] for case in CASES])
def test_fields_become_columns(case: dict[str, Any]) -> None:
    columns = crawl_columns(case["info"])
    assert {name: columns[name] for name in case["columns"]} == case["columns"]
    assert set(columns) == {column for column, _, _ in TABLE} | {"hashtags"}


def test_the_first_case_names_every_column() -> None:
    assert set(CASES[0]["columns"]) | {"description"} == set(crawl_columns({}))


def test_any_metadata_can_be_stored() -> None:
    pa.Table.from_pylist([crawl_columns(case["info"]) for case in CASES])


def test_a_video_without_any_metadata_has_empty_columns() -> None:
    assert {str(value) for value in crawl_columns({}).values()} == {"None", "[]"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#one #Two #one", ["one", "Two"]), ("#ONE #one", ["ONE"]), ("no tag", []), ("a#b", []), ("#1 #2nd", ["2nd"]),
        ("https://x.org/#frag &#39;", []), ("#fun, #sun! (#run)", ["fun", "sun", "run"]), ("##twice", []), ("#日本語。#次", ["日本語", "次"]),
        ("#émoji🎬", ["émoji🎬"]), ("#a_b-c", ["a_b-c"]), ("", []),
    ],
)  # fmt: skip
def test_hashtags_are_found_in_any_script(text: str, found: list[str]) -> None:
    assert hashtags(text) == found


def test_long_texts_are_cut() -> None:
    columns = crawl_columns({"title": "t" * 9000, "description": "d" * 90_000, "tags": ["x"] * 9000})
    assert (len(columns["title"]), len(columns["description"]), len(columns["tags"])) == (2000, 20_000, 200)
