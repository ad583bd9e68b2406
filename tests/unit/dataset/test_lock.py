"""One driver writes a dataset; a lock that nobody alive holds is taken over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from vidal.dataset.lock import BEAT_S, FOLDER, STALE_BEATS, Lock, LostLockError, renew, run_under_way, take
from vidal.dataset.storage import Storage
from vidal.errors import OutputError

ME = psutil.Process()


class Watch:
    """A clock that stands still but for the sleeps; at each of them something may happen."""

    def __init__(self, meanwhile: Callable[[float], None] = lambda _: None) -> None:
        self.now, self._meanwhile = 0.0, meanwhile

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._meanwhile(self.now)


def claim(**changes: Any) -> bytes:
    mine = {"host": socket.gethostname(), "pid": ME.pid, "started": ME.create_time(), "beat": time.time()}
    return json.dumps({**mine, **changes}).encode()


def held_by(folder: Path, number: int, content: bytes) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / FOLDER / f"{number:06d}").write_bytes(content)


def numbers(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def owner(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / FOLDER / numbers(folder)[-1]).read_bytes())
    return held


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_lock_is_held_for_the_length_of_a_run_and_its_number_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with Lock(Storage(str(tmp_path))):
            held = owner(tmp_path)
            assert (held["pid"], held["host"]) == (os.getpid(), socket.gethostname())
        assert (numbers(tmp_path), owner(tmp_path)) == ([f"{number:06d}"], {"released": True})
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_an_owner_goes_on_under_the_next_number_unless_another_has_it(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with Lock(storage) as held:
        renew(storage.child("phases/1"))
        held.check()
        assert (numbers(tmp_path), owner(tmp_path)["pid"]) == (["000002"], os.getpid())
        with pytest.raises(OutputError, match="another run"):
            Lock(Storage(str(tmp_path))).__enter__()
    assert (numbers(tmp_path), owner(tmp_path)) == (["000002"], {"released": True})
    with Lock(storage):
        held_by(tmp_path, 4, claim(host="elsewhere"))
        with pytest.raises(LostLockError, match=r"to pid \d+ on elsewhere"):
            renew(storage)


def test_a_lock_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lock(Storage(str(tmp_path))):
        _ = 1 / 0
    assert owner(tmp_path) == {"released": True}


def test_a_second_driver_is_rejected_and_the_first_ones_lock_left_alone(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with Lock(storage):
        before = owner(tmp_path)
        with pytest.raises(OutputError, match=rf"another run \(pid {os.getpid()} on .*\) is writing this"):
            Lock(storage).__enter__()
        assert (numbers(tmp_path), owner(tmp_path)) == (["000001"], before)


HELD = [
    ("by a living process of this host, however long ago it beat", {"beat": 0.0}, True),
    ("by a dead process of this host that beat just now", {"pid": dead_pid()}, False),
    ("by an earlier process whose number is another's now", {"pid": 1, "started": 12.0}, False),
    ("by an earlier process whose number is mine now", {"started": ME.create_time() - 100}, False),
]


@pytest.mark.parametrize(("name", "changes", "is_rejected"), HELD)
def test_a_lock_is_held(name: str, changes: dict[str, Any], is_rejected: bool, tmp_path: Path) -> None:
    held_by(tmp_path, 7, claim(**changes))
    if is_rejected:
        with pytest.raises(OutputError, match="another run"):
            Lock(Storage(str(tmp_path))).__enter__()
    else:
        with Lock(Storage(str(tmp_path))):
            assert (numbers(tmp_path), owner(tmp_path)["pid"]) == (["000008"], os.getpid())


@pytest.mark.parametrize("clock_of_the_other_s", [-86_400.0, 0.0, 86_400.0])
def test_an_owner_elsewhere_is_dead_after_six_beats_without_a_change_whatever_its_clock(
    clock_of_the_other_s: float, tmp_path: Path
) -> None:
    held_by(tmp_path, 7, claim(host="elsewhere", beat=time.time() + clock_of_the_other_s))
    watch = Watch()
    take(Storage(str(tmp_path)), clock=watch.clock, sleep=watch.sleep)
    assert (watch.now, numbers(tmp_path)) == (STALE_BEATS * BEAT_S, ["000008"])


def test_an_owner_elsewhere_that_beats_is_alive(tmp_path: Path) -> None:
    def beat(now: float) -> None:
        if now == 58:
            held_by(tmp_path, 7, claim(host="elsewhere", pid=5, beats=1))

    held_by(tmp_path, 7, claim(host="elsewhere", pid=5, beats=0))
    watch = Watch(beat)
    with pytest.raises(OutputError, match=r"another run \(pid 5 on elsewhere\) is writing"):
        take(Storage(str(tmp_path)), clock=watch.clock, sleep=watch.sleep)
    assert (watch.now, numbers(tmp_path)) == (58, ["000007"])


def test_an_owner_elsewhere_that_ends_meanwhile_is_succeeded(tmp_path: Path) -> None:
    held_by(tmp_path, 7, claim(host="elsewhere"))
    watch = Watch(lambda now: held_by(tmp_path, 7, b'{"released": true}'))
    take(Storage(str(tmp_path)), clock=watch.clock, sleep=watch.sleep)
    assert (watch.now, numbers(tmp_path)) == (2, ["000008"])


def test_a_killed_owner_is_succeeded_at_once_on_its_host_and_elsewhere_after_six_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"from vidal.dataset.lock import *; take(Storage({str(tmp_path)!r})); print(flush=True); time.sleep(60)"
    for host, seconds in ((socket.gethostname(), 0), ("elsewhere", STALE_BEATS * BEAT_S)):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        with monkeypatch.context() as patch:
            patch.setattr(socket, "gethostname", lambda host=host: host)
            watch = Watch()
            take(Storage(str(tmp_path)), clock=watch.clock, sleep=watch.sleep).release()
        assert watch.now == seconds
    assert numbers(tmp_path) == ["000004"]


@pytest.mark.parametrize("rubbish", [b"", b"{", b"not json", b"[]", b"7"])
def test_a_lock_that_holds_no_claim_is_taken_over(rubbish: bytes, tmp_path: Path) -> None:
    held_by(tmp_path, 1, rubbish)
    with Lock(Storage(str(tmp_path))):
        assert owner(tmp_path)["pid"] == os.getpid()


def test_a_run_under_way_says_how_far_it_is_and_a_dead_one_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert run_under_way(storage) is None
    with Lock(storage, lambda: "phase 1/2: 3/8 clips"):
        told = run_under_way(storage)
        assert told is not None and told.startswith(f"phase 1/2: 3/8 clips (pid {os.getpid()} on ")
    assert run_under_way(storage) is None
    held_by(tmp_path, 2, claim(pid=dead_pid(), note="phase 1/2: 3/8 clips"))
    assert run_under_way(storage) is None
    held_by(tmp_path, 3, claim(host="elsewhere", note="1/8"))
    assert (run_under_way(storage) or "").startswith("1/8 (pid")
    held_by(tmp_path, 4, claim(host="elsewhere", beat=time.time() - 62))
    assert run_under_way(storage) is None
