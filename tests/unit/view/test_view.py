"""The viewer's server answers whoever has its token, on this machine, and gives what a stranger wrote as data alone."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import shlex
import shutil
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vidal
from tests.runs import AUDIO, CAPTION, FEW_LETTERS, LETTERS, PAINT, SHADE, command, run, start_vidal, write_recipe
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.removal.remove import remove
from vidal.report.summary import Status
from vidal.stages import step_class
from vidal.view import thresholds
from vidal.view.api import Api
from vidal.view.server import Server, serve

EVIL = "<script>alert(1)</script>"
TITLES = [EVIL, "a dog barks", "The Dog sleeps", "no", "x", "mute", "it's; drop table clip --", "rain on a window"]
JSON = "application/json; charset=utf-8"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips in two shards, of which two are rejected; its folder has a name that is a pattern to some."""
    folder = tmp_path_factory.mktemp("view")
    stages = [PAINT, LETTERS, FEW_LETTERS, SHADE, AUDIO, CAPTION, {"too_short": {"min_s": 1.5}}]
    out = folder / "it's [a] set*"
    run(write_recipe(folder, stages, TITLES), out, InProcessEngine())
    return out


@pytest.fixture
def mine(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "mine"))


@dataclass
class Client:
    """A browser that sends exactly what it is told."""

    server: Server

    def send(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask for a path behind the token."""
        return self.raw(f"/{self.server.token}/{path}", method, body, **headers)

    def raw(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(*self.server.server_address[:2], timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def ask(self, answer: str, **parameters: Any) -> Any:
        """The JSON of an answer, whatever its status."""
        response, data = self.send(f"api/{answer}?{urlencode(parameters, doseq=True)}")
        assert response.headers["Content-Type"] == JSON, data
        return json.loads(data)

    def flag(self, **sent: Any) -> tuple[int, Any]:
        response, data = self.send("api/flags", "POST", json.dumps(sent).encode(), Content_Type="application/json")
        return response.status, json.loads(data)


def serving(out: Path | str) -> Iterator[Client]:
    server = Server(Api(Dataset.open(str(out))))
    thread = threading.Thread(target=serve, args=[server])
    thread.start()
    yield Client(server)
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[Client]:
    yield from serving(built)


@pytest.fixture
def writer(mine: Path) -> Iterator[Client]:
    yield from serving(mine)


def clip_with(client: Client, title: str) -> dict[str, Any]:
    (row,) = [row for row in client.ask("clips")["rows"] if row["title"] == title]
    clip: dict[str, Any] = client.ask("clip", clip=row["clip_id"], shard=row["shard"])
    return clip


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/api/summary", {}),
        ("/wrong/api/summary", {}),
        ("/TOKENx/api/summary", {}),
        ("/%C3%A9/api/summary", {}),
        ("/TOKEN/", {"Host": "example.org"}),
        ("/TOKEN/api/summary", {"Host": "example.org:80"}),
        ("/TOKEN/api/summary", {"Host": "127.0.0.1.example.org:80"}),
        ("/TOKEN/api/summary", {"Host": ""}),
        ("//example.org/TOKEN/", {}),
    ],
)
def test_without_the_token_or_under_another_name_nothing_is_answered(
    client: Client, path: str, headers: dict[str, str]
) -> None:
    response, data = client.raw(path.replace("TOKEN", client.server.token), **headers)
    assert (response.status, response.headers["Content-Type"]) == (403, JSON)
    assert b"toys" not in data and list(json.loads(data)) == ["error"]


def test_a_tunnel_with_another_port_is_answered(client: Client) -> None:
    assert client.send("api/summary", Host="localhost:9999")[0].status == 200


def test_it_listens_on_this_machine_alone_and_every_server_has_its_own_token(client: Client, built: Path) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    with Server(client.server.api) as other:
        assert other.token != client.server.token and len(other.token) >= 32


@pytest.mark.parametrize(
    "path",
    [
        "../view.py",
        "..%2f..%2fetc/passwd",
        "/etc/passwd",
        "page/index.html",
        "api/nothing",
        "api/",
        "api/_row",
        "api/../api",
    ],
)
def test_there_is_nothing_but_the_page_and_the_answers(client: Client, path: str) -> None:
    assert client.send(path)[0].status == 404


@pytest.mark.parametrize("name", ["../video/000000.tar", "/etc/passwd", "..", "", "c001.json/../c001.mp4", "c001.exe"])
def test_a_member_is_one_of_the_row_by_its_very_name(client: Client, name: str) -> None:
    said = client.ask("member", clip="c001", layer="video", name=name)
    assert said == {"error": f"clip c001: no member {name} in video"}


PAGE_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PAGE_FILES = sorted(file.name for file in (Path(vidal.__file__).parent / "view" / "page").iterdir())


@pytest.mark.parametrize("path", ["", *(name for name in PAGE_FILES if name != "icon.png")])
def test_the_page_runs_its_own_scripts_alone_and_loads_nothing_from_elsewhere(client: Client, path: str) -> None:
    response, data = client.send(path)
    kind = PAGE_TYPES[(path or "index.html").rpartition(".")[2]]
    assert (response.status, response.headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'" and set(policy.values()) == {"'self'", "'none'"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert b"://" not in data and b"style=" not in data and b"onclick=" not in data
    for markup in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval(", b"srcdoc"):
        assert markup not in data


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


RANGES = [
    ("bytes=0-9", 206, slice(0, 10)), ("bytes=7-", 206, slice(7, None)), ("bytes=-4", 206, slice(-4, None)),
    ("bytes=3-3", 206, slice(3, 4)), ("bytes=5-999999", 206, slice(5, None)), ("bytes=-999999", 206, slice(0, None)),
    ("bytes=999999-", 416, slice(0, 0)), ("bytes=-0", 416, slice(0, 0)), ("bytes=9-3", 416, slice(0, 0)),
    ("bytes=0-1,5-6", 200, slice(0, None)), ("lines=1-2", 200, slice(0, None)), ("bytes=-", 200, slice(0, None)),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "status", "part"), RANGES)
def test_a_range_of_a_video_is_that_part(client: Client, asked: str, status: int, part: slice) -> None:
    clip = clip_with(client, "a dog barks")
    (url,) = [member["url"] for member in clip["members"] if member["type"] == "video/mp4"]
    _, whole = client.send(url)
    response, data = client.send(url, Range=asked)
    assert (response.status, data) == (status, whole[part])
    assert int(response.headers["Content-Length"]) == len(data)
    if status == 206:
        first, last, _ = part.indices(len(whole))
        assert response.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(whole)}"
    if status == 416:
        assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_the_head_of_an_answer_has_its_length_and_no_body(client: Client) -> None:
    _, whole = client.send("api/summary")
    response, data = client.send("api/summary", "HEAD")
    assert (response.status, int(response.headers["Content-Length"]), data) == (200, len(whole), b"")


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
    ("tests.engine_toys:FewLetters", "letters>=3", None),
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


def test_a_flag_is_written_read_and_taken_back(writer: Client, mine: Path) -> None:
    assert writer.flag(clip="c001", flag="unsafe", note=EVIL) == (200, {"flags": {"unsafe": EVIL}})
    assert writer.flag(clip="c002", flag="remove")[0] == 200
    assert clip_with(writer, "a dog barks")["flags"] == {"unsafe": EVIL}
    assert writer.ask("clips", where="flag_unsafe")["rows"][0]["clip_id"] == "c001"
    frame = pd.read_parquet(mine / "flags")
    assert frame[["clip_id", "flag", "is_set"]].to_numpy().tolist() == [
        ["c001", "unsafe", True],
        ["c002", "remove", True],
    ]
    assert [vidal.open(mine, where="flag_unsafe or flag_remove").clip_id(i) for i in (0, 1)] != ["c001", "c001"]
    assert len(vidal.open(mine, where="not FLAG_unsafe")) == 5
    flags.FlagWriter(Dataset.open(str(mine)).storage).write("c006", "unsafe")
    assert writer.ask("clips", where="flag_unsafe")["clips"] == 2, "another writer's"
    assert writer.flag(clip="c006", flag="unsafe", is_set=False)[0] == 200
    assert writer.flag(clip="c001", flag="unsafe", is_set=False) == (200, {"flags": {}})
    assert writer.ask("clips", where="flag_unsafe")["clips"] == 0
    assert writer.ask("flags")["clips"] == {"wrong_caption": {}, "misaligned": {}, "unsafe": {}, "remove": {"c002": ""}}
    assert command("verify", mine).returncode == 0


@pytest.mark.parametrize(
    "sent",
    [
        {"clip": "nobody", "flag": "unsafe"},
        {"clip": "c001", "flag": "../../evil"},
        {"clip": "c001"},
        {"clip": "c001", "flag": "unsafe", "is_set": "no"},
        {"clip": "c001", "flag": "unsafe", "more": 1},
    ],
)
def test_a_flag_that_is_none_is_not_written(writer: Client, mine: Path, sent: dict[str, Any]) -> None:
    assert writer.flag(**sent)[0] == 400 and not (mine / "flags").exists()


POSTS = [
    ("api/flags", {"Content_Type": "text/plain"}, 415), ("api/flags", {"Content_Type": "application/json", "Content_Length": "99999999"}, 413),
    ("api/clips", {"Content_Type": "application/json"}, 404), ("", {"Content_Type": "application/json"}, 404),
    ("api/flags", {"Content_Type": "application/json", "Host": "example.org"}, 403),
]  # fmt: skip


@pytest.mark.parametrize(("path", "headers", "status"), POSTS)
def test_another_pages_post_is_refused(
    writer: Client, mine: Path, path: str, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"clip": "c001", "flag": "unsafe"}).encode()
    assert writer.send(path, "POST", body, **headers)[0].status == status
    assert not (mine / "flags").exists()


def test_many_write_flags_at_once_and_none_is_lost(mine: Path) -> None:
    storage = Dataset.open(str(mine)).storage
    writers = [flags.FlagWriter(storage) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: writers[n % 3].write(f"clip{n}", "misaligned"), range(30)))
    assert set(flags.current(storage)["misaligned"]) == {f"clip{n}" for n in range(30)}
    assert len(list((mine / "flags").iterdir())) == 3


def test_what_is_removed_loses_its_flags_too(mine: Path) -> None:
    storage = Dataset.open(str(mine)).storage
    writer = flags.FlagWriter(storage)
    for clip in ("c001", "c002"):
        writer.write(clip, "remove", note="asked for by mail")
    remove(str(mine), Removals({"clip_id": {"c001"}}))
    writer.write("c006", "unsafe")
    assert flags.current(storage)["remove"] == {"c002": "asked for by mail"}
    assert pd.read_parquet(mine / "flags")["clip_id"].tolist() == ["c002", "c006"]


def test_the_command_prints_the_address_and_ctrl_c_ends_it(built: Path) -> None:
    process = start_vidal("view", built, "--no-browser")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{url}api/summary", timeout=30) as response:
        assert json.load(response)["kept"] == 6
    process.send_signal(signal.SIGINT)
    said, wrong = process.communicate(timeout=30)
    assert (process.returncode, said, wrong) == (0, "", "")


def test_a_port_that_is_taken_is_told_in_one_line(client: Client, built: Path) -> None:
    port = client.server.server_address[1]
    done = command("view", built, "--no-browser", "--port", str(port))
    told = f"vidal: port {port}: Address already in use; choose another with --port\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)


def test_a_dataset_of_an_earlier_version_is_shown() -> None:
    old = Path(__file__).parents[2] / "datasets" / "schema-3"
    for client in serving(old):
        assert client.ask("summary")["kept"] == len(client.ask("clips", where="status = 'kept'")["rows"]) > 0
        assert client.ask("clip", clip="kept")["row"]["cluster"] is None


def test_without_a_committed_shard_there_is_nothing_to_show(mine: Path) -> None:
    shutil.rmtree(mine / "manifest")
    with pytest.raises(SourceError, match="no shard is committed yet"):
        Api(Dataset.open(str(mine)))
