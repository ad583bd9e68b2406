"""A person looks at a million clips in a real browser: what is listed and counted is what the manifests have."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.view import write
from tests.e2e.test_view import Page
from tests.processes import start_vidal
from tools.browser import Browser, chromium

CLIPS = 1_000_000
PAGE = 48

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(chromium() is None, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("million")
    write(out, CLIPS)
    return out


@pytest.fixture(scope="module")
def clips(dataset: Path) -> pd.DataFrame:
    return pd.read_parquet(dataset / "manifest", columns=["clip_id", "status", "stage", "title", "motion", "blur"])


@pytest.fixture(scope="module")
def opened(dataset: Path) -> Iterator[Page]:
    server = start_vidal("view", dataset, "--no-browser")
    assert server.stdout is not None
    with Browser.started(chromium() or "") as browser:
        browser.look(1200, 900)
        yield Page(browser, server.stdout.readline().strip())
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    opened.open_list()
    yield opened
    assert [problem for problem in opened.browser.problems if "api/thumbnail" not in problem] == []


def wait_for(page: Page, clips: pd.DataFrame, begin: int = 0) -> None:
    """Wait for a page of these clips, in this order, and for how many there are."""
    ids = clips["clip_id"][begin : begin + PAGE].tolist()
    place = f"{begin + 1:,}–{begin + len(ids):,} of {len(clips):,} clips"
    page.wait(f"document.getElementById('place').textContent === {json.dumps(place)}")
    assert page.listed() == ids


def test_the_first_pages_are_those_of_the_plan(page: Page, clips: pd.DataFrame) -> None:
    wait_for(page, clips)
    page.press("n")
    wait_for(page, clips, begin=PAGE)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_slider_counts_the_kept_clips_that_pass(page: Page, clips: pd.DataFrame, share: float) -> None:
    kept = clips[clips["status"] == "kept"]
    page.wait(f"document.getElementById('kept').textContent === '{len(kept):,} of {len(kept):,} kept clips pass'")
    page.evaluate("""(() => { const column = document.getElementById('column');
        column.value = 'motion'; column.dispatchEvent(new Event('change')); })()""")
    slider = "document.querySelector('input[aria-label=\"motion at least\"]')"
    page.wait(slider)
    page.slide("motion at least", share)
    limit = float(page.evaluate(f"{slider}.ariaValueText"))
    assert limit == pytest.approx(share, abs=0.01)
    passing = (kept["motion"] >= limit).sum()
    page.wait(f"document.getElementById('kept').textContent === '{passing:,} of {len(kept):,} kept clips pass'")


def test_a_bar_of_the_funnel_lists_its_clips(page: Page, clips: pd.DataFrame) -> None:
    page.wait("document.querySelector('#funnel button')")
    page.evaluate(
        "[...document.querySelectorAll('#funnel button')].find(b => b.textContent.includes('too_long')).click()"
    )
    wait_for(page, clips[clips["stage"] == "too_long"])


def test_a_search_lists_the_clips_with_the_words(page: Page, clips: pd.DataFrame) -> None:
    page.press("/", *"NUMBER 77", "Enter")
    wait_for(page, clips[clips["title"].str.contains("number 77", case=False)])


def test_a_list_is_sorted_by_a_number(page: Page, clips: pd.DataFrame) -> None:
    page.open_list(sort="blur", order="desc")
    wait_for(page, clips.sort_values("blur", ascending=False))
