"""`pipelines/select.yaml` over real clips, by a tiny model: planted copies and benchmark clips go, on both engines."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT
from tests.e2e.test_view import Page
from tests.e2e.test_view_diff import served
from tests.films import ffmpeg
from tests.processes import command, vidal
from tests.unit.stages.test_text_match import tiny_clip
from tools.browser import Browser, chromium

TITLES = {
    "cat-stare": "a cat sits in the park",
    "cat-again": "the cat",
    "sintel-dunes": "A man plays the guitar in a band!",
    "sintel-gatekeepers": "two men",
    "bunny-unlucky-bird": "a dog runs in the park",
    "sintel-snow": "the red car",
}
COPIES = {"cat-stare", "cat-again"}
STAGES = ["fetch", "probe", {"media": {"frames": 2}}]


def film(folder: Path, clip: str) -> Path:
    """A sample clip; the copy is one of another size and bit rate."""
    if clip != "cat-again":
        return next((ROOT / "samples" / "clips").glob(f"{clip}.*"))
    scaled = ["-vf", "scale=trunc(iw*3/8)*2:-2", "-crf", "32", "-preset", "ultrafast"]
    ffmpeg("-i", film(folder, "cat-stare"), *scaled, folder / "again.mp4")
    return folder / "again.mp4"


def built(folder: Path, name: str, titles: dict[str, str]) -> Path:
    with (folder / f"{name}.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["clip_id", "url", "title"])
        rows.writerows([clip, film(folder, clip), title] for clip, title in titles.items())
    recipe = {"name": name, "source": {"list": f"{name}.csv"}, "shards": {"size": 4}, "stages": STAGES}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    ran("build", folder / f"{name}.yaml", "--out", folder / name, "--engine", "local", "--workers", "0")
    return folder / name


def ran(*words: str | Path) -> str:
    # Ray's processes outlive a command of this process.
    done = vidal(*words, timeout=600) if "ray" in words else command(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(dataset: Path) -> pd.DataFrame:
    manifest = json.loads(ran("status", dataset, "--json"))["manifest"]
    return pd.read_parquet(manifest).set_index("clip_id", drop=False).sort_index()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, the captions of one benchmark, and the clips of another."""
    folder = tmp_path_factory.mktemp("select")
    model = tiny_clip(folder / "clip")
    built(folder, "shorts", TITLES)
    (folder / "bench.txt").write_text("a man plays the guitar in a band\na dog barks\n")
    bench = built(folder, "bench", {"sintel-gatekeepers": "a cat"})
    (folder / "embed.yaml").write_text(
        yaml.safe_dump({"stages": [{"embeddings": {"backend": "clip", "model": model}}]})
    )
    ran("add", folder / "embed.yaml", bench, "--engine", "local", "--workers", "0", "--set", "embeddings.device=cpu")
    return folder


@pytest.fixture(scope="module")
def selected(place: Path) -> Path:
    return selection(place, "local")


def selection(place: Path, engine: str) -> Path:
    """A copy of the dataset to which the recipe is added."""
    out = Path(shutil.copytree(place / "shorts", place / engine))
    # A model of random weights finds everything alike, and copies more than that.
    settings = [
        f"embeddings.model={place / 'clip'}", "embeddings.device=cpu",
        f"decontaminate.captions=[{place / 'bench.txt'}]", f"decontaminate.benchmarks=[{place / 'bench'}]",
        "decontaminate.min_video_similarity=0.9999", "decontaminate.min_caption_similarity=1",
        "semantic_duplicates.min_similarity=0.999", "best_share.share=0.5",
    ]  # fmt: skip
    more = [word for setting in settings for word in ("--set", setting)]
    recipe = ROOT / "pipelines" / "select.yaml"
    ran("add", recipe, out, "--engine", engine, "--workers", "0" if engine == "local" else "1", *more)
    return out


def test_benchmark_clips_go_then_copies_and_the_best_share_stays(selected: Path) -> None:
    rows = rows_of(selected)
    assert len(rows) == len(TITLES)
    assert [*rows.loc["sintel-dunes", ["stage", "reason", "decided_value"]]] == ["decontaminate", "benchmark_text", 8]
    assert [*rows.loc["sintel-gatekeepers", ["reason", "benchmark_clip"]]] == ["benchmark_video", "sintel-gatekeepers"]
    repeated = rows[rows["reason"] == "semantic_duplicate"]
    assert len(repeated) == 1
    for clip_id, row in repeated.iterrows():
        assert {clip_id, row["nearest_clip"]} == COPIES
        assert row["caption_match"] <= rows.loc[row["nearest_clip"], "caption_match"]
    ranked = rows[rows["selection_score"].notna()].sort_values("selection_score", ascending=False)
    assert ranked["status"].tolist() == ["kept", "kept", "rejected"]
    assert ranked["reason"].tolist()[-1] == "not_selected"


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")
def test_words_find_clips_by_the_embeddings_in_the_viewer_and_in_the_texts_where_that_is_asked_for(
    selected: Path,
) -> None:
    with served(selected, f"{selected}@0") as url, Browser.started(chromium() or "") as browser:
        page = Page(browser, url)
        page.open_list()
        page.wait("!document.getElementById('search-by').hidden")
        ways = page.evaluate("[...document.getElementById('search-by').options].map(option => option.value)")
        assert ways == ["video_embedding", "caption_embedding", ""]
        page.evaluate("document.getElementById('search-by').value = 'caption_embedding'")
        page.press("/", *"a dog runs in the park", "Enter")
        page.wait("document.getElementById('alike').textContent.includes('a dog runs in the park')")
        page.wait("document.querySelector('#clips a.clip').textContent.includes('likeness')")
        # The very caption of this clip.
        assert page.listed()[0] == "bunny-unlucky-bird" and len(page.listed()) == len(TITLES)
        assert "likeness 1" in page.text("#clips a.clip")
        page.evaluate("document.getElementById('search-by').value = ''")
        page.press("Escape", "/", *"dog runs", "Enter")
        page.wait_for_clips("bunny-unlucky-bird")
        assert page.evaluate("document.getElementById('alike').hidden") and browser.problems == []


@pytest.mark.slow
def test_ray_decides_as_the_local_engine_does(selected: Path, place: Path) -> None:
    columns = ["status", "reason", "decided_value", "selection_score", "nearest_similarity"]
    pd.testing.assert_frame_equal(rows_of(selection(place, "ray"))[columns], rows_of(selected)[columns])


def test_a_stricter_share_a_reason_and_a_report_are_had_from_the_stored_numbers(selected: Path, tmp_path: Path) -> None:
    said = ran("refilter", selected, "--set", "best_share.share=0.3", "--dry-run")
    assert "1 clips kept, 2 before" in said and "kept → best_share: not_selected" in said
    why = ran("why", selected, "sintel-dunes")
    assert why.startswith("sintel-dunes is rejected: stage decontaminate, benchmark_text")
    assert "caption_match" in why and "_embedding: [" not in why
    ran("report", selected, "--out", tmp_path / "r.html")
    assert "not_selected" in (tmp_path / "r.html").read_text()
    moves = json.loads(ran("diff", f"{selected}@0", selected, "--json"))["moves"]
    went = {move["after"]["reason"]: move["clips"] for move in moves if move["kind"] == "went"}
    assert went == {"benchmark_text": 1, "benchmark_video": 1, "semantic_duplicate": 1, "not_selected": 1}
