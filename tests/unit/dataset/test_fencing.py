"""A writer that has lost the lock, or is about to lose it, changes nothing of its successor's."""

from __future__ import annotations

import contextlib
import itertools
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from tests.runs import LETTERS, PAINT, run, write_recipe
from tests.store import s3_server
from tests.unit.dataset.test_lock import Watch
from vidal.clip import Clip
from vidal.dataset import lock, manifest
from vidal.dataset.commit import ShardWriter, revoke
from vidal.dataset.dataset import Dataset, UncommittedError, committed
from vidal.dataset.lock import HeldLock, Lock, LostLockError, OwnerFence, renew, take
from vidal.dataset.storage import Fence, Storage
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError
from vidal.work import Member

MANIFEST, TAR = manifest.name_of(0), "video/000000.tar"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("fenced"):
        yield "s3://fenced"


_number = itertools.count()


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder, and an empty place in an object store."""
    if request.param == "folder":
        return str(tmp_path / "out")
    return f"{request.getfixturevalue('bucket')}/{next(_number)}"


def written(address: str) -> dict[str, bytes]:
    """Every file but the lock's."""
    fs, root = fsspec.core.url_to_fs(address)
    fs.invalidate_cache()
    paths = (path for path in fs.find(root) if f"/{lock.FOLDER}/" not in path)
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in paths}


def take_elsewhere(address: str) -> HeldLock:
    """The lock, taken by a process of another host, of which nobody here knows whether it lives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        return take(Storage(address))


def take_patiently(storage: Storage, meanwhile: Callable[[float], None] = lambda _: None) -> HeldLock:
    watch = Watch(meanwhile)
    return take(storage, clock=watch.clock, sleep=watch.sleep)


@contextlib.contextmanager
def successor_of(address: str) -> Iterator[Storage]:
    """A storage whose lock is taken over by a process of a third host, after its minute on a clock of its own."""
    storage = Storage(address)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "successor")
        patch.setattr(lock, "take", lambda storage, note: take_patiently(storage))
        with Lock(storage):
            yield storage


def commit(storage: Storage, data: bytes) -> None:
    """Write shard 0 of one clip."""
    clip = Clip(clip_id="c000", url="film.mp4", status="kept", title=f"{len(data)}")
    clip.work.put(Member(layer="video", suffix="mp4", data=data))
    with (
        tempfile.TemporaryDirectory() as scratch,
        ShardWriter(storage, 0, ["video"], Path(scratch), pa.schema([])) as writer,
    ):
        writer.add(clip)
        writer.commit({"fingerprint": "f"})


def test_of_two_who_create_one_does_and_a_swap_needs_the_token_of_what_is_there(address: str) -> None:
    storage = Storage(address)
    first = storage.create("a/b", b"1")
    assert first is not None and storage.create("a/b", b"2") is None
    second = storage.swap("a/b", b"3", first)
    assert second not in (None, first) and storage.token("a/b") == second
    assert storage.swap("a/b", b"4", first) is None and storage.swap("a/b", None, first) is None
    assert storage.read("a/b") == b"3" and list(written(address)) == ["a/b"]
    assert second is not None and storage.swap("a/b", None, second) == second
    assert storage.token("a/b") is None and storage.swap("a/b", b"5", second) is None
    assert storage.swap("a/b", None, second) is None and written(address) == {}


def test_a_paused_owner_overwrites_nothing_of_its_successors_lock(address: str) -> None:
    paused = take_elsewhere(address)
    successor = take_patiently(Storage(address))
    assert (paused.fence.number, successor.fence.number) == (1, 2)
    held = Storage(address).read(successor.name)
    with pytest.raises(LostLockError, match=r"lost the lock to pid \d+ on .* \(owner 1, now 2\)"):
        paused.beat()
    paused.release()
    with pytest.raises(OutputError, match="another run"):
        take_patiently(Storage(address))
    assert Storage(address).read(successor.name) == held
    successor.beat()


def test_of_two_who_see_that_an_owner_is_dead_one_takes_over(address: str) -> None:
    take_elsewhere(address)
    winners: list[HeldLock] = []

    def other(now: float) -> None:
        # At the last look of the first waiter, which sees no change any more.
        if now == lock.STALE_BEATS * lock.BEAT_S:
            winners.append(take_patiently(Storage(address)))

    class Late(Storage):
        """Creates the next number only after another waiter has come through."""

        def create(self, name: str, data: bytes) -> str | None:
            other(lock.STALE_BEATS * lock.BEAT_S)
            return super().create(name, data)

    with pytest.raises(OutputError, match="another run has just started"):
        take_patiently(Late(address))
    (winner,) = winners
    winner.beat()


def test_a_number_that_is_free_since_its_owner_has_gone_is_not_taken(address: str) -> None:
    take_elsewhere(address)

    class Later(Storage):
        """Creates the next number only after two owners have come and gone, and their files with them."""

        def create(self, name: str, data: bytes) -> str | None:
            for _ in range(2):
                take_patiently(Storage(address)).release()
            return super().create(name, data)

    with pytest.raises(OutputError, match="another run has just started"):
        take_patiently(Later(address))
    assert take(Storage(address)).fence.number == 4


@dataclass
class Pausing:
    """A fence that lets its owner through, and pauses it after the given question until the next owner is done."""

    inner: Fence
    pause_at: int
    meanwhile: Callable[[], None]
    questions: int = 0

    def check(self) -> None:
        self.inner.check()
        self.questions += 1
        if self.questions == self.pause_at:
            self.meanwhile()


@contextlib.contextmanager
def next_pass_of(owner: HeldLock) -> Iterator[Storage]:
    """A storage of the same run, which goes on without the workers that it had."""
    storage = Storage(owner.fence.address, owner.fence)
    renew(storage)
    yield storage
    owner.beat()


@pytest.mark.parametrize("successor", ["another run", "the next pass"])
@pytest.mark.parametrize("before", ["nothing", "a tar without a manifest", "a committed shard"])
def test_a_writer_paused_at_any_step_of_a_commit_leaves_what_its_successor_committed(
    before: str, successor: str, address: str
) -> None:
    """The successor's shard has other bytes, as of a crawl; the last round is a commit that nothing interrupts."""
    wanted: dict[str, bytes] = {}
    for step in itertools.count(1):
        place = f"{address}/{step}"
        if before != "nothing":
            commit(Storage(place), b"of an earlier run")
        if before == "a tar without a manifest":
            Storage(place).remove(MANIFEST)
        paused = Storage(place)
        claim = take_elsewhere(place)
        # A worker has the number that it was sent.
        of_worker = OwnerFence(place, claim.fence.number)

        def succeed(place: str = place, claim: HeldLock = claim) -> None:
            with successor_of(place) if successor == "another run" else next_pass_of(claim) as storage:
                commit(storage, b"of the successor")
            wanted.update(written(place))

        paused.fence = fence = Pausing(of_worker, step, succeed)
        try:
            commit(paused, b"of the paused one")
        except LostLockError:
            assert written(place) == wanted, f"paused at step {step}"
        else:
            break
    assert step > 2 and fence.questions == step - 1
    assert sorted(wanted) == [MANIFEST, TAR] and written(place) != wanted


