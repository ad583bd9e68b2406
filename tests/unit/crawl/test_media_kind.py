"""What a file is by its first bytes, and whether it was cut off."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.films import ffmpeg
from vidal.crawl.media_kind import HEAD_BYTES, IMAGES, MEDIA, is_cut_off, kind_of

HEADS = [
    (b"\0\0\0\x18ftypisom", "mp4"), (b"\0\0\0\x08wide\0\0\0\0mdat", "mp4"), (b"\0\0\0\x18ftypavif", "avif"), (b"\x1aE\xdf\xa3\x01", "matroska"),
    (b"RIFF\0\0\0\0AVI LIST", "avi"), (b"RIFF\0\0\0\0WAVEfmt ", "wav"), (b"RIFF\0\0\0\0WEBPVP8 ", "webp"), (b"FLV\x01\x05", "flv"),
    (b"OggS\0\x02", "ogg"), (b"fLaC\0", "flac"), (b"ID3\x04\0", "mp3"), (b"\xff\xfb\x90\x64", "mp3"), (b"\xff\xf1\x50\x80", "aac"),
    ((b"G" + b"\xff" * 187) * 4, "mpegts"), (b"\0\0\x01\xba", "mpegps"), (b"0&\xb2u\x8ef\xcf\x11", "asf"), (b"FORM\0\0\0\0AIFF", "aiff"),
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"", "empty"), (b"<!DOCTYPE html>", "html"),
    (b"\xef\xbb\xbf\n<HTML>", "html"), (b'{"error": 1}', "json"), (b"<?xml version='1.0'?>", "xml"), (b"#EXTM3U\n", "playlist"),
    (b"ffconcat version 1.0\nfile a.mp4", "text"), (b"Not found", "text"), (b"%PDF-1.7", "pdf"), (b"PK\x03\x04", "zip"),
    (b"The free and open film is not here", "text"), (b"Mr. moov\n", "text"), ("Not found".encode("utf-16"), "text"),
    (b"\xff\xfe" + bytes(range(1, 255)) * 4, "mp3"), (b"\0" * 900, "unknown"), (b"\xff\xff\xff\xff\0", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "kind"), HEADS, ids=[kind for _, kind in HEADS])
def test_first_bytes_tell_what_it_is(head: bytes, kind: str) -> None:
    assert kind_of(head) == kind


def test_every_sample_is_media_and_whole(samples: Path) -> None:
    for path in sorted(samples.iterdir()):
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        assert kind in MEDIA and kind not in IMAGES, path.name
        if path.name != "broken-cut-off.mp4":
            assert is_cut_off(path) is False, path.name


@pytest.mark.parametrize("name", ["bunny-wake.mp4", "bunny-stick.mov", "bunny-squirrel.webm", "bunny-forest.mkv"])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off_is_seen(samples: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (samples / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    assert is_cut_off(path) is True


# Opus puts whole packets on a page; a Theora picture of noise goes on over several.
@pytest.mark.parametrize("made", [
    ["-f", "lavfi", "-i", "sine=duration=3", "-c:a", "libopus", "-page_duration", "200000"],
    ["-f", "lavfi", "-i", "nullsrc=s=320x320:d=0.2,geq=random(1)*255:128:128", "-c:v", "libtheora", "-q:v", "10"],
], ids=["opus", "theora"])  # fmt: skip
def test_an_ogg_file_is_cut_off_within_a_page_or_a_packet_and_not_for_want_of_its_last_flag(
    made: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.ogg"
    ffmpeg(*made, path)
    data = path.read_bytes()
    starts, page = [], 0
    while page < len(data):
        starts.append(page)
        segments = data[page + 26]
        page += 27 + segments + sum(data[page + 27 : page + 27 + segments])
    assert len(starts) > 6 and page == len(data) and is_cut_off(path) is False

    def of_first(count: int) -> bool | None:
        path.write_bytes(data[:count])
        return is_cut_off(path)

    for start, following in pairwise(starts[2:]):
        # The flag of the page behind the cut says whether its first packet is the rest of one.
        assert of_first(following) is (True if data[following + 5] & 1 else None), following
        assert {of_first(start + n) for n in (1, 4, 26, 27, (following - start) // 2)} == {True}
        assert of_first(following - 1) is True
    assert {bool(data[start + 5] & 1) for start in starts} == {False, "libtheora" in made}
