"""An object store in memory behind the file system that s3fs would be, so that `Storage` runs as it does on S3.

Every request travels to the store, is taken there, and its answer travels back, each after a time of its own; so
requests overtake each other, and one whose sender has died may still arrive. A request may fail before or after it was
taken, be sent twice by the client, meet another one under way (409), or find the store full. What takes several requests
may be torn: the pages of a listing are of two moments, and an upload stands still or dies between its parts.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from tests.simulation.scheduler import Process, Task, World

SCHEME = "simulated"
_QUICK_S, _SLOW_S, _LONGEST_S = 0.02, 3.0, 90.0


@dataclass(frozen=True, slots=True)
class Sender:
    """Who has sent a request, with what it knew then."""

    process: Process
    owner: int
    """The number in the lock's folder that it owned."""
    asked: int
    """The highest number there, when its thread last asked."""


@dataclass(frozen=True, slots=True)
class Version:
    """An object as one request left it."""

    data: bytes
    etag: str
    owner: int


@dataclass(frozen=True, slots=True)
class Change:
    """A request that has changed an object."""

    path: str
    before: Version | None
    after: Version | None
    sender: Sender


@dataclass(slots=True)
class Troubles:
    """How likely a request meets what, and when the store is full."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    sent_twice: float = 0.0
    conflict: float = 0.0
    slow: float = 0.0
    torn: float = 0.0
    """How likely a listing has two pages, and an upload two parts."""
    full_from_s: float = float("inf")
    full_to_s: float = float("inf")


class RefusedError(Exception):
    """What botocore raises below s3fs: the status of an answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


def refused(status: int, code: str) -> OSError:
    error = OSError(errno.EIO, code)
    error.__cause__ = RefusedError(status, code)
    return error


