"""Tars of an object store are read in blocks that all processes of a machine share, and are never wrong."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tools.rendering import learning_set
from vidal.dataset.storage import Storage
from vidal.errors import StorageError
from vidal.modality.depth import DepthTransform
from vidal.reader import blocks
from vidal.reader.blocks import BlockReader, Tar
from vidal.reader.ranges import MemberReader
from vidal.reader.samples import Samples
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.text_views import TextViews

BLOCK = 1000
DATA = np.random.default_rng(0).bytes(4 * BLOCK + 321)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, int]]]:
    """What the store is asked for; a store in this process' memory."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", BLOCK)
    requests: list[tuple[str, int, int]] = []
    original = Storage.read_range

    def counted(self: Storage, name: str, offset: int, size: int) -> bytes:
        requests.append((name, offset, size))
        return original(self, name, offset, size)

    monkeypatch.setattr(Storage, "read_range", counted)
    store = fsspec.filesystem("memory")
    store.pipe_file("/set/a.tar", DATA)
    yield requests
    store.rm("/set", recursive=True)


def reader(cache: Path, content: bytes = b"1", limit: int = 1 << 20) -> BlockReader:
    plain = MemberReader(Storage("memory://set"), cache=cache, cache_bytes=limit)
    return BlockReader(plain, {"a.tar": Tar(len(DATA), content)})


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (10, 990), (999, 2), (500, 3000), (4000, 321), (4320, 1)])
def test_a_range_is_what_it_is_in_the_tar_from_the_store_and_from_the_cache(
    asked: list[tuple[str, int, int]], tmp_path: Path, offset: int, size: int
) -> None:
    for _ in range(2):
        assert reader(tmp_path).read("a.tar", offset, size) == DATA[offset : offset + size]
    touched = range(offset // BLOCK, (offset + size - 1) // BLOCK + 1)
    assert asked == [("a.tar", k * BLOCK, min(BLOCK, len(DATA) - k * BLOCK)) for k in touched]


def test_what_is_read_ahead_is_asked_for_once(asked: list[tuple[str, int, int]], tmp_path: Path) -> None:
    ahead = reader(tmp_path)
    for offset in (0, 1500, 700, 4000, 20):
        ahead.start("a.tar", offset, 300)
    for offset in range(0, len(DATA) - 50, 50):
        assert ahead.read("a.tar", offset, 50) == DATA[offset : offset + 50]
    assert sorted(offset for _, offset, _ in asked) == [0, 1000, 2000, 3000, 4000]
    ahead.stop()


def test_another_content_at_the_same_place_is_another_block(asked: list[tuple[str, int, int]], tmp_path: Path) -> None:
    reader(tmp_path).read("a.tar", 0, 10)
    fsspec.filesystem("memory").pipe_file("/set/a.tar", DATA[::-1])
    assert reader(tmp_path, b"2").read("a.tar", 0, 10) == DATA[::-1][:10]


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:40], lambda d: d[:-30], lambda d: d[:200] + bytes(500)])
def test_a_damaged_block_is_fetched_again(
    asked: list[tuple[str, int, int]], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    reader(tmp_path).read("a.tar", 0, 10)
    (file,) = [path for path in tmp_path.rglob("*") if len(path.name) == 64]
    file.write_bytes(damage(file.read_bytes()))
    assert reader(tmp_path).read("a.tar", 0, BLOCK) == DATA[:BLOCK]
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("change", "asks_again"),
    [(Path.unlink, False), (lambda file: file.write_bytes(file.read_bytes()[:-9] + bytes(9)), True)],
    ids=["evicted", "damaged"],
)
def test_an_open_block_outlives_its_eviction_but_not_its_damage(
    asked: list[tuple[str, int, int]], tmp_path: Path, change: Callable[[Path], object], asks_again: bool
) -> None:
    here = reader(tmp_path)
    for _ in range(2):
        assert here.read("a.tar", 0, BLOCK) == DATA[:BLOCK]
    (file,) = [path for path in tmp_path.rglob("*") if len(path.name) == 64]
    change(file)
    for _ in range(2):
        assert here.read("a.tar", 0, BLOCK) == DATA[:BLOCK]
    assert len(asked) == 1 + asks_again