def test_a_shard_of_which_a_successor_has_replaced_a_tar_and_died_is_not_committed_by_a_late_manifest(
    address: str,
) -> None:
    """The paused writer is let through before its manifest, as by a put that is on its way while it asks."""
    for step in itertools.count(1):
        place = f"{address}/{step}"
        paused = Storage(place)
        claim = take_elsewhere(place)

        def succeed_in_part(place: str = place) -> None:
            with contextlib.suppress(KeyboardInterrupt), successor_of(place) as storage:
                assert storage.fence is not None
                # Two questions before, the reservation's (on S3) and the tar's.
                last = 2 if storage.is_local else 3
                storage.fence = Pausing(storage.fence, last, interrupt)
                commit(storage, b"of the successor")
            assert Storage(place).exists(TAR)

        paused.fence = Pausing(claim.fence, step, succeed_in_part)
        try:
            commit(paused, b"of the paused one")
        except LostLockError:
            assert committed(Storage(place)) == [], f"paused at step {step}"
        else:
            break
    assert step > 2 and committed(Storage(place)) == [0]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_reserved_shard_counts_as_not_built_and_is_built_by_the_next_run(bucket: str, tmp_path: Path) -> None:
    out, recipe = f"{bucket}/{next(_number)}", write_recipe(tmp_path, [LETTERS, PAINT], ["a", "ab", "abc"])
    run(recipe, out, InProcessEngine())
    before, dataset = written(out), Dataset.open(out)
    revoke(Storage(out), 0)
    assert 0 not in dataset.committed() and set(written(out)) == set(before)
    assert [problem.what for problem in verify(dataset) if problem.shard == 0] == ["not built yet (no manifest)"]
    assert dataset.find("c000") is None
    with pytest.raises(UncommittedError, match="another run writes this shard anew"):
        dataset.table(0)
    run(recipe, out, InProcessEngine())
    assert written(out) == before


def test_a_writer_that_lost_the_lock_writes_and_deletes_nothing(address: str) -> None:
    storage = Storage(address)
    storage.write("dataset.json", b"{}")
    token = storage.token("dataset.json")
    assert token is not None
    storage.fence = take_elsewhere(address).fence
    take_patiently(Storage(address))
    before = written(address)
    attempts: list[Callable[[], object]] = [
        lambda: storage.write("dataset.json", b"mine"),
        lambda: storage.child("revisions/1").write("plan.parquet", b"mine"),
        lambda: storage.create("manifest/000007.parquet", b"mine"),
        lambda: storage.swap("dataset.json", b"mine", token),
        lambda: storage.swap("dataset.json", None, token),
        lambda: storage.remove("dataset.json"),
        lambda: commit(storage, b"mine"),
    ]
    for attempt in attempts:
        with pytest.raises(LostLockError, match="lost the lock to pid"):
            attempt()
    assert written(address) == before


@pytest.mark.parametrize("how", ["write", "create", "swap"])
def test_a_file_that_was_made_ready_before_the_takeover_gets_no_name_after_it(how: str, tmp_path: Path) -> None:
    """Even between the question and the rename: the temporary file is gone."""
    storage = Storage(str(tmp_path))
    storage.write("plan.parquet", b"first")
    token = storage.token("plan.parquet")
    assert token is not None

    def lose() -> None:
        with successor_of(str(tmp_path)):
            pass

    storage.fence = Pausing(take_elsewhere(str(tmp_path)).fence, 1, lose)
    write: dict[str, Callable[[], object]] = {
        "write": lambda: storage.write("plan.parquet", b"late"),
        "create": lambda: storage.create("manifest/000000.parquet", b"late"),
        "swap": lambda: storage.swap("plan.parquet", b"late", token),
    }
    with contextlib.suppress(LostLockError):
        assert write[how]() is None
    assert written(str(tmp_path)) == {"plan.parquet": b"first"}
