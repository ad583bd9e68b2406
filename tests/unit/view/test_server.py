"""Who is answered by the viewer's server, and what a flag writes."""

from __future__ import annotations

import json
import shlex
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import vidal
from tests.processes import command, start_vidal
from tests.unit.view.serving import EVIL, JSON, Client, clip_with
from vidal.dataset import flags
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.removal.remove import remove
from vidal.view.server import Server


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


def test_thresholds_become_the_revision_that_refilter_would_make(writer: Client, mine: Path) -> None:
    told = writer.post("refilter", bounds=["duration_s>=2.5"])
    assert told[0] == 200 and told[1]["lines"][0] == f"{mine}: 0 clips kept, 6 before"
    assert shlex.split(told[1]["lines"][-1])[-4:] == ["view", str(mine), "--against", f"{mine}@0"]
    (now, before) = (Dataset.open(address) for address in (str(mine), f"{mine}@0"))
    assert (now.number, now.info.made_by) == (1, "vidal refilter --set too_short.min_s=2.5")
    assert {row["status"] for row in now.rows(["status"])} == {"rejected"}
    assert sum(row["status"] == "kept" for row in before.rows(["status"])) == 6
    assert writer.ask("summary")["kept"] == 6, "what is shown stays as it was at the start"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"bounds": ["letters<=9"]}, "no filter of the recipe decides on letters"),
        ({"bounds": ["duration_s>=2.5", "letters<=9"]}, "no filter of the recipe decides on letters"),
        ({"bounds": []}, "thresholds are"),
        ({"bounds": "duration_s>=2.5"}, "thresholds are"),
        ({"bounds": ["x"], "more": 1}, "thresholds are"),
        ({"bounds": ["x; rm"]}, "write COLUMN<=NUMBER"),
    ],
)
def test_thresholds_that_no_filter_takes_write_nothing(
    writer: Client, mine: Path, sent: dict[str, Any], told: str
) -> None:
    status, answer = writer.post("refilter", **sent)
    assert status == 400 and told in answer["error"] and not (mine / "revisions").exists()


POSTS = [
    ("api/flags", {"Content_Type": "text/plain"}, 415), ("api/flags", {"Content_Type": "application/json", "Content_Length": "99999999"}, 413),
    ("api/flags", {"Content_Type": "application/json", "Content_Length": "9" * 5_000}, 413),
    ("api/clips", {"Content_Type": "application/json"}, 404), ("api/refilter", {"Content_Type": "text/plain"}, 415), ("", {"Content_Type": "application/json"}, 404),
    ("api/flags", {"Content_Type": "application/json", "Host": "example.org"}, 403),
]  # fmt: skip


@pytest.mark.parametrize(("path", "headers", "status"), POSTS)
def test_another_pages_post_is_refused(
    writer: Client, mine: Path, path: str, headers: dict[str, str], status: int
) -> None:
    body = json.dumps({"clip": "c001", "flag": "unsafe"}).encode()
    assert writer.send(path, "POST", body, **headers)[0].status == status
    assert not (mine / "flags").exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b"9" * 5_000, b"\xff"])
def test_what_is_no_json_is_refused(writer: Client, mine: Path, body: bytes) -> None:
    response, answer = writer.send("api/flags", "POST", body, Content_Type="application/json")
    assert (response.status, json.loads(answer)) == (400, {"error": "not JSON"})
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