def test_blocks_stay_open_up_to_a_number_and_count_as_used(
    asked: list[tuple[str, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_OPEN_BLOCKS", 2)
    here, first = reader(tmp_path), reader(tmp_path)
    first.read("a.tar", 0, 10)
    (file,) = [path for path in tmp_path.rglob("*") if len(path.name) == 64]
    os.utime(file, (1, 1))
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for offset in range(0, len(DATA) - 10, 10):
            assert here.read("a.tar", offset, 10) == DATA[offset : offset + 10]
    assert file.stat().st_mtime > 1 and len(asked) == 5
    # The reader's lock is a third.
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


@pytest.mark.parametrize("limit", [0, BLOCK - 1])
def test_without_room_in_the_cache_members_are_read_by_themselves(
    asked: list[tuple[str, int, int]], tmp_path: Path, limit: int
) -> None:
    small = reader(tmp_path, limit=limit)
    for offset in (0, 100, 200):
        assert small.read("a.tar", offset, 10) == DATA[offset : offset + 10]
    assert asked == [("a.tar", 0, BLOCK), ("a.tar", 100, 10), ("a.tar", 200, 10)]


def test_a_tar_cut_short_loses_what_is_behind_the_cut_alone(asked: list[tuple[str, int, int]], tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/set/a.tar", DATA[:1500])
    cut = reader(tmp_path)
    assert cut.read("a.tar", 1100, 300) == DATA[1100:1400]
    with pytest.raises(EOFError, match=r"a\.tar ends too early"):
        cut.read("a.tar", 1400, 300)


def test_a_store_that_fails_stops_the_run(tmp_path: Path, asked: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Storage, name: str, offset: int, size: int) -> bytes:
        raise StorageError("503")

    monkeypatch.setattr(Storage, "read_range", fails)
    broken = reader(tmp_path)
    broken.start("a.tar", 0, 10)
    with pytest.raises(StorageError, match="503"):
        broken.read("a.tar", 0, 10)


def _reads(folder: Path, cache: Path, together: Barrier) -> None:
    here = BlockReader(MemberReader(Storage(f"file://{folder}"), cache=cache), {"a.tar": Tar(len(DATA), b"1")})
    together.wait()
    for offset in range(0, len(DATA) - 50, 50):
        here.start("a.tar", offset, 50)
    for offset in range(0, len(DATA) - 50, 50):
        assert here.read("a.tar", offset, 50) == DATA[offset : offset + 50]


def test_several_processes_fetch_each_block_once(
    asked: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(DATA)
    original = Storage.read_range

    def logged(self: Storage, name: str, offset: int, size: int) -> bytes:
        with (tmp_path / "log").open("a") as log:
            log.write(f"{offset}\n")
        # A store takes its time, in which the others want the same.
        time.sleep(0.05)
        return original(self, name, offset, size)

    monkeypatch.setattr(Storage, "read_range", logged)
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    others = [context.Process(target=_reads, args=(tmp_path, tmp_path / "cache", together)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert sorted((tmp_path / "log").read_text().split(), key=int) == ["0", "1000", "2000", "3000", "4000"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("learning") / "set"
    learning_set.write(str(out), clips=12, size=48, workers=1)
    return out


def _batches(samples: Samples) -> list[tuple[list[str | None], list[str], bytes]]:
    pair = ("text", "depth")
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(len(samples),))], batch_size=4, seed=0, epochs=2)
    index, transforms = {pair: [np.arange(len(samples))]}, {"depth": DepthTransform(size=32)}
    loader = Loader([samples], index, plan, transforms, TextViews(), seed=0)
    return [(b.clip_ids, b.texts, b.inputs["depth"][:].numpy().tobytes()) for b in loader]


@pytest.mark.parametrize(("cache_bytes", "are_blocks"), [(1 << 30, True), (10_000, False)])
def test_batches_from_a_store_are_those_from_the_disk(
    asked: list[tuple[str, int, int]], folder: Path, tmp_path: Path, cache_bytes: int, are_blocks: bool
) -> None:
    fsspec.filesystem("memory").put(f"{folder}/", "/set/", recursive=True)
    remote = Samples.open("memory://set", cache=tmp_path, cache_bytes=cache_bytes)
    assert _batches(remote) == _batches(Samples.open(folder))
    depth = [(offset, size) for name, offset, size in asked if name.startswith("depth")]
    assert are_blocks == all(offset % BLOCK == 0 for offset, _ in depth)
    assert not are_blocks or len(set(depth)) == len(depth)
