"""`Lock`: at most one run writes a dataset, and one that has lost the lock can write no more.

    .lock/000007     {"host": …, "pid": …, "beats": 12, …}, or {"released": true}

Each owner creates the next number, and of several who try only one can. The highest number is the owner; the others
are history, which the next owner deletes. Nobody writes another's file, so an owner that was paused overwrites nothing.
The number stays after a release, so that none is ever given twice. An owner's process that is seen dead on this host is
succeeded at once; one elsewhere, once its file has not changed for six beats of the watcher's own clock. An owner whose
workers may live although they are lost succeeds itself (`renew`), so that they write no more than an earlier owner.

`take`, `HeldLock.beat` and `HeldLock.release` know no thread and no clock but the one they are given.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from vidal.dataset.storage import Fence, Storage
from vidal.errors import MachineError, OutputError, StorageError

FOLDER = ".lock"
BEAT_S = 10.0
# A slow store delays a beat or two.
STALE_BEATS = 6
_LOOK_S = 2.0
_RELEASED = b'{"released": true}\n'


class LostLockError(MachineError):
    """Another run has taken the lock over; nothing more can be written."""


@dataclass(slots=True)
class OwnerFence:
    """What the storage of an owner and of its workers asks before each write."""

    address: str
    number: int
    """The owner's number, which only grows: from one owner to the next, and with each `renew`."""
    outer: Fence | None = None
    """That of the dataset around this one, whose lock the owner holds as well."""

    def check(self) -> None:
        """Raise `LostLockError` unless this number is the highest."""
        if self.outer is not None:
            self.outer.check()
        storage = Storage(self.address)
        if (highest := _highest(storage)) != self.number:
            owner = _content(_read(storage, highest))
            who = f"to pid {owner['pid']} on {owner['host']}" if "pid" in owner else "to another run, which has ended"
            raise LostLockError(
                f"{self.address}: lost the lock {who if highest else 'as its files were deleted'} "
                f"(owner {self.number}, now {highest or 'none'}); nothing more is written; run the same command again"
            )


class HeldLock:
    """The lock as its owner holds it."""

    def __init__(self, storage: Storage, number: int, note: Callable[[], str]) -> None:
        self.fence = OwnerFence(storage.address, number, storage.fence)
        self._storage, self._note, self._beats = Storage(storage.address, self.fence), note, 0

    @property
    def name(self) -> str:
        return _name(self.fence.number)

    def content(self) -> bytes:
        me = psutil.Process()
        # The time is for people: no clock of another host decides whether an owner lives.
        claim = {"host": socket.gethostname(), "pid": me.pid, "started": me.create_time(), "beat": time.time()}
        return json.dumps({**claim, "beats": self._beats, "note": self._note()}).encode()

    def beat(self) -> None:
        """Show that the owner lives; raises `LostLockError`, or `StorageError` for a beat that is missed."""
        self._beats += 1
        self._storage.write(self.name, self.content())

    def release(self) -> None:
        """Leave the lock to the next owner, unless it is another's already."""
        # On a full disk it stays taken until this process is dead; the run's own error is the one to show.
        with contextlib.suppress(LostLockError, StorageError):
            self._storage.write(self.name, _RELEASED)


def take(
    storage: Storage, note: Callable[[], str] = str,
    clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
) -> HeldLock:  # fmt: skip
    """Become the next owner. ``clock`` gives seconds; ``note`` a line that every beat stores.

    Raises `OutputError` if another run holds the lock, or was faster.
    """
    before = _highest(storage)
    if before and (owner := _living_owner(storage, before, clock, sleep)):
        raise OutputError(
            f"{storage.address}: another run (pid {owner['pid']} on {owner['host']}) is writing this dataset; wait "
            f"for it, or choose another --out"
        )
    claim = HeldLock(storage, before + 1, note)
    # Looked at once more, as a number may have been free because its owner has come and gone.
    if storage.create(claim.name, claim.content()) is None or _highest(storage) != before + 1:
        raise OutputError(f"{storage.address}: another run has just started on this dataset")
    for name in storage.names(FOLDER):
        if name.isdecimal() and int(name) <= before:
            storage.remove(f"{FOLDER}/{name}")
    return claim


