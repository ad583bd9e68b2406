"""A person finds clips like a clip, and draws a rectangle on the map of all clips, in a real browser."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_view import EVIL, PHONE, Page
from tests.processes import start_vidal
from tests.runs import EMBED, FEW_LETTERS, LETTERS, SHOW, run, write_recipe
from tools.browser import Browser, chromium
from vidal.engine.local import InProcessEngine

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")

TITLES = [EVIL, *(f"film {'x' * n}" for n in range(11)), "no"]
EXAMPLE, COPY = "c000", "c010"
CANVAS = "document.getElementById('map-canvas')"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """13 clips of ten films with embeddings and hashes of their frames, of which one is rejected."""
    folder = tmp_path_factory.mktemp("map")
    stages = [SHOW, EMBED, "fingerprints", LETTERS, {FEW_LETTERS: {"min": 3}}]
    run(write_recipe(folder, stages, TITLES), folder / "data", InProcessEngine())
    server = start_vidal("view", folder / "data", "--no-browser")
    assert server.stdout is not None
    with Browser.started(chromium() or "") as browser:
        yield Page(browser, server.stdout.readline().strip())
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0


@pytest.fixture(autouse=True)
def shown(page: Page) -> Iterator[None]:
    """Nothing may be amiss in the browser's own eyes."""
    page.browser.look(1200, 1400)
    page.browser.problems.clear()
    yield
    assert [problem for problem in page.browser.problems if "api/thumbnail" not in problem] == []


def open_map(page: Page) -> dict[str, Any]:
    """Open the map by its summary, and return what it draws."""
    page.browser.open(f"{page.url}#")
    page.wait("document.querySelector('#clips a.clip') && !document.getElementById('map').hidden")
    page.evaluate("document.querySelector('#map summary').click()")
    page.wait(f"{CANVAS}.dataset.drawn")
    drawn: dict[str, Any] = page.evaluate("fetch('api/map').then(response => response.json())")
    return drawn


def place(page: Page, across: float, down: float) -> dict[str, float]:
    """Where a share of the map's width and of its height is in the window."""
    page.evaluate(f"{CANVAS}.scrollIntoView()")
    box = page.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({CANVAS}.getBoundingClientRect())")
    return {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}


def mouse(page: Page, kind: str, at: dict[str, float], **more: Any) -> None:
    page.browser.call("Input.dispatchMouseEvent", type=kind, **at, **more)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    places = [place(page, *start), place(page, *end)]
    mouse(page, "mousePressed", places[0], button="left", clickCount=1)
    mouse(page, "mouseMoved", places[1], button="left")
    mouse(page, "mouseReleased", places[1], button="left", clickCount=1)


def colours(page: Page) -> int:
    """How many pixels of the map are drawn on."""
    count: int = page.evaluate(
        f"(({{data}}) => {{ let n = 0; for (let k = 3; k < data.length; k += 4) n += data[k] > 0; return n; }})"
        f"({CANVAS}.getContext('2d').getImageData(0, 0, {CANVAS}.width, {CANVAS}.height))"
    )
    return count


def test_the_map_is_drawn_and_says_what_it_shows(page: Page) -> None:
    drawn = open_map(page)
    assert drawn["drawn"] == len(TITLES) and 100 < colours(page) <= len(TITLES) * 121
    about = page.text("#map-about")
    assert about.startswith(f"{len(TITLES)} clips. The first two principal components of video embeddings of toy@1: ")
    assert page.text("#map-legend") == f"kept {len(TITLES) - 1}rejected 1"
    assert "map=1" in page.evaluate("location.hash")


@pytest.mark.parametrize(("half", "is_left"), [((0.5, 1.0), False), ((0.0, 0.5), True)])
def test_a_rectangle_lists_the_clips_in_it(page: Page, half: tuple[float, float], is_left: bool) -> None:
    drawn = open_map(page)
    middle = (min(drawn["x"]) + max(drawn["x"])) / 2
    wanted = [clip for clip, x in zip(drawn["clip"], drawn["x"], strict=True) if (x < middle) is is_left]
    drag(page, (half[0] + 0.001, 0.01), (half[1] - 0.001, 0.99))
    page.wait_for_clips(*wanted)
    assert 0 < len(wanted) < len(TITLES) and page.text("#boxed").startswith("In a rectangle of the map")
    page.wait(f"document.getElementById('kept').textContent.includes(' of {sum(c != 'c012' for c in wanted)} kept')")
    page.evaluate("document.querySelector('#boxed button').click()")
    page.wait_for_clips(*drawn["clip"])


def test_a_point_shows_its_clip_as_text_and_opens_it(page: Page) -> None:
    drawn = open_map(page)
    k = drawn["x"].index(max(drawn["x"]))
    wanted = drawn["clip"][k]
    width, height = page.evaluate(f"[{CANVAS}.clientWidth, {CANVAS}.clientHeight]")
    middle = [(min(drawn[axis]) + max(drawn[axis])) / 2 for axis in "xy"]
    per = min((size - 24) / (max(drawn[axis]) - min(drawn[axis])) for size, axis in ((width, "x"), (height, "y")))
    at = place(page, 0.5 + (drawn["x"][k] - middle[0]) * per / width, 0.5 - (drawn["y"][k] - middle[1]) * per / height)
    mouse(page, "mouseMoved", at)
    page.wait(f"document.getElementById('map-clip').dataset.clip === {json.dumps(wanted)}")
    page.wait("!document.getElementById('map-clip').hidden && document.querySelector('#map-clip img').naturalWidth")
    assert page.text("#map-clip strong") == TITLES[int(wanted[1:])]
    mouse(page, "mousePressed", at, button="left", clickCount=1)
    mouse(page, "mouseReleased", at, button="left", clickCount=1)
    page.wait(f"document.querySelector('#clip h2') && location.hash.includes({json.dumps(wanted)})")
    page.press("Escape")
    page.wait(f"{CANVAS}.clientWidth && document.querySelector('#clips a.clip')")


def test_more_like_this_lists_the_copy_first(page: Page) -> None:
    page.open_clip(EXAMPLE)
    assert "More like this (video embeddings of toy@1)" in page.text("#clip")
    page.press("~")
    page.wait("!document.getElementById('alike').hidden && document.querySelector('#clips a.clip')")
    page.wait(f"document.querySelectorAll('#clips a.clip').length === {len(TITLES) - 1}")
    assert page.listed()[0] == COPY and page.text("#alike").startswith(f"Like {EXAMPLE}, nearest first, by ")
    assert "likeness 0.99" in page.text("#clips a.clip")
    page.evaluate("""(() => { const by = document.querySelector('#alike select');
        by.value = 'frame_hash'; by.dispatchEvent(new Event('change')); })()""")
    page.wait("document.getElementById('alike').textContent.includes('(differing bits of 64)')")
    page.wait("document.querySelector('#clips a.clip').textContent.includes('likeness 0')")
    assert page.listed()[0] == COPY
    page.evaluate("document.querySelector('#alike button').click()")
    page.wait(f"document.querySelectorAll('#clips a.clip').length === {len(TITLES)}")


def test_a_map_fits_a_phone_and_all_of_it_has_a_name(page: Page) -> None:
    page.browser.look(*PHONE, "dark")
    open_map(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    assert page.evaluate("document.scripts.length") == 1
    page.browser.call("Accessibility.enable")
    nodes = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in ("combobox", "image", "img")]
    assert len(found) > 3 and [node for node in found if not node["name"]["value"]] == []
