"""A person looks at a dataset in a real browser: plays a clip, moves sliders, sets flags, by keyboard and on a phone."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT
from tests.processes import command, start_vidal
from tests.runs import SHADE
from tools.browser import Browser, chromium

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TITLES = {
    "bunny-unlucky-bird": EVIL,
    "cat-stare": "a cat stares",
    "sintel-dragon": "a dragon cries",
    "sintel-dragon-copy": "a dragon cries again",
    "sintel-dunes": "dunes",
}
STAGES = [
    "fetch", "probe", {"too_long": {"max_s": 20}}, "media", {"too_static": {"min_motion": 1}}, "fingerprints",
    "duplicates", SHADE,
]  # fmt: skip
SOUNDING, SILENT, REPOST = "bunny-unlucky-bird", "cat-stare", "sintel-dragon-copy"
PHONE = (360, 740)

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real clips, of which one repeats another; their depth is toy depth."""
    folder = tmp_path_factory.mktemp("view")
    with (folder / "clips.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clip_id", "url", "title"])
        for clip_id, title in TITLES.items():
            (file,) = (ROOT / "samples" / "clips").glob(f"{clip_id}.*")
            writer.writerow([clip_id, file, title])
    recipe = {"name": "shorts", "source": {"list": "clips.csv"}, "stages": STAGES}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = folder / "data"
    done = command("build", folder / "recipe.yaml", "--out", out, "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def manifest(dataset: Path) -> pd.DataFrame:
    return pd.read_parquet(dataset / "manifest").set_index("clip_id", drop=False)


@pytest.fixture(scope="module")
def url(dataset: Path) -> Iterator[str]:
    server = start_vidal("view", dataset, "--no-browser", "--allow-module", "tests.engine_toys")
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with Browser.started(chromium() or "") as browser:
        yield browser


class Page:
    """The viewer's page in a browser."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser, self.url = browser, url
        self.evaluate, self.wait, self.press = browser.evaluate, browser.wait, browser.press

    def open_list(self, **route: Any) -> None:
        self.browser.open(f"{self.url}#{urlencode(route)}")
        self.wait("document.querySelector('#clips a.clip') && document.querySelector('#cards .card')")

    def open_clip(self, clip_id: str) -> None:
        self.browser.open(f"{self.url}#{urlencode({'clip': clip_id})}")
        self.wait("document.querySelector('.player canvas[data-frame]')")

    def listed(self) -> list[str]:
        """The ids of the clips that are listed."""
        links = (
            "[...document.querySelectorAll('#clips a.clip')].map(a => new URLSearchParams(a.hash.slice(1)).get('clip'))"
        )
        ids: list[str] = self.evaluate(links)
        return ids

    def wait_for_clips(self, *clip_ids: str) -> None:
        wanted = json.dumps(sorted(clip_ids))
        self.wait(
            "JSON.stringify([...document.querySelectorAll('#clips a.clip')]"
            f".map(a => new URLSearchParams(a.hash.slice(1)).get('clip')).sort()) === JSON.stringify({wanted})"
        )

    def text(self, selector: str) -> str:
        text: str = self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")
        return text

    def slide(self, label: str, share: float) -> None:
        """Move the slider of a label to a share of its way."""
        self.evaluate(f"""(() => {{
            const slider = document.querySelector('input[aria-label={json.dumps(label)}]');
            slider.value = Number(slider.min) + {share} * (slider.max - slider.min);
            slider.dispatchEvent(new Event('input'));
        }})()""")


@pytest.fixture
def page(chrome: Browser, url: str) -> Iterator[Page]:
    chrome.look(1200, 900)
    chrome.problems.clear()
    yield Page(chrome, url)
    assert [problem for problem in chrome.problems if "api/thumbnail" not in problem] == []


@pytest.mark.parametrize(("clip_id", "clock"), [(SOUNDING, "audio"), (SILENT, "video")])
def test_all_modalities_play_in_step(page: Page, manifest: pd.DataFrame, clip_id: str, clock: str) -> None:
    page.open_clip(clip_id)
    page.evaluate("document.querySelector('.player video').playbackRate = 0.5")
    page.press(" ")
    # A video that is too slow is set to the clock's time.
    in_step = "Math.abs(document.querySelector('.player video').currentTime - document.querySelector(CLOCK).currentTime) < 0.3"
    clock_element = json.dumps(f".player {clock}")
    page.wait(f"document.querySelector({clock_element}).currentTime > 1 && {in_step.replace('CLOCK', clock_element)}")
    times = list(manifest.loc[clip_id, "frame_times"])
    time_s, *frames = page.evaluate(
        "[parseFloat(document.querySelector('.clock').textContent),"
        " ...[...document.querySelectorAll('.player canvas')].map(canvas => Number(canvas.dataset.frame))]"
    )
    # The clock says hundredths: beside the start of a frame its time may be of the frame before or of this one.
    shown = {frame_at(time_s - 0.005, times), frame_at(time_s + 0.005, times)}
    assert len(frames) == 2 and len(set(frames)) == 1 and set(frames) <= shown
    page.press(" ")
    assert page.evaluate("document.querySelector('.player video').paused")
    assert page.evaluate(f"document.querySelector({clock_element}).paused")


def frame_at(time_s: float, times: list[float]) -> int:
    """The number of the last frame until a time, or of the first."""
    return max([k for k, start in enumerate(times) if start <= time_s], default=0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.62, 1.0])
def test_one_slider_sets_the_time_of_all(page: Page, manifest: pd.DataFrame, share: float) -> None:
    page.open_clip(SOUNDING)
    row = manifest.loc[SOUNDING]
    page.slide("Time in seconds", share)
    time_s = page.evaluate("Number(document.querySelector('.controls input').value)")
    assert time_s == pytest.approx(share * row["duration_s"], abs=0.02)
    wanted = frame_at(time_s, list(row["frame_times"]))
    assert (
        page.evaluate("[...document.querySelectorAll('.player canvas')].map(c => Number(c.dataset.frame))")
        == [wanted] * 2
    )
    for medium in ("video", "audio"):
        assert page.evaluate(f"document.querySelector('.player {medium}').currentTime") == pytest.approx(
            time_s, abs=0.1
        )
    left = page.evaluate("parseFloat(document.querySelector('.playhead').style.left)")
    assert left == pytest.approx(100 * share, abs=1)


def test_a_clip_says_where_all_of_it_is(page: Page, manifest: pd.DataFrame) -> None:
    page.open_clip(SOUNDING)
    shown = page.text("#clip")
    members = manifest.loc[SOUNDING, "members"]
    assert all(member["sha256"] in shown and member["name"] in shown for member in members)
    assert all(name in shown for name in ("motion", "blur", "duration_s", "source_sha256"))
    name, size = members[0]["name"], members[0]["size"]
    link = f"document.querySelector('a[download={json.dumps(name)}]').href"
    assert page.evaluate(f"fetch({link}).then(r => r.arrayBuffer()).then(b => b.byteLength)") == size


def test_sliders_count_the_clips_that_pass_and_write_recipe_and_revision(
    page: Page, manifest: pd.DataFrame, dataset: Path
) -> None:
    page.open_list()
    page.wait("[...document.getElementById('column').options].some(option => option.value === 'motion')")
    page.evaluate("""(() => { const column = document.getElementById('column');
        column.value = 'motion'; column.dispatchEvent(new Event('change')); })()""")
    page.wait("document.querySelector('input[aria-label=\"motion at least\"]')")
    kept = manifest[manifest["status"] == "kept"]
    page.slide("motion at least", 0.5)
    page.wait("document.getElementById('patch').textContent")
    patch = yaml.safe_load(page.text("#patch"))
    limit = patch["stages"][0]["too_static"]["min_motion"]
    passing = kept[kept["motion"] >= limit]
    assert 0 < len(passing) < len(kept)
    assert page.text("#kept") == f"{len(passing)} of {len(kept)} kept clips pass"
    assert page.text("#condition") == f'--where "(motion >= {limit:g} or motion is null)"'
    assert "vidal refilter" in page.text("#command") and f"too_static.min_motion={limit:g}" in page.text("#command")
    page.evaluate("document.getElementById('failing').click()")
    page.wait_for_clips(*kept[kept["motion"] < limit]["clip_id"])
    page.evaluate("document.getElementById('refilter').click()")
    page.wait("!document.getElementById('refiltered').hidden")
    assert f"{len(passing)} clips kept, {len(kept)} before" in page.text("#refiltered")
    changed = pd.read_parquet(dataset / "revisions" / "1" / "manifest")
    assert set(changed[changed["status"] == "kept"]["clip_id"]) == set(passing["clip_id"])


def test_the_first_clips_are_listed_before_anything_else_is_asked_for(page: Page) -> None:
    page.open_list()
    asked = page.evaluate(
        "performance.getEntriesByType('resource').filter(one => one.initiatorType === 'fetch')"
        ".map(one => [new URL(one.name).pathname.split('/').pop(), one.startTime, one.responseEnd])"
    )
    (_, _, listed_ms), *later = asked
    assert asked[0][0] == "clips" and {"summary", "count", "measures", "histogram"} <= {name for name, *_ in later}
    assert all(start_ms >= listed_ms for _, start_ms, _ in later)


def test_a_bar_of_the_funnel_lists_its_clips(page: Page) -> None:
    page.open_list()
    page.evaluate(
        "[...document.querySelectorAll('#funnel button')].find(b => b.textContent.includes('duplicate')).click()"
    )
    page.wait_for_clips(REPOST)
    assert page.evaluate("document.querySelectorAll('#funnel button[aria-pressed=true]').length") == 1


def test_the_near_duplicates_of_a_clip_are_a_filter(page: Page) -> None:
    page.open_clip("sintel-dragon")
    page.wait("document.getElementById('cluster')")
    page.evaluate("document.getElementById('cluster').click()")
    page.wait_for_clips("sintel-dragon", REPOST)
    page.open_list()
    page.evaluate("document.querySelector('#groups summary').click()")
    page.wait("document.querySelector('#groups-bars button')")
    assert page.text("#groups-bars") == "sintel-dragon2, 1 kept"
    page.evaluate("document.querySelector('#groups-bars button').click()")
    page.wait_for_clips("sintel-dragon", REPOST)


def test_a_script_in_a_title_is_text(page: Page) -> None:
    page.open_list(layout="table")
    assert EVIL in page.text("#clips")
    page.open_clip(SOUNDING)
    assert page.text("#clip h2") == EVIL
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('#clip img[src=x]').length") == 0


def test_a_clip_is_flagged_by_keyboard_with_a_note(page: Page, dataset: Path) -> None:
    page.open_clip(SILENT)
    page.press("f", "Tab", *"blurry", "Tab", "4")
    page.wait("document.querySelector('.flags button[value=remove]').ariaPressed === 'true'")
    page.press("f", "Enter")
    page.wait("document.querySelector('.flags button[value=wrong_caption]').ariaPressed === 'true'")
    rows = pd.read_parquet(dataset / "flags")
    assert rows[["clip_id", "flag", "is_set", "note"]].to_numpy().tolist() == [
        [SILENT, "remove", True, ""], [SILENT, "wrong_caption", True, "blurry"],
    ]  # fmt: skip
    page.open_list(where="flag_remove")
    page.wait_for_clips(SILENT)
    assert "wrong_caption" in page.text("#clips")


@pytest.mark.parametrize(
    ("route", "told"),
    [
        ({"clip": "nobody"}, "no clip nobody"),
        ({"where": "no_column = 1"}, "no_column"),
        ({"sort": "members"}, "members"),
    ],
    ids=str,
)
def test_what_cannot_be_shown_is_said_on_the_page(page: Page, route: dict[str, str], told: str) -> None:
    page.browser.open(f"{page.url}#{urlencode(route)}")
    page.wait(f"document.getElementById('message').textContent.includes({json.dumps(told)})")
    page.wait("document.querySelector('#cards .card') && document.querySelector('#funnel button')")
    assert told in page.text("#message")
    page.browser.problems.clear()


def test_a_list_is_walked_by_keyboard(page: Page) -> None:
    page.open_list()
    first, second = page.listed()[:2]
    page.press("j", "j", "Enter")
    page.wait(f"location.hash.includes({json.dumps(second)}) && document.querySelector('#clip h2')")
    page.press("k")
    page.wait(f"location.hash.includes({json.dumps(first)}) && !document.getElementById('previous')")
    page.press("Escape")
    page.wait(f"document.activeElement.matches('a.clip') && document.activeElement.hash.includes({json.dumps(first)})")
    page.press("/", *"dunes", "Enter")
    page.wait_for_clips("sintel-dunes")
    page.press("Escape", "?")
    assert page.evaluate("document.getElementById('help').open")
    page.press("Escape")
    page.wait("!document.getElementById('help').open")


def test_the_focus_is_seen(page: Page) -> None:
    page.open_list()
    page.press("j")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize(
    ("scheme", "route"),
    [
        ("light", {}),
        ("dark", {"layout": "table", "sort": "motion"}),
        ("light", {"clip": SOUNDING}),
        ("dark", {"clip": SILENT}),
    ],
    ids=str,
)
def test_everything_fits_a_phone_and_has_a_name_for_screen_readers(
    page: Page, route: dict[str, str], scheme: str
) -> None:
    page.browser.look(*PHONE, scheme)
    if "clip" in route:
        page.open_clip(route["clip"])
    else:
        page.open_list(**route)
    page.evaluate("document.querySelectorAll('details').forEach(section => (section.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (min(map(int, background[4:-1].split(","))) > 128) is (scheme == "light")
    roles = {"button", "textbox", "searchbox", "slider", "combobox", "checkbox", "link", "img", "image"}
    page.browser.call("Accessibility.enable")
    nodes = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    found = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(found) > 15
    assert [node for node in found if not node["name"]["value"]] == []