def renew(storage: Storage) -> None:
    """Go on under the next number: workers that were given the present one write nothing more, should they still live.

    ``storage`` is any of those that are written under the lock; it, and all others of this process, have the new number
    afterwards. Raises `LostLockError`.
    """
    fence = storage.fence
    if not isinstance(fence, OwnerFence):
        return
    locked, before = Storage(fence.address, fence), fence.number
    if locked.create(_name(before + 1), _read(locked, before)) is None:
        fence.check()
    fence.number += 1
    locked.remove(_name(before))
    # As at a takeover: what a worker has made ready gets no name any more.
    locked.remove_temporaries()


class Lock:
    """Held for the duration of a run; all that is written through its storage meanwhile is written under its number.

    Raises `OutputError` on entering if another run holds it.
    """

    def __init__(self, storage: Storage, note: Callable[[], str] = str) -> None:
        """``note`` returns a line that every heartbeat stores in the lock, such as the progress of the run."""
        self._storage = storage
        self._note = note
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> Lock:
        self._outer = self._storage.fence
        self._claim = take(self._storage, self._note)
        # Before anything else: an earlier owner that wakes up cannot rename what is gone.
        self._storage.remove_temporaries()
        self._storage.fence = self._claim.fence
        self._beat.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._beat.join()
        self._storage.fence = self._outer
        self._claim.release()

    def check(self) -> None:
        """Raise `LostLockError` if the lock is another's by now; for what is not written through the storage."""
        self._claim.fence.check()

    def _keep_beating(self) -> None:
        was_lost = False
        while not self._stop.wait(BEAT_S):
            try:
                self._claim.beat()
                was_lost = False
            except LostLockError:
                # The run's next write says so. One beat may have fallen into a renewal.
                if was_lost:
                    return
                was_lost = True
            except (StorageError, FileNotFoundError):
                # The run itself uses the same storage and reports its errors; a missed heartbeat only ages the lock.
                continue


def run_under_way(storage: Storage) -> str | None:
    """Return the last note of the run that is writing a dataset, with its process and host; None if there is none.

    Of a run on another host it is shown for a minute after its last beat, as far as the two clocks agree.
    """
    owner = _content(_read(storage, _highest(storage)))
    if "pid" not in owner or _is_seen_dead(owner):
        return None
    age_s = max(0, round(time.time() - float(owner["beat"])))
    if not _is_here(owner) and age_s > STALE_BEATS * BEAT_S:
        return None
    return f"{owner.get('note') or 'starting'} (pid {owner['pid']} on {owner['host']}, {age_s} s ago)"


def _living_owner(
    storage: Storage, number: int, clock: Callable[[], float], sleep: Callable[[float], None]
) -> dict[str, Any] | None:
    """Return the claim of an owner that lives; None if it has released the lock or is dead.

    Watches the file of an owner on another host until it changes, or has not for so long that the owner is dead.
    """
    first = _read(storage, number)
    owner = _content(first)
    if "pid" not in owner or _is_seen_dead(owner):
        return None
    if _is_here(owner):
        return owner
    since = clock()
    while clock() - since < STALE_BEATS * BEAT_S:
        sleep(_LOOK_S)
        if (now := _read(storage, number)) != first:
            changed = _content(now)
            return changed if "pid" in changed else None
    return None


def _highest(storage: Storage) -> int:
    return max((int(name) for name in storage.names(FOLDER) if name.isdecimal()), default=0)


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}"


def _read(storage: Storage, number: int) -> bytes:
    try:
        return storage.read(_name(number))
    except FileNotFoundError:
        return b""


def _content(data: bytes) -> dict[str, Any]:
    """Return a claim; empty for what is no claim, such as half a file on a file system without hard links."""
    try:
        claim = json.loads(data)
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}


def _is_here(owner: dict[str, Any]) -> bool:
    return owner.get("host") == socket.gethostname()


def _is_seen_dead(owner: dict[str, Any]) -> bool:
    """Return whether the owner's process was on this host, and is no more; only this host can tell."""
    if not _is_here(owner):
        return False
    try:
        # The process with this id may be a later one.
        # Within a second, as the time is computed from that of the boot, which moves when the clock is corrected.
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) > 1
    except psutil.NoSuchProcess:
        return True
