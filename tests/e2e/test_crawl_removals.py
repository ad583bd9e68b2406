"""What a crawl does with a list of removals: nobody is asked for what is on it, and nothing of it stays."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.crawls import crawl, crawl_report, rows, write_recipe, written
from tests.processes import command
from tests.site import Site
from vidal.dataset.dataset import Dataset


def remove_from(folder: Path, **named: str) -> None:
    with (folder / "removals.jsonl").open("a") as file:
        file.write(json.dumps(named) + "\n")


@pytest.mark.parametrize("act", ["crawl", "resume", "retry", "grow"])
def test_nobody_is_asked_for_a_clip_on_the_list_of_removals(act: str, tmp_path: Path) -> None:
    with Site() as site:
        busy, page = site.url("/fault/unavailable/late.mp4"), site.url("/page/json-ld/bunny-wake.mp4")
        urls = [site.url("/clip/bunny-apple.mp4"), busy] if act != "grow" else [site.url("/clip/bunny-apple.mp4")]
        recipe = write_recipe(tmp_path, {"urls": urls})
        recipe.write_text(recipe.read_text().replace("size: 16", "size: 1") + "removals: removals.jsonl\n")
        remove_from(tmp_path, uploader="nobody")
        if act != "crawl":
            assert crawl(tmp_path, recipe).returncode == 0
        if act == "resume":
            shard = next(row["shard"] for row in rows(tmp_path) if row["url"] == busy)
            (tmp_path / "crawl" / "manifest" / f"{shard:06d}.parquet").unlink()
        remove_from(tmp_path, url=busy)
        before = len(site.hits)
        how = ["--engine", "local", "--workers", "0"]
        if act == "retry":
            done = command("retry", tmp_path / "crawl", *how)
        elif act == "grow":
            (tmp_path / "more.csv").write_text(f"url\n{busy}\n{page}\n")
            done = command("grow", tmp_path / "crawl", "--source", f"list={tmp_path / 'more.csv'}", *how)
        else:
            done = crawl(tmp_path, recipe)
        # The page, all that the crawl grows by, is no media.
        assert done.returncode == (1 if act == "grow" else 0), done.stderr
        asked = [hit.path for hit in site.hits[before:]]
        assert "/fault/unavailable/late.mp4" not in asked
        found = list(Dataset.open(str(tmp_path / "crawl")).rows())
        removed = [row for row in found if row["reason"] == "removed"]
        assert [(row["status"], row["stage"], row["url"], row["crawled_at"]) for row in removed] == [
            ("rejected", "plan", "", None)
        ]
    assert sum(budget["requests"] for budget in crawl_report(tmp_path)["budgets"]) == len(site.hits)


def test_a_clip_whose_uploader_the_page_names_is_not_downloaded_where_they_are_on_the_list(tmp_path: Path) -> None:
    with Site() as site:
        pages = [site.url(f"/page/{kind}/bunny-{name}.mp4") for kind, name in (("json-ld", "wake"), ("og", "apple"))]
        recipe = write_recipe(tmp_path, {"urls": pages}, via="platform")
        recipe.write_text(recipe.read_text() + "removals: removals.jsonl\n")
        remove_from(tmp_path, uploader="A. Uthor")
        done = crawl(tmp_path, recipe)
        assert done.returncode == 0, done.stderr
        asked = Counter(hit.path for hit in site.hits)
        # yt-dlp looks at the head of a page's file for its metadata; the file itself is a second request.
        assert (asked["/page/json-ld/bunny-wake.mp4"], asked["/clip/bunny-wake.mp4"]) == (1, 1)
        assert "/clip/bunny-apple.mp4" in asked
        removed = next(row for row in rows(tmp_path) if row["reason"] == "removed")
        assert (removed["stage"], removed["url"], removed["title"], removed["uploader"]) == ("fetch", "", None, None)
        assert b"A. Uthor" not in written(tmp_path)


def everything_in(folder: Path) -> bytes:
    """Every byte of every file, tables decoded as well as packed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    tables = (str(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet")
    return b"".join([*(path.read_bytes() for path in files), *tables])


def test_the_address_of_a_removed_clip_is_in_no_file_of_the_crawl_and_does_not_come_back(tmp_path: Path) -> None:
    out, terms, gone = tmp_path / "crawl", tmp_path / "terms.txt", b"bunny-apple"
    terms.write_text("bunny\nbutter\n")
    with Site() as site:
        source = {"search": str(terms), "address": site.url("/page/playlist?q={term}"), "per_term": 3}
        assert crawl(tmp_path, write_recipe(tmp_path, source)).returncode == 0
        row = next(row for row in rows(tmp_path) if "apple" in row["url"])
        assert everything_in(out / "discovered").count(gone) == 2 and gone in everything_in(out / "manifest")
        (tmp_path / "ids.txt").write_text(row["clip_id"])
        assert command("remove", out, "--ids", tmp_path / "ids.txt").returncode == 0
        assert gone not in everything_in(out) and b"bunny-flower" in everything_in(out / "discovered")
        # Another term finds the same three, of which the removed one is not even stored.
        terms.write_text("honey\n")
        done = command("grow", out, "--source", f"search={terms}", "--engine", "local", "--workers", "0")
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stderr
    assert b"honey" in everything_in(out / "revisions" / "1" / "grown" / "discovered")
    assert gone not in everything_in(out)


def test_a_host_that_only_removed_clips_have_is_in_no_file_and_the_crawl_can_be_run_again(tmp_path: Path) -> None:
    out = tmp_path / "crawl"
    with Site() as site:
        urls = [
            site.url("/clip/bunny-apple.mp4", 1),
            site.url("/clip/bunny-apple.mp4", 1),
            site.url("/fault/gone/x", 2),
        ]
        recipe = write_recipe(tmp_path, {"urls": [site.url("/clip/bunny-flower.mp4"), *urls]})
        assert crawl(tmp_path, recipe).returncode == 0
        assert b"127.0.0.2" in everything_in(out / "usage") and b"bunny-apple" in (out / "dataset.json").read_bytes()
        (tmp_path / "urls.txt").write_text(f"{urls[0]}\n")
        assert command("remove", out, "--ids", tmp_path / "urls.txt").returncode == 0
        left = everything_in(out)
        assert b"127.0.0.2" not in left and b"bunny-apple" not in left and left.count(b"127.0.0.3") > 1
        assert b"127.0.0.1" in everything_in(out / "usage") and b"127.0.0.3" in everything_in(out / "usage")
        assert "nothing to do" in crawl(tmp_path, recipe).stdout
        retried = command("retry", out, "--reason", "gone", "--engine", "local", "--workers", "0")
        assert retried.returncode == 0, retried.stderr
