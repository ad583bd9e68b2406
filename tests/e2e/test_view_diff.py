"""A person compares a dataset with an earlier one in a real browser."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_view import EVIL, PHONE, Page
from tests.processes import start_vidal
from tests.runs import AUDIO, CAPTION, FEW_LETTERS, LETTERS, PAINT, SHADE, run, write_recipe
from tools.browser import Browser, chromium
from vidal.engine.local import InProcessEngine

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")

BEFORE = [f"film {'abcdefgh'[n % 8] * (n + 1)}" for n in range(26)]
# Five letters are too few by now, the last clip is no candidate, and the others have other captions.
AFTER = ["film", *(f"{title} again" for title in BEFORE[1:24]), EVIL]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("diff")
    stages = [PAINT, LETTERS, SHADE, AUDIO, CAPTION]
    run(write_recipe(folder, stages, BEFORE), folder / "before", InProcessEngine())
    stages = [PAINT, LETTERS, {FEW_LETTERS: {"min": 5}}, SHADE, AUDIO, CAPTION]
    run(write_recipe(folder, stages, AFTER), folder / "after", InProcessEngine())
    with served(folder / "after", folder / "before") as url, Browser.started(chromium() or "") as browser:
        yield Page(browser, url)


class served:
    """The address of a viewer that compares two datasets."""

    def __init__(self, after: Path, before: Path) -> None:
        self.server = start_vidal("view", after, "--against", before, "--no-browser")

    def __enter__(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.server.send_signal(signal.SIGINT)
        assert self.server.wait(30) == 0


@pytest.fixture(autouse=True)
def comparison(page: Page) -> Iterator[None]:
    """The comparison, opened by its link; nothing may be amiss in the browser's own eyes."""
    page.browser.look(1200, 900)
    page.browser.problems.clear()
    page.browser.open(f"{page.url}#")
    page.wait("document.querySelector('#clips a.clip') && !document.getElementById('compared').hidden")
    page.evaluate("document.getElementById('compared').click()")
    page.wait("document.querySelector('#shifts table')")
    yield
    assert [problem for problem in page.browser.problems if "api/thumbnail" not in problem] == []


def bar(text: str) -> str:
    return f"[...document.querySelectorAll('#diff .bar')].find(one => one.textContent.includes({json.dumps(text)}))"


def test_clips_that_went_are_listed_by_what_rejected_them(page: Page) -> None:
    page.evaluate(f"{bar('kept → rejected by few_letters')}.click()")
    page.wait_for_clips("c000")
    assert page.text("#moved").startswith("went: kept → rejected by few_letters")
    page.evaluate("document.querySelector('#moved button').click()")
    page.wait(f"document.querySelectorAll('#clips a.clip').length === {len(AFTER)}")
    assert page.evaluate("document.getElementById('moved').hidden")


def test_a_condition_and_a_search_hold_within_a_move(page: Page) -> None:
    page.evaluate(f"{bar('kept → kept')}.click()")
    page.wait(f"document.querySelectorAll('#clips a.clip').length === {len(AFTER) - 1}")
    page.press("/", *"aaaa", "Enter")
    page.wait_for_clips("c008", "c016")
    assert "stayed" in page.text("#moved")


def test_clips_that_are_no_candidates_any_more_are_named(page: Page) -> None:
    assert page.evaluate(f"{bar('kept → not a candidate')}.disabled")
    assert "c025" in page.evaluate(f"{bar('kept → not a candidate')}.parentElement.textContent")


def test_numbers_and_settings_that_differ_are_shown(page: Page) -> None:
    rows = page.evaluate("[...document.querySelectorAll('#shifts tbody tr')].map(row => row.cells[0].textContent)")
    assert "letters" in rows and "duration_s" not in rows
    assert "stages.few_letters: absent → present" in page.text("#diff pre")


def test_texts_stand_side_by_side_page_by_page_and_as_text(page: Page) -> None:
    cells = "[...document.querySelectorAll('#diff tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    shown = page.evaluate(cells)
    assert any(row[1] == "caption" and row[3] == row[2] + " again" for row in shown if len(row) == 4)
    page.press("n")
    page.wait("document.getElementById('texts-earlier') && !document.getElementById('texts-earlier').disabled")
    shown += page.evaluate(cells)
    assert any(EVIL in cell for row in shown for cell in row)
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('#diff img').length") == 0
    page.evaluate("document.querySelector('#diff td a').click()")
    page.wait("document.querySelector('#clip h2')")
    page.press("Escape")
    page.wait("!document.getElementById('diff').hidden && document.querySelector('#shifts table')")
    page.press("Escape")
    page.wait("document.querySelector('#clips a.clip')")


def test_it_fits_a_phone_and_has_a_name_for_screen_readers(page: Page) -> None:
    page.browser.look(*PHONE, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    page.browser.call("Accessibility.enable")
    nodes = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in ("button", "link")]
    assert len(found) > 8 and [node for node in found if not node["name"]["value"]] == []
