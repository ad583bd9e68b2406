"""The fetching child under supervision: whatever it does, one answer comes, in time, and the next ask is served."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.site import Site
from vidal.crawl.ask import Answer, Ask
from vidal.crawl.child import FetchChild, folder_bytes
from vidal.crawl.settings import WebSettings
from vidal.media.ffmpeg import find_ffmpeg


@pytest.fixture(scope="module")
def strange() -> Iterator[FetchChild]:
    with FetchChild(module="tests.site.strange_child", function="misbehaving", cpu_s=1.5) as child:
        yield child


def act(child: FetchChild, what: str, folder: Path, *, wall_s: float = 1.0, max_bytes: int = 10_000_000) -> Answer:
    return child.ask(
        Ask(op="direct", url=f"http://example.com/{what}", folder=str(folder), wall_s=wall_s, max_bytes=max_bytes)
    )


@pytest.mark.parametrize(
    ("what", "wall_s", "reason", "detail"),
    [
        ("die", 5, "fetcher_died", "exit code 3"),
        ("kill", 5, "fetcher_died", "SIGKILL"),
        ("crash", 5, "fetcher_died", "SIGABRT"),
        ("sleep", 1, "timeout", "no end after 1 s"),
        ("spin", 20, "timeout", "more than 1.5 CPU seconds"),
        ("hold", 0.2, "timeout", "no end after 0.2 s"),
        ("memory", 5, "fetcher_died", "MemoryError: "),
        ("raise", 5, "fetcher_died", "ZeroDivisionError: division by zero"),
        ("exit", 5, "fetcher_died", "SystemExit: 4"),
        ("one_file", 20, "too_large", None),
        ("fill", 20, "too_large", None),
    ],
)
def test_whatever_it_does_is_one_answer(
    strange: FetchChild, tmp_path: Path, what: str, wall_s: float, reason: str, detail: str | None
) -> None:
    started = time.monotonic()
    answer = act(strange, what, tmp_path, wall_s=wall_s)
    assert answer.reason == reason
    assert answer.detail == detail or detail is None
    assert answer.transient is (reason != "too_large")
    assert time.monotonic() - started < wall_s + 4
    assert folder_bytes(tmp_path) < 60_000_000
    assert act(strange, "print", tmp_path, wall_s=5).metadata == {"said": "printed"}


def test_prints_do_not_get_among_the_answers(strange: FetchChild, tmp_path: Path) -> None:
    assert [act(strange, "print", tmp_path, wall_s=5).file for _ in range(3)] == [None] * 3


def test_nothing_of_the_users_environment_is_there(
    strange: FetchChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with FetchChild(module="tests.site.strange_child", function="misbehaving") as child:
        said = act(child, "environment", tmp_path, wall_s=5).metadata["said"]
    assert "hunter2" not in said and "YTDLP_NO_PLUGINS" in said and os.environ["HOME"] + "'" not in said


def test_a_child_outlives_the_thread_that_asked_first(tmp_path: Path) -> None:
    """The kernel would kill it with the thread that started it."""
    with FetchChild() as child:
        for _ in range(2):
            thread = threading.Thread(target=child.start)
            thread.start()
            thread.join()
            time.sleep(0.1)
        assert child.starts == 1


def test_nothing_is_left_of_a_closed_child(tmp_path: Path) -> None:
    child = FetchChild(tmp_path)
    child.start()
    pid = child.pid
    assert pid is not None and list(tmp_path.iterdir())
    child.close()
    assert not Path(f"/proc/{pid}").exists() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_busy", [False, True])
def test_no_child_outlives_its_parent(tmp_path: Path, is_busy: bool) -> None:
    program = (
        "import sys, time, threading\n"
        "from vidal.crawl.child import FetchChild\n"
        "from vidal.crawl.ask import Ask\n"
        "child = FetchChild(module='tests.site.strange_child', function='misbehaving')\n"
        "child.start(); print(child.pid, flush=True)\n"
        f"child.ask(Ask(op='direct', url='http://example.com/{'hold' if is_busy else 'sleep'}', wall_s=60))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 3
    while _is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    return False


def test_hostile_configuration_and_plug_ins_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, hit = tmp_path / "home", tmp_path / "hit"
    plugin = home / ".config" / "yt-dlp" / "plugins" / "bad" / "yt_dlp_plugins" / "extractor"
    plugin.mkdir(parents=True)
    (plugin / "bad.py").write_text(f"open({str(hit)!r}, 'w').write('plugin')")
    (home / ".config" / "yt-dlp" / "config").write_text(f"--exec 'touch {hit}'\n")
    (home / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("PYTHONPATH", str(plugin.parents[1]))
    find_ffmpeg()  # so that the site itself does not come to try the shim
    shim = tmp_path / "bin" / "ffmpeg"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\ntouch {hit}\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    folder = tmp_path / "clip"
    folder.mkdir()
    told = WebSettings(allow_addresses=("127.0.0.1",), generic=True)
    with Site() as site, FetchChild() as child:
        for path in ("/hls/bunny-wake.mp4/index.m3u8", "/page/video/bunny-wake.mp4"):
            assert child.ask(Ask(op="media", url=site.url(path), folder=str(folder), settings=told)).ok
    assert not hit.exists()
