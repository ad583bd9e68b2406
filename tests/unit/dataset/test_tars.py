"""A tar is a function of its members, any reader of tars reads it, and no unsafe name gets into one."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vidal.clip import MemberRecord
from vidal.dataset.tars import TarWriter, member_order

MEMBERS = [
    ("clip-1", "mp4", b"v" * 1000),
    ("clip-1", "frame.0.jpg", b""),
    ("clip-1", "json", b'{"clip_id": "clip-1"}'),
    ("Clip_2", "mp4", b"w" * 512),
    ("Clip_2", "json", b"{}"),
    ("k" * 80, "frame.123.jpg", b"long key"),
]


def packed(members: list[tuple[str, str, bytes]]) -> tuple[bytes, list[MemberRecord]]:
    handle = io.BytesIO()
    tar = TarWriter(handle, "video")
    records = [tar.add(*member) for member in members]
    tar.close()
    return handle.getvalue(), records


def test_tarfile_reads_what_was_written() -> None:
    data, _ = packed(MEMBERS)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = [(m.name, tar.extractfile(m).read(), m.mtime, m.uid, m.gid, m.uname, m.mode, m.isreg()) for m in tar]
    assert found == [(f"{key}.{suffix}", part, 0, 0, 0, "", 0o644, True) for key, suffix, part in MEMBERS]
    assert data[257:263] == b"ustar\x00"
    assert len(data) % tarfile.RECORDSIZE == 0


def test_webdataset_reads_the_samples(tmp_path: object) -> None:
    path = f"{tmp_path}/t.tar"
    with open(path, "wb") as handle:
        handle.write(packed(MEMBERS)[0])
    samples = list(webdataset.WebDataset(path, shardshuffle=False, empty_check=False))
    assert [{k: v for k, v in s.items() if not k.startswith("__")} for s in samples] == [
        {"mp4": b"v" * 1000, "frame.0.jpg": b"", "json": b'{"clip_id": "clip-1"}'},
        {"mp4": b"w" * 512, "json": b"{}"},
        {"frame.123.jpg": b"long key"},
    ]
    assert [s["__key__"] for s in samples] == ["clip-1", "Clip_2", "k" * 80]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=2000), max_size=6))
def test_a_member_is_at_its_offset(parts: list[bytes]) -> None:
    data, records = packed([(f"c{n}", "mp4", part) for n, part in enumerate(parts)])
    assert [data[r.offset : r.offset + r.size] for r in records] == parts
    assert [r.sha256 for r in records] == [hashlib.sha256(part).hexdigest() for part in parts]
    assert {r.layer for r in records} <= {"video"}
    assert packed([(f"c{n}", "mp4", part) for n, part in enumerate(parts)])[0] == data


EVIL = [
    "",
    ".",
    "..",
    "../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a.b",
    "a b",
    "a\n",
    "a\0",
    "é",
    "k" * 81,
    "a:b",
    "~",
    "$(x)",
]


@pytest.mark.parametrize("key", EVIL)
def test_an_unsafe_key_is_rejected(key: str) -> None:
    with pytest.raises(ValueError, match="is not a member name"):
        packed([(key, "mp4", b"")])


@pytest.mark.parametrize("suffix", ["", ".", "../x", "MP4", "a/b", "a..b", ".mp4", "a.b.c.d.e", "mp4\n", "pyd "])
def test_an_unsafe_suffix_is_rejected(suffix: str) -> None:
    with pytest.raises(ValueError, match="is not a member name"):
        packed([("a", suffix, b"")])


def test_a_second_member_of_one_name_is_rejected() -> None:
    with pytest.raises(ValueError, match="already in the tar"):
        packed([("a", "mp4", b""), ("a", "mp4", b"")])


def test_members_are_in_media_number_json_order() -> None:
    given = ["json", "frame.10.jpg", "frame.2.jpg", "mp4", "flac", "depth.0.png", "frame.0.jpg"]
    wanted = ["mp4", "depth.0.png", "flac", "frame.0.jpg", "frame.2.jpg", "frame.10.jpg", "json"]
    assert member_order(given) == member_order(reversed(given)) == wanted
