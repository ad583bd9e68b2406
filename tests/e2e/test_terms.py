"""Search terms through the public door: lists of labels in, a file of terms out that a crawl reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.processes import command, vidal
from vidal.sources.search import read_terms

LISTS = sorted((ROOT / "manifests" / "terms").glob("*.txt"))
KINETICS = ROOT / "manifests" / "terms" / "kinetics-400.txt"


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """3,000 terms of the lists that ship, with Kinetics kept out, and the account of them."""
    out = tmp_path_factory.mktemp("terms") / "terms.parquet"
    plot = out.with_suffix(".svg")
    done = command("terms", *LISTS, "--exclude", KINETICS, "--number", "3000", "--out", out, "--plot", plot, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_every_label_is_a_term_or_counted_under_the_reason_why_it_is_none(
    chosen: tuple[Path, dict[str, Any]],
) -> None:
    out, account = chosen
    labels = sum(len(path.read_text().splitlines()) for path in LISTS)
    terms = pd.read_parquet(out)

    assert account["captions"] == labels
    others = sum(account[name] for name in ("repeats", "near_duplicates", "out_of_bounds", "not_chosen"))
    dropped = sum(sum(sources.values()) for sources in account["dropped"].values())
    assert account["captions"] == account["terms"] + others + dropped
    assert len(terms) == account["terms"] == 3000
    assert terms["term"].is_unique


def test_no_term_is_a_label_of_the_benchmark(chosen: tuple[Path, dict[str, Any]]) -> None:
    terms = pd.read_parquet(chosen[0])
    actions = {line.lower() for line in KINETICS.read_text().splitlines()}
    assert not actions & set(terms["term"].str.lower())
    assert "kinetics-400" not in set(terms["source"])


def test_a_crawl_searches_for_each_term_as_often_as_its_quota_says(chosen: tuple[Path, dict[str, Any]]) -> None:
    terms = pd.read_parquet(chosen[0])
    assert list(read_terms(chosen[0])) == list(zip(terms["term"], terms["quota"], strict=True))


def test_the_same_lists_give_the_same_bytes_in_another_process(
    chosen: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again = tmp_path / "again.parquet"
    vidal("terms", *LISTS, "--exclude", KINETICS, "--number", "3000", "--out", again)
    assert again.read_bytes() == chosen[0].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.txt"], "missing.txt: no such file"),
        (["table.csv:headline"], "headline"),
        (["table.csv"], "table.csv"),
        (["broken.jsonl:text"], "not_json 1"),
        (["lines.txt", "--set", "min_count=many"], "min_count"),
        (["lines.txt", "--set", "minimum=3"], "minimum"),
        (["lines.txt", "--exclude", "missing.txt"], "missing.txt: no such file"),
        (["empty.txt"], "empty.txt"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("caption,title\na dog runs,dog\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a dog"}\n{"text": \n')
    (tmp_path / "lines.txt").write_text("a dog runs\na dog sleeps\n")
    (tmp_path / "empty.txt").write_text("")
    out = tmp_path / "terms.parquet"
    files = [str(tmp_path / each) if each[0] != "-" and "." in each else each for each in arguments]

    done = command("terms", *files, "--out", out)

    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("vidal: ") and said in lines[0], done.stderr
    assert not out.exists()
