"""Bytes of tars: through few descriptors, and from an object store through a bounded cache that is never wrong."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from vidal.dataset.storage import Storage
from vidal.errors import StorageError
from vidal.reader import ranges
from vidal.reader.ranges import MemberReader, RangeCache


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".sweep"]


def test_a_kept_range_comes_back_and_another_key_has_none(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 1000)
    cache.put("a", b"bytes")
    assert (cache.get("a"), cache.get("b")) == (b"bytes", None)


@pytest.mark.parametrize("damage", [b"", bytes(37), b"short"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    cache = RangeCache(tmp_path, 1000)
    cache.put("a", b"bytes")
    files(tmp_path)[0].write_bytes(damage)
    assert cache.get("a") is None
    cache.put("a", b"bytes")
    assert cache.get("a") == b"bytes"


def test_a_cache_stays_within_its_limit_and_forgets_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 16_000)
    for n in range(100):
        cache.put(str(n), bytes([n]) * 968)
        os.utime(cache._path(str(n)), (n, n))
        if n == 50:
            os.utime(cache._path("40"), (10**6, 10**6))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 17_000
    there = {n for n in range(100) if cache.get(str(n)) is not None}
    assert {40, 99, 98, 97} <= there and not there & set(range(40))


def test_a_later_process_looks_at_what_earlier_ones_left(tmp_path: Path) -> None:
    for n in range(40):
        RangeCache(tmp_path, 10_000).put(str(n), bytes(968))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 11_000


@pytest.mark.parametrize("limit", [0, 4])
def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path, limit: int) -> None:
    RangeCache(tmp_path / "cache", limit).put("a", b"bytes")
    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    RangeCache(tmp_path / "file", 1000).put("a", b"bytes")
    full = RangeCache(tmp_path / "full", 1000)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ranges.os, "replace", no_space)
        full.put("a", b"bytes")
    assert full.get("a") is None and files(tmp_path / "full") == []


def _fill(folder: Path, first: int) -> None:
    cache = RangeCache(folder, 20_000)
    for n in range(first, first + 60):
        cache.put(str(n), str(n).encode() * 300)
        kept = cache.get(str(n % 40))
        assert kept in (None, str(n % 40).encode() * 300)


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_fill, args=(tmp_path, first)) for first in (0, 0, 20)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert all(len(path.name) == 64 for path in files(tmp_path))


def test_few_files_are_open_however_many_are_read(tmp_path: Path) -> None:
    for n in range(200):
        (tmp_path / f"{n}.tar").write_bytes(b"%03d" % n)
    reading = MemberReader(Storage(str(tmp_path)))
    before = len(os.listdir("/proc/self/fd"))
    for n in (*range(200), *range(200)):
        assert reading.read(f"{n}.tar", 0, 3) == b"%03d" % n
    assert len(os.listdir("/proc/self/fd")) <= before + 64
    reading.close()
    assert len(os.listdir("/proc/self/fd")) == before


def _closes(reading: MemberReader) -> None:
    assert reading.read("a.tar", 0, 3) == b"abc"
    reading.close()


def test_a_forked_process_has_descriptors_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"abcdef")
    reading = MemberReader(Storage(str(tmp_path)))
    reading.read("a.tar", 0, 3)
    mine = dict(reading._files)
    child = multiprocessing.get_context("fork").Process(target=_closes, args=(reading,))
    child.start()
    child.join()
    assert child.exitcode == 0 and reading._files == mine
    assert reading.read("a.tar", 3, 3) == b"def"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(13, StorageError), (24, StorageError), (5, StorageError), (2, FileNotFoundError), (21, IsADirectoryError)],
)
def test_what_the_machine_lacks_is_not_blamed_on_the_tar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    def unable(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ranges.os, "open", unable)
    with pytest.raises(kind):
        MemberReader(Storage(str(tmp_path))).read("a.tar", 0, 3)


def test_a_tar_that_is_too_short_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"abc")
    with pytest.raises(EOFError, match=r"a\.tar ends 2 bytes too early"):
        MemberReader(Storage(str(tmp_path))).read("a.tar", 1, 4)
