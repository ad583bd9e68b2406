"""What fetch brings, and what it rejects."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import fsspec
import pytest

from vidal.clip import Clip
from vidal.errors import StorageError
from vidal.stages.fetch import Fetch
from vidal.work import Member

CONTENT = b"not really a film" * 1000


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    clip = Clip(url="film.mp4")
    clip.work.folder = tmp_path / "private"
    clip.work.folder.mkdir()
    return clip


def fetched(clip: Clip) -> bytes:
    assert clip.work.source_path is not None and clip.work.folder is not None
    assert clip.work.source_path == clip.work.folder / "source"
    assert (clip.source_bytes, clip.source_sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    return clip.work.source_path.read_bytes()


NAMES = [
    "film.mp4",
    "two words.mp4",
    "new\nline.mp4",
    "ünï.mp4",
    "-i.mp4",
    "concat:a|b.mp4",
    "a%d.mp4",
    "$(touch x).mp4",
    "~",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_just_a_path(name: str, clip: Clip, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    clip.url = name
    Fetch(base=str(tmp_path)).process_batch([clip])
    assert fetched(clip) == CONTENT


ODD_NAMES = [b"two words.mp4", b"100%25.mp4", b"a#b?c.mp4", "ünï.mp4".encode(), b"caf\xe9.mp4", b"file:x.mp4"]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("form", ["file://", "file://localhost", "FILE://", "file:", "relative"])
def test_a_file_address_is_percent_encoded_and_names_any_file(
    form: str, name: bytes, clip: Clip, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(CONTENT)
    encoded = path.as_uri().removeprefix("file://")
    clip.url = f"file:{encoded.rpartition('/')[2]}" if form == "relative" else f"{form}{encoded}"
    Fetch(base=str(tmp_path) if form == "relative" else "").process_batch([clip])
    assert fetched(clip) == CONTENT


@pytest.mark.parametrize(
    ("url", "reason", "said"),
    [
        ("file://server/share/film.mp4", "unsupported_address", "file://server/… is a file of another machine"),
        ("file://film.mp4", "unsupported_address", "write file:///PATH or a path"),
        ("file:///a%00b.mp4", "unreadable", "null byte"),
        ("file:///no/such/two%20words.mp4", "missing", "no such file"),
    ],
)
def test_a_file_address_that_cannot_be_read_says_why(url: str, reason: str, said: str, clip: Clip) -> None:
    clip.url = url
    Fetch().process_batch([clip])
    assert (clip.status, clip.reason) == ("failed", reason)
    assert said in str(clip.detail)


@pytest.mark.parametrize(
    "form", ["../samples/film.mp4", "{folder}/samples/film.mp4", "file://{folder}/samples/film.mp4"]
)
def test_a_path_is_read_against_the_folder_of_its_list(form: str, clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "manifests").mkdir()
    (tmp_path / "samples" / "film.mp4").write_bytes(CONTENT)
    clip.url = form.format(folder=tmp_path)
    Fetch(base=str(tmp_path / "manifests")).process_batch([clip])
    assert fetched(clip) == CONTENT


def test_an_object_store_is_read_through_fsspec(clip: Clip) -> None:
    with fsspec.open("memory://clips/film.mp4", "wb") as file:
        file.write(CONTENT)
    clip.url = "memory://clips/film.mp4"
    Fetch().process_batch([clip])
    assert fetched(clip) == CONTENT


REJECTED = [
    ("nothing.mp4", "missing"),
    ("memory://nothing.mp4", "missing"),
    ("folder", "not_a_file"),
    ("fifo", "not_a_file"),
    ("/dev/zero", "not_a_file"),
    ("to-device", "not_a_file"),
    ("film.mp4/inside", "unreadable"),
    ("nul\0byte", "unreadable"),
    ("x" * 5000, "unreadable"),
    ("big.mp4", "too_many_bytes"),
    ("ftp://host/film.mp4", "scheme_not_allowed"),
    ("simplecache::http://127.0.0.1:1/x", "missing"),
    ("", "not_a_file"),
]


@pytest.mark.parametrize(("url", "reason"), REJECTED, ids=[ascii(url)[:30] for url, _ in REJECTED])
def test_what_is_no_file_is_rejected_by_reason(url: str, reason: str, clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to-device").symlink_to("/dev/zero")
    (tmp_path / "film.mp4").write_bytes(CONTENT)
    (tmp_path / "big.mp4").write_bytes(b"x" * 20_001)
    clip.url = url
    Fetch(base=str(tmp_path), max_bytes=20_000).process_batch([clip])
    assert (clip.status, clip.reason, clip.is_transient) == ("failed", reason, False)


def test_a_full_disk_is_the_machine_s_fault(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(CONTENT)
    assert clip.work.folder is not None
    (clip.work.folder / "source").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="disk is full"):
        Fetch(base=str(tmp_path)).process_batch([clip])


def test_a_source_that_cannot_be_read_on_is_not_blamed_on_the_disk(clip: Clip, tmp_path: Path) -> None:
    clip.url = "/proc/self/mem"
    try:
        Fetch(base=str(tmp_path)).process_batch([clip])
        said = str(clip.detail)
    except StorageError as error:
        said = str(error)
    assert said and str(clip.work.folder) not in said


def test_a_kept_source_is_the_media_and_not_what_was_kept_beside_it(clip: Clip) -> None:
    for suffix, data in (("subtitle.en.vtt", b"WEBVTT"), ("thumbnail.jpeg", b"\xff\xd8"), ("webm", CONTENT)):
        clip.work.put(Member(layer="source", suffix=suffix, data=data))
    Fetch().process_batch([clip])
    assert clip.work.source_path is not None and clip.work.source_path.read_bytes() == CONTENT
