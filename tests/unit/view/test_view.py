"""What the viewer answers about a dataset."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fsspec
import numpy as np
import pytest
from PIL import Image

from tests.processes import command
from tests.store import s3_server
from tests.unit.view.serving import EVIL, JSON, TITLES, Client, clip_with, serving
from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.report.summary import Status
from vidal.stages import step_class
from vidal.view import thresholds
from vidal.view.api import Api
from vidal.view.queries import ManifestTable, Query


def test_a_script_in_a_title_comes_back_as_data(client: Client) -> None:
    response, data = client.send("api/clips")
    assert response.headers["Content-Type"] == JSON and response.headers["X-Content-Type-Options"] == "nosniff"
    assert EVIL in [row["title"] for row in json.loads(data)["rows"]]
    response, data = client.send(f"api/{urlencode({EVIL: 1})}")
    assert response.headers["Content-Type"] == JSON


def test_the_summary_has_the_funnel_of_the_report(client: Client, built: Path) -> None:
    summary, status = client.ask("summary"), Status.of(Dataset.open(str(built))).as_json()
    names = ("candidates", "kept", "rejected", "failed", "open", "dropped")
    assert {name: summary[name] for name in names} == {name: status[name] for name in names}
    assert (summary["candidates"], summary["kept"], summary["rejected"]) == (8, 6, 2)
    assert (summary["layers"], summary["revision"]) == (["video", "depth", "audio"], 0)


def test_columns_are_told_with_their_meaning(client: Client, built: Path) -> None:
    told = {column["name"]: column for column in client.ask("columns")}
    assert set(told) == set(Dataset.open(str(built)).table(0).column_names)
    assert told["letters"] == {
        "name": "letters", "type": "int64", "group": "scores", "doc": "letters of the title", "is_numeric": True,
        "is_sortable": True, "is_category": False,
    }  # fmt: skip
    assert not told["title"]["is_numeric"] and not told["members"]["is_sortable"]


LETTER_COUNTS = {title: sum(map(str.isalpha, title)) for title in TITLES}
PAGES = {
    "all in the order of the plan": ({}, None),
    "a condition": ({"where": "letters > 8"}, [t for t in TITLES if LETTER_COUNTS[t] > 8]),
    "sorted": ({"sort": "letters"}, sorted(TITLES, key=lambda t: LETTER_COUNTS[t])),
    "sorted downwards": ({"sort": "letters", "order": "desc", "limit": 1}, [EVIL]),
    "a text in any case": ({"search": "DOG"}, ["a dog barks", "The Dog sleeps"]),
    "a text that is SQL": ({"search": "'; drop"}, []),
    "a quote": ({"search": "it's; drop table"}, ["it's; drop table clip --"]),
    "a pattern": ({"search": "%"}, []),
    "all of them": ({"where": "status = 'kept'", "search": "dog", "sort": "letters", "offset": 1}, ["The Dog sleeps"]),
    "a subquery of the rows": ({"where": "letters = (select max(letters) from clips)"}, [EVIL]),
}  # fmt: skip


def test_what_several_ask_for_at_a_time_is_looked_up_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, looked = ManifestTable(Dataset.open(str(built))), []
    cursor = table._cursor
    monkeypatch.setattr(table, "_cursor", lambda: looked.append(time.sleep(0.05)) or cursor())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: table.select(Query(where="letters > 8")).tolist(), range(8)))
    # One query, and one for where each file's rows begin.
    assert len(looked) == 2 and answers == [answers[0]] * 8


@pytest.mark.parametrize(("asked", "titles"), PAGES.values(), ids=PAGES)
def test_a_page_has_the_clips_that_were_asked_for(
    client: Client, built: Path, asked: dict[str, Any], titles: Any
) -> None:
    page = client.ask("clips", **asked)
    shown = [row["title"] for row in page["rows"]]
    if titles is None:
        titles = [row["title"] for row in Dataset.open(str(built)).rows(["title"])]
    if "sort" in asked:
        assert [LETTER_COUNTS[t] for t in shown] == [LETTER_COUNTS[t] for t in titles]
    assert sorted(shown) == sorted(titles)


def test_pages_follow_each_other(client: Client) -> None:
    pages = [client.ask("clips", offset=offset, limit=3) for offset in (0, 3, 6)]
    assert [len(page["rows"]) for page in pages] == [3, 3, 2] and {page["clips"] for page in pages} == {8}
    assert len({row["clip_id"] for page in pages for row in page["rows"]}) == 8


BAD = {
    "an unknown column": ("clips", {"where": "leters > 3"}, "--where leters > 3: no column `leters`; near it: letters"),
    "no expression": ("clips", {"where": "1=1; drop table clips"}, "not an expression"),
    "half of one": ("clips", {"where": "letters > 1) or (1=1"}, "syntax error"),
    "another file": ("clips", {"where": "title in (select content from read_text('/etc/passwd'))"}, "disabled"),
    "the dataset's other files": ("clips", {"where": "title in (select content from read_text('DIR/dataset.json'))"}, "disabled"),
    "a wrong value": ("clips", {"where": "title::int > 3"}, "--where title::int > 3: "),
    "an unknown sort": ("clips", {"sort": "letters desc; drop table clips"}, "sort: no column"),
    "a sort by members": ("clips", {"sort": "members"}, "sort: no column `members`"),
    "too long a page": ("clips", {"limit": 1000}, "limit=1000: write a whole number from 0 to 500"),
    "an offset that is none": ("clips", {"offset": "1e3"}, "offset=1e3"),
    "a huge offset": ("clips", {"offset": "9" * 5000}, "whole number"),
    "no such clip": ("clip", {"clip": "nobody"}, "no clip nobody"),
    "a clip of another shard": ("clip", {"clip": "c000", "shard": 77}, "no clip c000 in shard 77"),
    "no such layer": ("preview", {"clip": "c001", "layer": "smell"}, "no modality `smell`"),
    "no such frame": ("preview", {"clip": "c001", "layer": "depth", "frame": 9}, "depth has no frame 9 of 2"),
    "no audio": ("peaks", {"clip": "c005"}, "nothing in audio"),
    "a histogram of texts": ("histogram", {"column": "title"}, "no column of numbers"),
    "a bound that is none": ("count", {"bound": "letters<3 or 1=1"}, "write COLUMN<=NUMBER"),
    "a bound that is no number": ("count", {"bound": "letters<=1.2.3"}, "write COLUMN<=NUMBER"),
    "a rectangle that is none": ("clips", {"box": "1,2,3", "by": "x"}, "nothing to compare clips by"),
    "a clip like another": ("clips", {"like": "c001"}, "nothing to compare clips by: add the stage `fingerprints`"),
    "a bound on a text": ("count", {"bound": "title<=3"}, "no column of numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "asked", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_answered_is_told_in_one_line(
    client: Client, built: Path, answer: str, asked: dict[str, Any], told: str
) -> None:
    asked = {name: str(value).replace("DIR", str(built).replace("'", "''")) for name, value in asked.items()}
    response, data = client.send(f"api/{answer}?{urlencode(asked)}")
    said = json.loads(data)
    assert response.status == 400 and set(said) == {"error"}
    assert told in said["error"] and "\n" not in said["error"]


def test_a_clip_is_told_down_to_the_byte(client: Client, built: Path) -> None:
    clip = clip_with(client, "a dog barks")
    assert clip["row"]["letters"] == 9 and "members" not in clip["row"] and "thumbnail" not in clip["row"]
    assert {text["column"]: text["text"] for text in clip["texts"]} == {
        "title": "a dog barks",
        "caption": "a dog barks",
    }
    assert {member["layer"] for member in clip["members"]} == {"video", "depth", "audio"}
    for member in clip["members"]:
        with open(member["tar"], "rb") as tar:
            tar.seek(member["offset"])
            assert hashlib.sha256(tar.read(member["size"])).hexdigest() == member["sha256"]
        response, data = client.send(member["url"])
        assert hashlib.sha256(data).hexdigest() == member["sha256"]
        types = {"jpg": "image/jpeg", "png": "image/png", "mp4": "video/mp4", "flac": "audio/flac"}
        kind = types.get(member["name"].rpartition(".")[2], "application/octet-stream")
        assert response.headers["Content-Type"] == member["type"] == kind
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_clip_is_found_without_its_shard(client: Client) -> None:
    assert client.ask("clip", clip="c003")["row"]["status"] == "rejected"


def test_depth_is_shown_in_eight_bits(client: Client) -> None:
    shown = client.ask("preview", clip="c001", layer="depth")
    assert shown["note"].startswith("colour map inferno") and shown["is_synthetic"] is False
    assert [frame["time_s"] for frame in shown["frames"]] == [0.5, 1.5]
    response, data = client.send(shown["frames"][1]["url"])
    assert response.headers["Content-Type"] == "image/png"
    image = Image.open(io.BytesIO(data))
    assert (image.mode, image.size) == ("RGB", (16, 16))


def test_audio_has_peaks(client: Client) -> None:
    peaks = np.asarray(client.ask("peaks", clip="c001", parts=10)["peaks"])
    assert peaks.shape == (10, 2) and (peaks[:, 0] <= peaks[:, 1]).all()
    assert np.allclose(peaks[[0, -1], [0, 1]], [-0.5, 0.5], atol=0.001)


@pytest.mark.parametrize("clip", ["c001", "c003"])
def test_a_clip_has_a_thumbnail_kept_or_rejected(client: Client, clip: str) -> None:
    response, data = client.send(f"api/thumbnail?clip={clip}")
    assert response.headers["Content-Type"] == "image/jpeg" and Image.open(io.BytesIO(data)).size == (16, 16)


def test_a_histogram_counts_kept_and_other_clips(client: Client) -> None:
    told = client.ask("histogram", column="letters")
    assert (told["clips"], told["missing"], sum(told["kept"]), sum(told["others"])) == (8, 0, 6, 2)
    assert (told["min"], told["max"]) == (1, max(LETTER_COUNTS.values()))
    assert len(told["edges"]) == len(told["kept"]) + 1 and told["edges"] == sorted(told["edges"])
    assert client.ask("histogram", column="blur") == {
        "column": "blur", "clips": 0, "missing": 8, "min": None, "max": None, "edges": [], "kept": [], "others": [],
    }  # fmt: skip


COUNTS = {
    "none": ([], {}, 6),
    "at least": (["letters>=10"], {}, sum(LETTER_COUNTS[t] >= 10 for t in TITLES)),
    "at the limit": (["letters<=9"], {}, 2),
    "both": (["letters>=9", "letters<=9"], {}, 1),
    "a number that is missing passes": (["blur<=0"], {}, 6),
    "among those of a condition": (["letters>=10"], {"where": "title like '%Dog%'"}, 1),
    "among those with a text": ([], {"search": "dog"}, 2),
}


@pytest.mark.parametrize(("bounds", "among", "clips"), COUNTS.values(), ids=COUNTS)
def test_a_threshold_keeps_so_many(client: Client, bounds: list[str], among: dict[str, str], clips: int) -> None:
    assert client.ask("count", bound=bounds, **among)["clips"] == clips


def test_a_threshold_is_told_as_a_condition_a_command_and_a_recipe(client: Client, built: Path) -> None:
    told = client.ask("recipe", bound=["duration_s>=2.5", "letters<=9"])
    assert told["stages"] == "stages:\n- too_short:\n    min_s: 2.5\n"
    assert told["without_stage"] == ["letters"]
    assert client.ask("clips", where=told["where"])["clips"] == 0
    assert client.ask("recipe", bound="duration_s<=2.5")["command"] == "", "too_short decides on the other side"
    words = shlex.split(told["command"])
    assert words == ["vidal", "refilter", str(built), "--set", "too_short.min_s=2.5"]
    done = command(*words[1:], "--dry-run")
    assert done.returncode == 0 and "0 clips kept, 6 before" in done.stdout, done.stderr


FILTERS = [
    ("too_blurry", "blur<=0.3", "max_blur"), ("too_long", "duration_s<=15", "max_s"),
    ("too_dark", "luma_mean>=0.1", "min_luma"), ("too_dark", "black_share<=0.25", "max_black_share"),
    ("too_dark", "luma_mean<=0.1", None), ("too_small", "width>=200", None), ("too_blurry", "blur<=-1", None),
    ("tests.letter_toys:FewLetters", "letters>=3", None),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "bound", "setting"), FILTERS)
def test_a_filter_that_decides_on_the_very_number_takes_the_threshold(
    built: Path, stage: str, bound: str, setting: str | None
) -> None:
    dataset = Dataset.open(str(built))
    settings = step_class(stage)().model_dump(mode="json")
    recipe = {"stages": [{"name": stage, "settings": settings}]}
    changed = Dataset(dataset.storage, dataset.info.model_copy(update={"recipe": recipe}))
    told = thresholds.as_recipe(changed, [thresholds.Bound.parse(bound)])
    assert (f"--set {stage}.{setting}=" in told["command"]) == (setting is not None)


def test_a_dataset_in_an_object_store_is_shown_flagged_and_refiltered_there(built: Path) -> None:
    with s3_server("shows"):
        for path in (path for path in built.rglob("*") if path.is_file()):
            fsspec.filesystem("s3").pipe(f"shows/set/{path.relative_to(built)}", path.read_bytes())
        for client in serving("s3://shows/set"):
            assert client.ask("summary")["kept"] == 6
            clip = clip_with(client, EVIL)
            (video,) = [member for member in clip["members"] if member["name"].endswith(".mp4")]
            data = client.send(video["url"])[1]
            assert video["tar"].startswith("s3://shows/set/video/")
            assert hashlib.sha256(data).hexdigest() == video["sha256"]
            part = client.send(video["url"], Range="bytes=2-5")
            assert (part[0].status, part[1]) == (206, data[2:6])
            assert client.flag(clip=clip["row"]["clip_id"], flag="unsafe")[0] == 200
            assert client.ask("clips", where="flag_unsafe")["clips"] == 1
            assert client.post("refilter", bounds=["duration_s>=2.5"])[0] == 200
        assert Dataset.open("s3://shows/set").number == 1
        assert len(list(fsspec.filesystem("s3", skip_instance_cache=True).ls("shows/set/flags"))) == 1


def test_a_dataset_of_an_earlier_version_is_shown() -> None:
    old = Path(__file__).parents[2] / "datasets" / "schema-3"
    for client in serving(old):
        assert client.ask("summary")["kept"] == len(client.ask("clips", where="status = 'kept'")["rows"]) > 0
        assert client.ask("clip", clip="kept")["row"]["cluster"] is None


def test_without_a_committed_shard_there_is_nothing_to_show(mine: Path) -> None:
    shutil.rmtree(mine / "manifest")
    with pytest.raises(SourceError, match="no shard is committed yet"):
        Api(Dataset.open(str(mine)))
