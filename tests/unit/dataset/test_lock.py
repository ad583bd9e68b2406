"""One driver writes a dataset; a lock that nobody alive holds is broken."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from vidal.dataset.lock import NAME, Lock, run_under_way
from vidal.dataset.storage import Storage
from vidal.errors import OutputError

ME = psutil.Process()


def claim(**changes: Any) -> bytes:
    mine = {"host": socket.gethostname(), "pid": ME.pid, "started": ME.create_time(), "beat": time.time()}
    return json.dumps({**mine, **changes}).encode()


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_lock_is_there_for_the_length_of_a_run(tmp_path: Path) -> None:
    with Lock(Storage(str(tmp_path))):
        held = json.loads((tmp_path / NAME).read_bytes())
        assert (held["pid"], held["host"]) == (os.getpid(), socket.gethostname())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lock(Storage(str(tmp_path))):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_second_driver_is_rejected_and_the_first_ones_lock_left_alone(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with Lock(storage):
        before = (tmp_path / NAME).read_bytes()
        with pytest.raises(OutputError, match=rf"another run \(pid {os.getpid()} on .*\) is writing this"):
            Lock(storage).__enter__()
        assert (tmp_path / NAME).read_bytes() == before


HELD = [
    ("by a process of another host that beat just now", {"host": "elsewhere", "pid": 1}, True),
    ("by a process of another host that fell silent", {"host": "elsewhere", "beat": time.time() - 61}, False),
    ("by a living process of this host, however long ago it beat", {"beat": 0.0}, True),
    ("by a dead process of this host that beat just now", {"pid": dead_pid()}, False),
    ("by an earlier process whose number is another's now", {"pid": 1, "started": 12.0}, False),
    ("by an earlier process whose number is mine now", {"started": ME.create_time() - 100}, False),
]


@pytest.mark.parametrize(("name", "owner", "is_rejected"), HELD)
def test_a_lock_is_held(name: str, owner: dict[str, Any], is_rejected: bool, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(claim(**owner))
    if is_rejected:
        with pytest.raises(OutputError, match="another run"):
            Lock(Storage(str(tmp_path))).__enter__()
    else:
        with Lock(Storage(str(tmp_path))):
            assert json.loads((tmp_path / NAME).read_bytes())["pid"] == os.getpid()


@pytest.mark.parametrize("rubbish", [b"", b"{", b"not json"])
def test_a_lock_that_holds_no_claim_is_broken(rubbish: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(rubbish)
    with Lock(Storage(str(tmp_path))):
        assert json.loads((tmp_path / NAME).read_bytes())["pid"] == os.getpid()


def test_a_run_under_way_says_how_far_it_is_and_a_dead_one_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert run_under_way(storage) is None
    with Lock(storage, lambda: "phase 1/2: 3/8 clips"):
        told = run_under_way(storage)
        assert told is not None and told.startswith(f"phase 1/2: 3/8 clips (pid {os.getpid()} on ")
    (tmp_path / NAME).write_bytes(claim(pid=dead_pid(), note="phase 1/2: 3/8 clips"))
    assert run_under_way(storage) is None
