"""Take the screenshots of docs/viewer.md with a headless Chromium.

    python -m tools.screenshots [data/sample]

The dataset is the sample, as `make build-shards` builds it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.browser import Browser, chromium
from vidal.dataset.dataset import Dataset
from vidal.view.api import Api
from vidal.view.server import Server, serve

DOCS = Path(__file__).parent.parent / "docs"
_QUALITY_PERCENT = 75
# Those below the window are not loaded.
_IMAGES_ARE_THERE = (
    "[...document.images].every(image => image.complete || image.getBoundingClientRect().top > innerHeight)"
)
LIST_IS_THERE = (
    f"document.querySelector('#clips .clip') && document.querySelector('#cards .card') && {_IMAGES_ARE_THERE}"
)
CLIP_IS_THERE = f"document.querySelector('.player canvas[data-frame]') && {_IMAGES_ARE_THERE}"
SLIDE = """
for (const [selector, share] of {slides}) {{
  const slider = document.querySelector(selector);
  slider.value = Number(slider.min) + share * (slider.max - slider.min);
  slider.dispatchEvent(new Event("input"));
}}
"""
TIME = SLIDE.format(slides="[['.controls input', 0.46]]")
MOTION = """
const column = document.getElementById("column");
column.value = "motion";
column.dispatchEvent(new Event("change"));
"""


_MAP_IS_THERE = "document.querySelector('#map-canvas[data-drawn]')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One screenshot: what is opened, and what is done and waited for before it is taken."""

    name: str
    route: str
    width: int
    height: int
    scheme: str
    steps: tuple[tuple[str, str], ...]
    """What has to be true, and what is run then."""
    settle_s: float = 0.5
    """How long the page draws after the last step."""


SHOTS = (
    Shot(
        name="viewer-clip", route="clip=bunny-flower&place=1", width=1280, height=860, scheme="light",
        steps=((CLIP_IS_THERE, TIME),),
    ),
    Shot(
        name="viewer-list", route="", width=1280, height=1280, scheme="dark",
        steps=(
            (LIST_IS_THERE, "document.querySelectorAll('#cards h3 button').forEach(button => button.click())"),
            ("!document.querySelector('#cards .card')", MOTION),
            (
                "document.querySelector('#cards .card')",
                SLIDE.format(slides="[['input[aria-label=\"motion at least\"]', 0.3]]") + "scrollTo(0, 0)",
            ),
            ("!document.getElementById('applied').hidden", ""),
        ),
    ),
    Shot(
        name="viewer-map", route="map=1&box=-1.3,0,0.9,1.8", width=1280, height=900, scheme="light",
        steps=((f"{LIST_IS_THERE} && {_MAP_IS_THERE}", "document.getElementById('map').scrollIntoView()"),),
    ),
    Shot(
        name="viewer-phone", route="clip=bunny-flower&place=1", width=360, height=740, scheme="dark",
        steps=((CLIP_IS_THERE, TIME),),
    ),
)  # fmt: skip


@contextlib.contextmanager
def served(address: str, against: str | None = None) -> Iterator[str]:
    """Serve a dataset as `vidal view` does, and give the address of its page."""
    server = Server(Api(Dataset.open(address), Dataset.open(against) if against else None))
    threading.Thread(target=serve, args=[server], daemon=True).start()
    try:
        yield server.url
    finally:
        server.shutdown()


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start an installed Chromium; ends the program if there is none."""
    executable = chromium()
    if executable is None:
        sys.exit("no Chromium is installed")
    with Browser.started(executable) as started:
        yield started


def take(browser: Browser, url: str, shots: Iterable[Shot], out: Path = DOCS) -> None:
    """Write screenshots of a page to a folder, and say what was written."""
    for shot in shots:
        browser.look(shot.width, shot.height, shot.scheme)
        browser.open(f"{url}#{shot.route}")
        for condition, step in shot.steps:
            browser.wait(condition)
            browser.evaluate(f"(() => {{ {step} }})()")
        browser.evaluate(f"new Promise(done => setTimeout(done, {1000 * shot.settle_s}))")
        path = out / f"{shot.name}.webp"
        path.write_bytes(browser.screenshot(format="webp", quality=_QUALITY_PERCENT))
        print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    with browser() as chrome, served(sys.argv[1] if len(sys.argv) > 1 else "data/sample") as page:
        take(chrome, page, SHOTS)