@dataclass(slots=True)
class Store:
    """The objects of one world."""

    world: World
    troubles: Troubles = field(default_factory=Troubles)
    objects: dict[str, Version] = field(default_factory=dict)
    watch: Callable[[Change], None] = lambda change: None
    """Told of every change at the moment when the store makes it."""
    answered: Callable[[Task, str, str, Any], None] = lambda task, kind, path, answer: None
    """Told of every answer, when it is given."""
    _etags: int = 0

    def request(self, kind: str, path: str, effect: Callable[[Sender], Any], *, writes: bool = False) -> Any:
        """Send a request for the current task and wait for its answer, which ``effect`` gives in the store."""
        world, task = self.world, self.world.me()
        process = task.process
        process.requests += 1
        if (pause_s := process.fate.pauses.get(process.requests)) is not None:
            world.log.append(f"{world.now_s:.3f} {process.name} stands still for {pause_s:.0f} s")
            process.paused_until_s = world.now_s + pause_s
            world.sleep(pause_s)
        sender = Sender(process, process.owner, task.asked)
        draw, troubles = world.random.random, self.troubles
        travel_s = _travel(world, troubles)
        if process.requests == process.fate.dies_at:
            # Half of them die with a request on its way.
            if draw() < 0.5:
                world.at(travel_s, lambda: self._take(None, kind, path, effect, sender))
            world.kill(process)
            task.wait()
        fails_before = draw() < troubles.lost_before
        conflicts = writes and draw() < troubles.conflict
        fails_after, repeats = draw() < troubles.lost_after, writes and draw() < troubles.sent_twice

        def arrive() -> None:
            back_s = _travel(world, troubles)
            is_full = writes and kind != "delete" and troubles.full_from_s <= world.now_s < troubles.full_to_s
            if is_full or fails_before or conflicts:
                world.log.append(f"{world.now_s:.3f} {process.name} {kind} {path}: not taken")
                code = (409, "ConditionalRequestConflict") if conflicts else (507, "full") if is_full else (503, "slow")
                task.answer, task.error = None, OSError(errno.ENOSPC, "full") if is_full else refused(*code)
                world.wake(task, back_s)
                return
            self._take(task, kind, path, effect, sender)
            if repeats:
                # The client has had no answer, and sends it again; the answer is to the second one.
                world.at(back_s, lambda: (self._take(task, kind, path, effect, sender), world.wake(task, 0.0)))
                return
            if fails_after:
                task.answer, task.error = None, refused(500, "the connection was lost")
            world.wake(task, back_s)

        world.at(travel_s, arrive)
        task.wait()
        answer, error, task.answer, task.error = task.answer, task.error, None, None
        if error is not None:
            raise error
        self.answered(task, kind, path, answer)
        return answer

    def _take(self, task: Task | None, kind: str, path: str, effect: Callable[[Sender], Any], sender: Sender) -> None:
        """Let the store answer a request; ``task`` is None where nobody waits for the answer."""
        answer, error = None, None
        try:
            answer = effect(sender)
        except OSError as raised:
            error = raised
        said = "" if error is None else f": {type(error).__name__} {error.args[-1]}"
        self.world.log.append(f"{self.world.now_s:.3f} {sender.process.name} {kind} {path}{said}")
        if task is not None:
            task.answer, task.error = answer, error

    def put(self, path: str, data: bytes, expected: str | None, *, create: bool) -> str:
        """Put an object if there is none (``create``), or if its ETag is the ``expected`` one; by default in any case."""

        def effect(sender: Sender) -> str:
            before = self.objects.get(path)
            if (create and before) or (expected is not None and (before is None or before.etag != expected)):
                raise refused(412, "PreconditionFailed") if before or create else refused(404, "NoSuchKey")
            self._etags += 1
            after = Version(data, f'"{self._etags}"', sender.owner)
            self.objects[path] = after
            self.watch(Change(path, before, after, sender))
            return after.etag

        return str(self.request("create" if create else "swap" if expected else "put", path, effect, writes=True))

    def delete(self, path: str, expected: str | None) -> None:

        def effect(sender: Sender) -> None:
            before = self.objects.get(path)
            if expected is not None and (before is None or before.etag != expected):
                raise refused(412, "PreconditionFailed") if before else refused(404, "NoSuchKey")
            if before is not None:
                del self.objects[path]
                self.watch(Change(path, before, None, sender))

        self.request("delete", path, effect, writes=True)

    def version(self, kind: str, path: str) -> Version:
        """Return an object; raises `FileNotFoundError`."""

        def effect(sender: Sender) -> Version:
            if path not in self.objects:
                raise FileNotFoundError(errno.ENOENT, "no such object", path)
            return self.objects[path]

        found: Version = self.request(kind, path, effect)
        return found

    def below(self, path: str) -> dict[str, int]:
        """Return the paths of all objects in a folder, in order, with their sizes."""
        folder = f"{path.rstrip('/')}/"

        def effect(sender: Sender) -> dict[str, int]:
            return {name: len(self.objects[name].data) for name in sorted(self.objects) if name.startswith(folder)}

        found: dict[str, int] = self.request("list", path, effect)
        if len(found) < 2 or not self.is_torn():
            return found
        names = list(found)[: len(found) // 2]
        first = {name: found[name] for name in names}

        def rest(sender: Sender) -> dict[str, int]:
            return first | {name: size for name, size in effect(sender).items() if name > names[-1]}

        whole: dict[str, int] = self.request("list", path, rest)
        return whole

    def is_torn(self) -> bool:
        """Draw whether what may take several requests takes two."""
        return self.troubles.torn > 0 and self.world.tears.random() < self.troubles.torn


def _travel(world: World, troubles: Troubles) -> float:
    """Draw the time that a request or an answer is on its way."""
    mean_s = _SLOW_S if world.random.random() < troubles.slow else _QUICK_S
    return min(world.random.expovariate(1 / mean_s), _LONGEST_S)


class SimulatedS3(AbstractFileSystem):  # type: ignore[misc]
    """What `Storage` uses of s3fs, with its answers and its errors."""

    protocol = (SCHEME, "s3")
    cachable = False
    store: Store
    """That of the world under way, for every instance."""

    def exists(self, path: str, **_: Any) -> bool:
        store = self.store

        def effect(sender: Sender) -> bool:
            return path in store.objects or any(name.startswith(f"{path.rstrip('/')}/") for name in store.objects)

        return bool(store.request("exists", path, effect))

    def ls(self, path: str, detail: bool = False, **_: Any) -> list[Any]:
        depth = path.rstrip("/").count("/") + 1
        # A folder has the size of whatever lies in it first, which nobody asks for.
        found = {"/".join(name.split("/")[: depth + 1]): size for name, size in self.store.below(path).items()}
        if not found:
            raise FileNotFoundError(path)
        return [{"name": name, "size": size} for name, size in found.items()] if detail else list(found)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        return self.store.version("get", path).data[start:end]

    def size(self, path: str) -> int:
        return len(self.store.version("head", path).data)

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        # Read whole, as Arrow would ask for the rest from threads of its own.
        return io.BytesIO(self.cat_file(path))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        try:
            self.store.put(path, value, None, create=mode == "create")
        except OSError as error:
            raise _as_s3fs(error) from error.__cause__

    def put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        if self.store.is_torn():
            # Nobody sees a part of an object.
            self.store.request("part", rpath, lambda sender: None, writes=True)
        self.pipe_file(rpath, Path(lpath).read_bytes(), mode=mode)

    def rm(self, path: str, recursive: bool = False, **_: Any) -> None:
        for name in [path, *self.store.below(path)]:
            self.store.delete(name, None)

    def call_s3(self, method: str, *, Bucket: str, Key: str, **given: Any) -> dict[str, str]:
        path, expected = f"{Bucket}/{Key}", given.get("IfMatch")
        if method == "head_object":
            return {"ETag": self.store.version("head", path).etag}
        if method == "put_object":
            return {"ETag": self.store.put(path, given["Body"], expected, create="IfNoneMatch" in given)}
        assert method == "delete_object"
        self.store.delete(path, expected)
        return {}

    def split_path(self, path: str, **_: Any) -> tuple[str, str, None]:
        bucket, _, key = path.partition("/")
        return bucket, key, None

    def invalidate_cache(self, path: str | None = None) -> None:
        """Nothing is cached."""


def _as_s3fs(error: OSError) -> OSError:
    """Return the error that s3fs makes of a failed condition."""
    status = getattr(error.__cause__, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return FileExistsError(errno.EEXIST, "exists") if status == 412 else error


fsspec.register_implementation(SCHEME, SimulatedS3, clobber=True)
