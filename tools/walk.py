"""Take the pictures of docs/walk.md: a copy of the sample is looked at, flagged, refiltered and trained on.

    python -m tools.walk [data/sample]

Everything is done as the page tells it: in the viewer by a headless Chromium, and by vidal's commands.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from urllib.parse import urlencode

from tools.screenshots import CLIP_IS_THERE, LIST_IS_THERE, MOTION, SLIDE, TIME, Shot, browser, served, take

# The kept clips, the stillest first: its sixth is the one that is flagged.
_KEPT = {"where": "status = 'kept'", "sort": "motion"}
_CLIP = urlencode({**_KEPT, "clip": "rocket-hold", "place": 5})
_MOST_TRIES = 300
_CLOSE = "document.querySelectorAll('#cards h3 button').forEach(button => button.click())"
_BAR = "[...document.querySelectorAll('.bar')].find(bar => bar.textContent.startsWith('duplicates')).click()"
_NOTE = """
const button = document.querySelector(".flags button[value=wrong_caption]");
button.nextElementSibling.value = "a joke; nothing of what is shown";
button.click();
"""
_LOOKING = (
    Shot(
        name="walk-funnel", route="", width=1280, height=560, scheme="light",
        steps=((LIST_IS_THERE, _BAR), ("document.querySelectorAll('#clips .clip').length === 2", "scrollTo(0, 0)")),
    ),
    Shot(
        name="walk-slider", route=urlencode(_KEPT),
        width=1280, height=1300, scheme="light",
        steps=(
            (LIST_IS_THERE, _CLOSE),
            ("!document.querySelector('#cards .card')", MOTION),
            ("document.querySelector('#cards .card')",
             SLIDE.format(slides="[['input[aria-label=\"motion at least\"]', 0.3]]") + "scrollTo(0, 0)"),
            ("!document.getElementById('applied').hidden", ""),
        ),
    ),
    Shot(
        name="walk-clip", route=_CLIP, width=1280, height=860, scheme="light",
        steps=((CLIP_IS_THERE, TIME),),
    ),
    Shot(
        name="walk-flag", route=_CLIP, width=1280, height=520, scheme="light",
        steps=(
            (CLIP_IS_THERE, _NOTE),
            ("document.querySelector('.flags button[value=wrong_caption]').ariaPressed === 'true'",
             "document.querySelector('.caption').scrollIntoView()"),
        ),
    ),
)  # fmt: skip
_REFILTERED = (
    Shot(
        name="walk-refilter",
        route="diff=1",
        width=1280,
        height=760,
        scheme="light",
        steps=(("document.querySelector('#diff table')", "scrollTo(0, 0)"),),
    ),
)
_TRAINED = (
    Shot(
        name="walk-train", route="timeseries", width=1460, height=1000, scheme="light", settle_s=10,
        steps=(
            ("document.querySelector('metrics-main-view .settings-button')",
             "document.querySelector('metrics-main-view .settings-button').click()"),
            ("document.querySelectorAll('line-chart').length === 6", ""),
            ("!document.querySelector('metrics-dashboard-right-pane')", ""),
        ),
    ),
)  # fmt: skip


def vidal(*arguments: str) -> None:
    """Run a command of vidal's."""
    subprocess.run([sys.executable, "-m", "vidal", *arguments], check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def tensorboard(folder: str) -> Iterator[str]:
    """Serve the curves of a run, and give the address of those of the losses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port), "--load_fast=false"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        # It listens some seconds after its start.
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/?tagFilter=loss/&smoothing=0"
    finally:
        process.terminate()
        process.wait()


def walk(address: str) -> None:
    """Do all steps of the page on a copy of a dataset, with a picture of each that has one of its own."""
    source, recipe = Path(address).absolute(), Path("pipelines/train/sample.yaml").absolute()
    with tempfile.TemporaryDirectory() as folder, browser() as chrome, contextlib.chdir(folder):
        copytree(source, "data/sample")
        with served("data/sample") as page:
            take(chrome, page, _LOOKING)
        vidal("refilter", "data/sample", "--set", "too_static.min_motion=14.01")
        with served("data/sample", against="data/sample@0") as page:
            take(chrome, page, _REFILTERED)
        data = ("--data", "data/sample@1", "--out", "runs/sample")
        vidal("train", str(recipe), *data, "--set", "log={tensorboard: true, every_steps: 1}")
        with tensorboard("runs/sample") as page:
            take(chrome, page, _TRAINED)


if __name__ == "__main__":
    walk(sys.argv[1] if len(sys.argv) > 1 else "data/sample")
