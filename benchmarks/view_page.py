"""What a person sees of `vidal view` in headless Chromium (`view.py --browser`).

The server is a process of its own. A time ends when the browser has painted what was waited for; every number that the
page shows is held against the manifests, and a wrong one ends the benchmark.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from figures import spread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.browser import Browser

MOVES, PAGES, PAGE = 12, 5, 48
WORDS = "NUMBER 77"
_WAIT_MS = 120_000
_ACT = """(async () => {
  const text = (id) => document.getElementById(id).textContent;
  const before = text("kept"), begun = %(begun)s;
  %(act)s;
  await new Promise((done, failed) => {
    const late = () => failed(new Error(`${text("place")}; ${text("kept")}; ${text("message")}`));
    const timer = setTimeout(late, %(wait_ms)d);
    const check = () => {
      if (!(%(until)s)) return;
      observer.disconnect();
      clearTimeout(timer);
      // A task that is set within a frame runs when that frame is painted.
      requestAnimationFrame(() => setTimeout(done));
    };
    const observer = new MutationObserver(check);
    observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
    check();
  });
  return performance.now() - begun;
})()"""
_SLIDER = "document.querySelector('input[aria-label=\"motion at least\"]')"
_CHOOSE = """
const list = document.getElementById("%s");
list.value = "%s";
list.dispatchEvent(new Event("change"))
"""
_ALL = "location.hash = ''"
_LATER = "document.getElementById('later').click()"
_BAR = "[...document.querySelectorAll('#funnel button')].find((bar) => bar.textContent.includes('too_blurry')).click()"
_SEARCH = f"""
document.getElementById("search").value = "{WORDS}";
document.getElementById("search-form").requestSubmit()
"""


class Page:
    """The viewer's page."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def open(self, url: str) -> dict[str, float]:
        """Seconds from the address to the first rows, and to the first slider with the counts of all."""
        self._browser.open(url)
        rows_ms = self._ms("", "document.querySelectorAll('#clips a.clip').length", begun="0")
        slider_ms = self._ms("", "document.querySelector('#cards input[type=range]') && text('kept')", begun="0")
        return {"first_rows_s": rows_ms / 1000, "first_slider_s": slider_ms / 1000}

    def list_s(self, act: str, clips: int, kept: int, *, first: int = 1) -> float:
        """Seconds until a page of so many clips is listed; returns when those kept are counted, too."""
        place = f"{first:,}–{min(first + PAGE - 1, clips):,} of {clips:,} clips"
        taken_ms = self._ms(act, f"text('place') === {json.dumps(place)}")
        self._ms("", f"text('kept') === '{kept:,} of {kept:,} kept clips pass'")
        return taken_ms / 1000

    def offer_motion(self) -> None:
        """Have a slider for `motion`, whichever are there at first."""
        self._ms(_CHOOSE % ("column", "motion"), _SLIDER)

    def slide(self, share: float) -> tuple[float, float, str]:
        """Milliseconds from the event of a slider, moved to a share of its way, to the new count; limit; count."""
        move = f"slider.value = slider.max * {share}; slider.dispatchEvent(new Event('input'))"
        taken_ms = self._ms(f"const slider = {_SLIDER}; {move}", "text('kept') !== before")
        limit, count = self._browser.evaluate(f"[{_SLIDER}.ariaValueText, document.getElementById('kept').textContent]")
        return taken_ms, float(limit) if limit != "any" else 0.0, count

    def _ms(self, act: str, until: str, begun: str = "performance.now()") -> float:
        values = {"act": act, "until": until, "begun": begun, "wait_ms": _WAIT_MS}
        taken_ms: float = self._browser.evaluate(_ACT % values)
        return taken_ms


@contextmanager
def served(out: Path) -> Iterator[str]:
    """The address of a viewer."""
    command = [sys.executable, "-m", "vidal", "view", str(out), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            # Not SIGINT, which a shell lets all ignore that it starts in the background.
            server.terminate()


def moved_ms(page: Page, motion: pa.ChunkedArray) -> list[float]:
    """What moves of the slider take, whose counts are right for the numbers of the kept clips."""
    taken_ms = []
    for n in range(MOVES):
        each_ms, limit, count = page.slide((n + 1) / (MOVES + 1))
        passing = pc.sum(pc.greater_equal(motion, limit)).as_py()
        assert count == f"{passing:,} of {len(motion):,} kept clips pass", f"{count}, for motion >= {limit}"
        taken_ms.append(each_ms)
    page.slide(0)
    return taken_ms


def measure_page(out: Path, executable: str) -> dict[str, Any]:
    """Look at a dataset of `view.py` as a person does."""
    rows = pq.read_table(out / "manifest", columns=["status", "stage", "motion", "title"])
    kept = rows.filter(pc.equal(rows["status"], "kept"))
    every, blurry = (len(rows), len(kept)), pc.sum(pc.equal(rows["stage"], "too_blurry")).as_py()
    # Of the texts that are searched only titles have this word.
    found = [pc.sum(pc.match_substring(some["title"], WORDS, ignore_case=True)).as_py() for some in (rows, kept)]
    with Browser.started(executable) as browser:
        browser.look(1200, 900)
        page, started = Page(browser), time.perf_counter()
        with served(out) as url:
            figures: dict[str, Any] = {"rows": len(rows), "start_s": time.perf_counter() - started, **page.open(url)}
            page.offer_motion()
            figures["slider_ms"] = spread(moved_ms(page, kept["motion"]))
            pages_s = [page.list_s(_LATER, *every, first=n * PAGE + 1) for n in range(1, PAGES + 1)]
            figures["next_page_s"] = spread(pages_s)
            page.list_s(_ALL, *every)
            figures["funnel_s"] = page.list_s(_BAR, blurry, 0)
            page.list_s(_ALL, *every)
            figures["search_s"] = page.list_s(_SEARCH, *found)
            page.list_s(_ALL, *every)
            page.list_s(_LATER, *every, first=PAGE + 1)
            figures["sorted_s"] = page.list_s(_CHOOSE % ("sort", "blur"), *every)
            figures["next_sorted_page_s"] = page.list_s(_LATER, *every, first=PAGE + 1)
        assert not (problems := [each for each in browser.problems if "api/thumbnail" not in each]), problems
    return figures
