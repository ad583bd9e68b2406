"""One driver per data set: a lock that a dead driver cannot keep."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psutil

from vidal.dataset.storage import Storage
from vidal.errors import OutputError, StorageError

NAME = "run.lock"
_BEAT_S = 10.0
_STALE_S = 60.0


class Lock:
    """Held for the length of a run; on this host a dead owner's lock is broken at once, elsewhere after a minute."""

    def __init__(self, storage: Storage, note: Callable[[], str] = str) -> None:
        """``note`` gives one line that every beat tells others, such as how far the run is."""
        self._storage = storage
        self._note = note
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Lock:
        if not self._storage.create_exclusively(NAME, self._claim()):
            owner = _owner(self._storage)
            if owner is not None and not _is_stale(owner):
                raise OutputError(
                    f"{self._storage.address}: another run (pid {owner['pid']} on {owner['host']}) is writing this "
                    f"data set; wait for it, or choose another --out"
                )
            self._storage.remove(NAME)
            if not self._storage.create_exclusively(NAME, self._claim()):
                raise OutputError(f"{self._storage.address}: another run has just started on this data set")
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beat.join()
        self._storage.remove(NAME)

    def _claim(self) -> bytes:
        me = psutil.Process()
        claim = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "beat": time.time()}
        return json.dumps({**claim, "note": self._note()}).encode()

    def _keep_beating(self) -> None:
        while not self._stop.wait(_BEAT_S):
            try:
                self._storage.write(NAME, self._claim())
            except (StorageError, FileNotFoundError):
                # The run itself meets the same storage and says so; a missed beat only ages the lock.
                continue


def run_under_way(storage: Storage) -> str | None:
    """What the run that holds a dataset's lock said last, and which run it is; None where no run is alive."""
    owner = _owner(storage)
    if owner is None or _is_stale(owner):
        return None
    age_s = max(0, round(time.time() - float(owner["beat"])))
    return f"{owner.get('note') or 'starting'} (pid {owner['pid']} on {owner['host']}, {age_s} s ago)"


def _owner(storage: Storage) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads(storage.read(NAME))
        return owner
    except (FileNotFoundError, ValueError):
        return None


def _is_stale(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return time.time() - float(owner.get("beat", 0)) > _STALE_S
    try:
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) > 1
    except psutil.NoSuchProcess:
        return True
