"""`Lock`: at most one run writes a dataset; the lock of a dead run does not block the next one."""

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
_HEARTBEAT_S = 10.0
# Six beats: a slow store delays one, and the clocks of two hosts differ.
_STALE_S = 60.0


class Lock:
    """Held for the duration of a run. A dead owner's lock is broken at once on its own host, elsewhere after a minute.

    Raises `OutputError` on entering if another run holds it.
    """

    def __init__(self, storage: Storage, note: Callable[[], str] = str) -> None:
        """``note`` returns a line that every heartbeat stores in the lock, such as the progress of the run."""
        self._storage = storage
        self._note = note
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Lock:
        if not self._storage.create_exclusively(NAME, self._claim()):
            if owner := _live_owner(self._storage):
                raise OutputError(
                    f"{self._storage.address}: another run (pid {owner['pid']} on {owner['host']}) is writing this "
                    f"dataset; wait for it, or choose another --out"
                )
            self._storage.remove(NAME)
            if not self._storage.create_exclusively(NAME, self._claim()):
                raise OutputError(f"{self._storage.address}: another run has just started on this dataset")
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
        while not self._stop.wait(_HEARTBEAT_S):
            try:
                self._storage.write(NAME, self._claim())
            except (StorageError, FileNotFoundError):
                # The run itself uses the same storage and reports its errors; a missed heartbeat only ages the lock.
                continue


def run_under_way(storage: Storage) -> str | None:
    """Return the last note of the run that is writing a dataset, with its process and host; None if there is none."""
    owner = _live_owner(storage)
    if owner is None:
        return None
    age_s = max(0, round(time.time() - float(owner["beat"])))
    return f"{owner.get('note') or 'starting'} (pid {owner['pid']} on {owner['host']}, {age_s} s ago)"


def _live_owner(storage: Storage) -> dict[str, Any] | None:
    """Return the claim of the run that holds the lock; None if there is no lock, or its run is dead."""
    try:
        owner: dict[str, Any] = json.loads(storage.read(NAME))
    except (FileNotFoundError, ValueError):
        return None
    # Only this host can tell whether the process lives; of another one, the heartbeat says it.
    if owner.get("host") != socket.gethostname():
        return owner if time.time() - float(owner.get("beat", 0)) <= _STALE_S else None
    try:
        # The process with this id may be a later one.
        # Within a second, as the time is computed from that of the boot, which moves when the clock is corrected.
        is_same = abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) <= 1
    except psutil.NoSuchProcess:
        return None
    return owner if is_same else None
