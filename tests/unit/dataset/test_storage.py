"""A file is written whole or not at all, and a storage error is one line."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vidal.dataset.storage import Storage
from vidal.errors import OutputError, StorageError, machine_error


def here(folder: Path) -> Storage:
    return Storage(str(folder))


def test_a_file_is_written_read_and_replaced(tmp_path: Path) -> None:
    storage = here(tmp_path / "new" / "folder")
    storage.write("a/b.bin", b"first")
    storage.write("a/b.bin", b"second one")
    assert (storage.read("a/b.bin"), storage.size("a/b.bin")) == (b"second one", 10)
    assert storage.read_range("a/b.bin", 7, 3) == b"one"
    assert storage.names("a") == ["b.bin"]
    assert (storage.exists("a/b.bin"), storage.exists("a/c.bin")) == (True, False)
    storage.remove("a")
    storage.remove("a")
    assert storage.names("a") == []


def test_a_range_that_is_not_there_is_an_error_and_never_a_short_value(tmp_path: Path) -> None:
    here(tmp_path).write("a", b"12345")
    with pytest.raises(StorageError, match="3 bytes at 2 instead of 9"):
        here(tmp_path).read_range("a", 2, 9)


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        here(tmp_path).read("nothing")


def test_a_temporary_is_in_no_listing_and_gone_after_a_failed_write(tmp_path: Path) -> None:
    storage = here(tmp_path)
    storage.temporary("a/b.tar").write_bytes(b"half")
    storage.write("a/a.tar", b"whole")
    assert storage.names("a") == ["a.tar"]
    (tmp_path / "a" / "c.tar").mkdir()
    with pytest.raises(StorageError, match=r"a/c\.tar: .*Is a directory"):
        storage.write("a/c.tar", b"rejected")
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file()) == [
        storage.temporary("a/b.tar").name,
        "a.tar",
    ]
    storage.remove_temporaries()
    assert sorted(p.name for p in (tmp_path / "a").iterdir() if p.is_file()) == ["a.tar"]


def test_two_processes_have_two_temporaries(tmp_path: Path) -> None:
    code = f"from vidal.dataset.storage import Storage; print(Storage({str(tmp_path)!r}).temporary('a').name)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other != here(tmp_path).temporary("a").name


def test_a_write_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def kind(descriptor: int) -> str:
        return "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"

    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(f"sync {kind(fd)}"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b))[1])
    here(tmp_path).write("a", b"1")
    assert steps == ["sync file", "rename", "sync folder"]


def test_of_two_who_create_one_wins_and_no_reader_sees_an_empty_file(tmp_path: Path) -> None:
    storage = here(tmp_path)
    mine, yours = storage.create("lock", b"me"), storage.create("lock", b"you")
    assert (mine, yours) == (storage.token("lock"), None)
    assert storage.read("lock") == b"me"
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_create_does_without_links_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    test_of_two_who_create_one_wins_and_no_reader_sees_an_empty_file(tmp_path)


def test_storage_travels_by_its_address(tmp_path: Path) -> None:
    here(tmp_path).write("a", b"1")
    assert pickle.loads(pickle.dumps(here(tmp_path))).read("a") == b"1"


@pytest.mark.parametrize("address", ["nonsense://x", "s4://bucket/x"])
def test_an_address_that_cannot_be_opened_says_so(address: str) -> None:
    with pytest.raises(OutputError, match=rf"^{address}: not an address that can be opened"):
        Storage(address).exists("a")


@pytest.mark.parametrize("place", ["/proc/vidal", "/dev/null/x"])
def test_a_place_that_cannot_be_written_is_one_line_with_the_place(place: str) -> None:
    with pytest.raises(StorageError, match=rf"^{place}") as caught:
        Storage(place).write("a", b"1")
    assert "\n" not in str(caught.value)


MENDS = [
    (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
    (errno.EDQUOT, "the disk quota is used up; free some space"),
    (errno.EROFS, "the file system is read-only; choose another --out"),
    (errno.EACCES, "permission denied; fix the permissions or choose another --out"),
    (errno.EIO, "the device reports an input/output error; check the disk"),
    (errno.EMFILE, "too many open files; raise `ulimit -n`"),
]


@pytest.mark.parametrize(("number", "mend"), MENDS)
def test_an_environment_error_comes_with_its_mend(number: int, mend: str) -> None:
    found = machine_error(OSError(number, os.strerror(number)), "out/video")
    assert isinstance(found, StorageError)
    assert str(found).startswith(f"out/video: {mend}")


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "x"), ValueError("x"), OSError("no number")])
def test_other_errors_are_no_environment_errors(error: Exception) -> None:
    assert machine_error(error, "x") is None


def test_a_writer_deletes_what_a_dead_one_began_of_the_same_file_and_nothing_else(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), subprocess.Popen(["true"])
    dead.wait()
    names = {f".a.tar.{host}.{dead.pid}.tmp": False, f".a.tar.{host}.{os.getppid()}.tmp": True,
             f".a.tar.elsewhere.{dead.pid}.tmp": True, f".b.tar.{host}.{dead.pid}.tmp": True, "a.tmp": True}  # fmt: skip
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    Storage(str(tmp_path)).write("a.tar", b"whole")
    assert {name: (tmp_path / name).exists() for name in names} == names
