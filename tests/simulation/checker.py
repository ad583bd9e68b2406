"""`Checker`: holds what happened in a store, and what its readers saw, to the promises of the commit."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.scheduler import Process, Task, World
from tests.simulation.store import Change, Store, Version
from vidal.dataset import lock, manifest

_MANIFEST = re.compile(rf"(?P<folder>.+)/{manifest.FOLDER}/(?P<stem>\d{{6}})\.parquet")
_LOCK = re.compile(rf"bucket/out/{re.escape(lock.FOLDER)}/")
"""Of the whole dataset; a growth holds that of the dataset within as well."""
# By what the documentation promises, not by the setting of the code.
_STALE_S = 60.0
_TAR = re.compile(r"(?P<folder>.+)/[a-z]+/(?P<stem>\d{6})\.tar")


def _is_commit(version: Version | None) -> bool:
    """Return whether there is a manifest, and no reservation."""
    return version is not None and not manifest.is_reservation(version.data)


@dataclass(slots=True, eq=False)
class Checker:
    """Watches a store; ``faults`` are the promises that were broken."""

    world: World
    store: Store
    faults: list[str] = field(default_factory=list)
    highest: int = 0
    """The number of the last process that has taken the lock: its place in the order of takeovers."""
    rewrites: int = 0
    """Commands begun that change committed files in place, a retry or a removal, and commits taken back."""
    unfinished_rewrites: int = 0
    _owners: dict[int, Process] = field(default_factory=dict)
    _released: set[int] = field(default_factory=set)
    _looks: dict[tuple[Process, str], tuple[bytes, float, float]] = field(default_factory=dict)
    """The first and the last time, on its own clock, at which a process read the same claim of another owner."""

    def __post_init__(self) -> None:
        self.store.watch, self.store.answered = self.changed, self.answered

    def fault(self, line: str) -> None:
        self.faults.append(f"{self.world.now_s:.3f} {line}")

    def answered(self, task: Task, kind: str, path: str, answer: Any) -> None:
        """See what a process learns of the lock."""
        if kind == "list" and _LOCK.fullmatch(f"{path}/"):
            task.asked = self.highest_in(answer)
        if kind == "get" and _LOCK.match(path):
            process, now_s = task.process, self.world.now_s + task.process.clock_offset_s
            data, first_s, _ = self._looks.get((process, path), (answer.data, now_s, now_s))
            first_s = first_s if data == answer.data else now_s
            self._looks[process, path] = (answer.data, first_s, now_s)

    @staticmethod
    def highest_in(paths: list[str]) -> int:
        numbers = (path.rsplit("/", 1)[-1] for path in paths)
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def changed(self, change: Change) -> None:
        """Look at a change at the moment when the store makes it."""
        if f"/{lock.FOLDER}/" in change.path:
            if _LOCK.match(change.path):
                self._lock_changed(change)
            return
        who = f"{change.sender.process.name} (owner {change.sender.owner} of {self.highest})"
        if change.sender.owner == 0:
            self.fault(f"{who} changes {change.path} without the lock")
        if change.before is not None and change.before.owner > change.sender.owner:
            self.fault(f"{who} replaces {change.path} of owner {change.before.owner}")
        if match := _MANIFEST.fullmatch(change.path):
            self._manifest_changed(change, who, match["folder"], match["stem"])
        elif match := _TAR.fullmatch(change.path):
            name = f"{match['folder']}/{manifest.FOLDER}/{match['stem']}.parquet"
            if _is_commit(self.store.objects.get(name)):
                self.fault(f"{who} changes {change.path}, whose manifest is there")

    def _lock_changed(self, change: Change) -> None:
        if change.after is None:
            return
        if change.before is not None:
            if b"released" in change.after.data:
                self._released.add(change.before.owner or change.sender.owner)
            return
        name = change.path.rsplit("/", 1)[-1]
        before, number = self._owners.get(self.highest), int(name) if name.isdecimal() else self.highest + 1
        if before is not None and self.highest not in self._released and number > self.highest:
            self._taken_over(change.sender.process, before)
        self.highest = max(self.highest, number)
        change.sender.process.owner = max(change.sender.process.owner, number)
        self._owners[number] = change.sender.process

    def _taken_over(self, process: Process, before: Process) -> None:
        if before.host == process.host:
            if not before.is_dead and not before.has_ended:
                self.fault(f"{process.name} takes the lock of {before.name}, which lives on the same host")
            return
        looks = [(first_s, last_s) for (who, _), (_, first_s, last_s) in self._looks.items() if who is process]
        if not looks or max(last_s - first_s for first_s, last_s in looks) < _STALE_S:
            self.fault(f"{process.name} takes the lock of {before.name} without having watched it for a minute")

    def _manifest_changed(self, change: Change, who: str, folder: str, stem: str) -> None:
        if not _is_commit(change.after):
            # Also the one of an earlier owner that came after the next one had looked which shards are left.
            self.rewrites += _is_commit(change.before)
            return
        if change.sender.asked != change.sender.owner < self.highest:
            self.fault(f"{who} commits {change.path} though it has lost the lock")
        if "/revisions/" in change.path:
            return
        if _is_commit(change.before):
            self.fault(f"{who} replaces the manifest {change.path}")
        for line in self.mixed(folder, stem, change.after.data):
            self.fault(f"{who} commits {change.path}: {line}")

    def mixed(self, folder: str, stem: str, data: bytes) -> list[str]:
        """Return what does not fit together in a shard whose members lie beside its manifest."""
        lines = []
        for row in manifest.read(data, ["clip_id", "members"]).to_pylist():
            for member in row["members"]:
                tar = self.store.objects.get(f"{folder}/{member['layer']}/{stem}.tar")
                part = b"" if tar is None else tar.data[member["offset"] : member["offset"] + member["size"]]
                if hashlib.sha256(part).hexdigest() != member["sha256"]:
                    lines.append(f"{member['name']} is not in the tar of {member['layer']}")
        return lines
