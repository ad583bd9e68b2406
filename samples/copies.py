"""Clips made from finished clips: duplicates, broken files and a lone sound track."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encode import VIDEO_OPTIONS, WEBM_SOUND, ffmpeg


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A clip made from a finished clip."""

    clip_id: str
    of: str
    title: str
    hashtags: str
    suffix: str
    make: Callable[[Path, Path], None]
    expected: str
    notes: str


def _smaller(original: Path, target: Path) -> None:
    ffmpeg(
        "-i",
        str(original),
        "-vf",
        "scale=426:-2",
        *VIDEO_OPTIONS["vp9"],
        "-crf",
        "42",
        *WEBM_SOUND,
        "-fflags",
        "+bitexact",
        str(target),
    )


def _same_bytes(original: Path, target: Path) -> None:
    target.write_bytes(original.read_bytes())


def _cut_off(original: Path, target: Path) -> None:
    """Loses the end, where this file's index is."""
    ffmpeg("-i", str(original), "-c", "copy", "-t", "3", str(target))
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])


def _flipped(original: Path, target: Path) -> None:
    """Keeps the headers, so that the file looks well until its frames are decoded."""
    ffmpeg("-i", str(original), "-c", "copy", "-t", "3", "-an", str(target))
    content = bytearray(target.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[begin:end] = bytes(byte ^ 0xA5 for byte in content[begin:end])
    target.write_bytes(content)


def _sound_only(original: Path, target: Path) -> None:
    ffmpeg("-i", str(original), "-vn", "-c", "copy", str(target))


COPIES: tuple[Copy, ...] = (
    Copy(
        clip_id="bunny-wake-repost",
        of="bunny-wake",
        title="spring is here!! 🐰 (credit to owner)",
        hashtags="#repost #bunny",
        suffix="webm",
        make=_smaller,
        expected="duplicate",
        notes="bunny-wake at another size, bit rate and container",
    ),
    Copy(
        clip_id="sintel-dragon-copy",
        of="sintel-dragon",
        title="dragon scene",
        hashtags="#dragon",
        suffix="mov",
        make=_same_bytes,
        expected="duplicate",
        notes="the same bytes as sintel-dragon",
    ),
    Copy(
        clip_id="broken-cut-off",
        of="bunny-flower",
        title="upload failed? 🤔",
        hashtags="#flowers",
        suffix="mp4",
        make=_cut_off,
        expected="truncated",
        notes="cut off in the middle: the index is missing",
    ),
    Copy(
        clip_id="broken-bits",
        of="sintel-dunes",
        title="glitch art 👾",
        hashtags="#glitch",
        suffix="mp4",
        make=_flipped,
        expected="undecodable",
        notes="headers well, picture data flipped",
    ),
    Copy(
        clip_id="sound-only",
        of="bunny-apple",
        title="original sound 🎵",
        hashtags="#sound #audio",
        suffix="mp4",
        make=_sound_only,
        expected="no_video",
        notes="sound track without a picture",
    ),
)
