"""Faults to plant into the commit engine, each of which the checker must find: what a test is worth is what it finds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from unittest import mock

from tests.simulation import acts
from vidal.dataset import commit, lock, manifest, revisions
from vidal.dataset.commit import ShardWriter
from vidal.dataset.dataset import Dataset
from vidal.dataset.lock import OwnerFence
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, StorageError
from vidal.revisions import refilter, revise

_swap = Storage.swap
_NAME = f"{lock.FOLDER}/run"


class UnfencedLock:
    """The lock as it was: one file, overwritten at each beat, deleted and created anew at a takeover; nothing asks it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._stop = lock.threading.Event()
        self._beat = lock.threading.Thread(target=self._keep_beating, daemon=True)

    def __enter__(self) -> UnfencedLock:
        if self._storage.create(_NAME, self._claim()) is None:
            if self._is_owner_alive():
                raise OutputError("another run is writing this dataset")
            self._storage.remove(_NAME)
            if self._storage.create(_NAME, self._claim()) is None:
                raise OutputError("another run has just started on this dataset")
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._beat.join()
        self._storage.remove(_NAME)

    def _claim(self) -> bytes:
        me = lock.psutil.Process()
        claim = {"host": lock.socket.gethostname(), "pid": me.pid, "started": me.create_time()}
        return json.dumps({**claim, "beat": lock.time.time()}).encode()

    def _keep_beating(self) -> None:
        while not self._stop.wait(lock.BEAT_S):
            with contextlib.suppress(StorageError, FileNotFoundError):
                self._storage.write(_NAME, self._claim())

    def _is_owner_alive(self) -> bool:
        try:
            owner = json.loads(self._storage.read(_NAME))
        except (FileNotFoundError, ValueError):
            return False
        if owner["host"] != lock.socket.gethostname():
            return bool(lock.time.time() - owner["beat"] <= lock.STALE_BEATS * lock.BEAT_S)
        return not lock._is_seen_dead(owner)


def _commit_tars_last(writer: ShardWriter, metadata: dict[str, str]) -> None:
    """Commit a shard by its manifest first."""
    rows = manifest.to_parquet(writer._clips, writer._extra, metadata)
    held = commit.revoke(writer._storage, writer._shard)
    writer._storage.swap(manifest.name_of(writer._shard), rows, str(held))
    for layer, (path, handle, tar) in writer._files.items():
        tar.close()
        handle.close()
        writer._storage.upload(path, f"{layer}/{manifest.stem_of(writer._shard)}.tar")


def _swap_or_put(storage: Storage, name: str, data: bytes | None, expected: str) -> str | None:
    """Swap a file, and put a manifest over whatever is there."""
    if data is None or not name.startswith(manifest.FOLDER) or manifest.is_reservation(data):
        return _swap(storage, name, data, expected)
    storage._ask_fence()
    with storage.errors(name, writing=True):
        storage.fs.pipe_file(storage.path(name), data)
    return storage.token(name)


def _look(storage: Storage, shard: int) -> str | None:
    """Leave what is in a manifest's place."""
    return storage.token(manifest.name_of(shard))


def _delete(storage: Storage, shard: int) -> str:
    """Leave nothing in a manifest's place, as it was before there were reservations."""
    while (token := storage.token(manifest.name_of(shard))) is not None:
        storage.swap(manifest.name_of(shard), None, token)
    return ""


def _create_or_swap(storage: Storage, name: str, data: bytes | None, expected: str) -> str | None:
    """Swap a file, and create one where nothing was expected."""
    if expected or data is None:
        return _swap(storage, name, data, expected)
    while (created := storage.create(name, data)) is None:
        _delete(storage, int(name[-14:-8]))
    return created


@contextlib.contextmanager
def _deleted() -> Iterator[None]:
    with mock.patch.object(commit, "revoke", _delete), mock.patch.object(Storage, "swap", _create_or_swap):
        yield


def _living_by_its_clock(storage: Storage, number: int, clock: Any, sleep: Any) -> dict[str, Any] | None:
    """Tell a dead owner by the time that it wrote, against the watcher's own."""
    owner = lock._content(lock._read(storage, number))
    if "pid" not in owner or lock._is_seen_dead(owner):
        return None
    is_stale = lock.time.time() - owner["beat"] > lock.STALE_BEATS * lock.BEAT_S
    return None if is_stale and not lock._is_here(owner) else owner


def _name_in_current(dataset: Dataset, name: str) -> str:
    """Look for each file in the revision that is current by then."""
    folder = revisions.folder_of(revisions.current(dataset.storage))
    return f"{folder}/{name}" if folder else name


def _begin_as_current(*given: Any, **settings: Any) -> Dataset:
    """Make a revision current before it is complete."""
    revision = revise.begin(*given, **settings)
    revisions.make_current(revision.storage, revision.number)
    return revision


def _patched(owner: Any, name: str, fault: object) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: mock.patch.object(owner, name, fault)


@dataclass(frozen=True, slots=True)
class Fault:
    """What plants a fault for the time of a block, and what the checker must say of it."""

    plant: Callable[[], contextlib.AbstractContextManager[Any]]
    says: str
    among: range = range(1000)
    """The schedules of which one must find it; of whole commands, those alone."""
    seed: int = 0
    """One that finds it soon."""


_OF_COMMANDS = range(9, 1000, 10)
FAULTS = {
    "an unfenced lock": Fault(_patched(acts, "Lock", UnfencedLock), "though it has lost the lock"),
    "a fence that nobody asks": Fault(_patched(OwnerFence, "check", lambda fence: None), "replaces .* of owner"),
    "a manifest before its tars": Fault(_patched(ShardWriter, "commit", _commit_tars_last), "is not in the tar"),
    "a manifest that is put": Fault(_patched(Storage, "swap", _swap_or_put), "replaces .*manifest", seed=1),
    "a manifest that stays": Fault(_patched(commit, "revoke", _look), "whose manifest is there"),
    "a manifest that is deleted": Fault(_deleted, "is not in the tar", seed=1),
    "a reader of two revisions": Fault(_patched(Dataset, "_name", _name_in_current), "another revision", _OF_COMMANDS),
    "an early revision": Fault(_patched(refilter, "begin", _begin_as_current), "a reader sees", _OF_COMMANDS, 4),
    "staleness by two clocks": Fault(_patched(lock, "_living_owner", _living_by_its_clock), "without having watched"),
    "staleness after two beats": Fault(_patched(lock, "STALE_BEATS", 2), "without having watched"),
}
"""By name."""
