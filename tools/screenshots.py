"""Take the screenshots of docs/viewer.md with a headless Chromium.

    python -m tools.screenshots [data/sample]

The dataset is the sample, as `make build-shards` builds it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.browser import Browser, chromium
from vidal.dataset.dataset import Dataset
from vidal.view.api import Api
from vidal.view.server import Server, serve

_DOCS = Path(__file__).parent.parent / "docs"
_QUALITY_PERCENT = 75
_IMAGES_ARE_THERE = "[...document.images].every(image => image.complete)"
_LIST_IS_THERE = (
    f"document.querySelector('#clips .clip') && document.querySelector('#cards .card') && {_IMAGES_ARE_THERE}"
)
_CLIP_IS_THERE = f"document.querySelector('.player canvas[data-frame]') && {_IMAGES_ARE_THERE}"
_SLIDE = """
for (const [selector, share] of {slides}) {{
  const slider = document.querySelector(selector);
  slider.value = Number(slider.min) + share * (slider.max - slider.min);
  slider.dispatchEvent(new Event("input"));
}}
"""
_TIME = _SLIDE.format(slides="[['.controls input', 0.46]]")
_MOTION = """
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


SHOTS = (
    Shot(
        name="viewer-clip", route="clip=bunny-flower&place=1", width=1280, height=860, scheme="light",
        steps=((_CLIP_IS_THERE, _TIME),),
    ),
    Shot(
        name="viewer-list", route="", width=1280, height=1160, scheme="dark",
        steps=(
            (_LIST_IS_THERE, "document.querySelectorAll('#cards h3 button').forEach(button => button.click())"),
            ("!document.querySelector('#cards .card')", _MOTION),
            (
                "document.querySelector('#cards .card')",
                _SLIDE.format(slides="[['input[aria-label=\"motion at least\"]', 0.3]]") + "scrollTo(0, 0)",
            ),
            ("!document.getElementById('applied').hidden", ""),
        ),
    ),
    Shot(
        name="viewer-map", route="map=1&box=-1.3,0,0.9,1.8", width=1280, height=900, scheme="light",
        steps=((f"{_LIST_IS_THERE} && {_MAP_IS_THERE}", "document.getElementById('map').scrollIntoView()"),),
    ),
    Shot(
        name="viewer-phone", route="clip=bunny-flower&place=1", width=360, height=740, scheme="dark",
        steps=((_CLIP_IS_THERE, _TIME),),
    ),
)  # fmt: skip


def take(address: str, out: Path) -> Iterator[Path]:
    """Write the screenshots of a dataset to a folder, and yield their paths."""
    executable = chromium()
    if executable is None:
        sys.exit("no Chromium is installed")
    server = Server(Api(Dataset.open(address)))
    threading.Thread(target=serve, args=[server], daemon=True).start()
    with Browser.started(executable) as browser:
        for shot in SHOTS:
            browser.look(shot.width, shot.height, shot.scheme)
            browser.open(f"{server.url}#{shot.route}")
            for condition, step in shot.steps:
                browser.wait(condition)
                browser.evaluate(f"(() => {{ {step} }})()")
            # What the last step changed is drawn.
            browser.evaluate("new Promise(done => setTimeout(done, 500))")
            path = out / f"{shot.name}.webp"
            path.write_bytes(browser.screenshot(format="webp", quality=_QUALITY_PERCENT))
            yield path
    server.shutdown()


if __name__ == "__main__":
    for written in take(sys.argv[1] if len(sys.argv) > 1 else "data/sample", _DOCS):
        print(f"{written.relative_to(_DOCS.parent)}: {written.stat().st_size // 1000} kB")
