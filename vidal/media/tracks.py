"""The tracks of a media file, by one demux-only pass of FFmpeg, and which of them are the clip.

Every fact comes from framecrc, a muxer made for machines; what a track is flagged as, too, by giving it the flagged
tracks once more behind all of them. The log, which also holds what the file's author wrote, says no more than the name
of the demuxer and the length that the header states.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import ffmpeg

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import FORMATS, find_ffmpeg, global_options, input_options, is_decodable, source_name
from vidal.media.limits import Limits
from vidal.media.log_lines import CUT_SHORT, says

PROBE_CPU_S = 60.0

_PACKETS, _CLOCK, _DEFAULTS, _COVERS = "probe.packets", "probe.clock", "probe.defaults", "probe.covers"
_DISCARD = 0x4  # AV_PKT_FLAG_DISCARD: outside the edit list, decoded but never shown
_NO_TIME = -(2**63)

# FFmpeg's own measures of a broken clock: -dts_delta_threshold, and a tenth of a second back.
_LEAP_S = 10
_BACK_S = Fraction(1, 10)

# In these the clock may restart or leap by design; in the others a leap is a picture that is held.
CLOCK_MAY_JUMP = ("mpegts", "mpeg")
# Containers whose header states a length; for the others FFmpeg guesses it.
_STATES_LENGTH = ("mov", "matroska", "avi", "flv", "asf", "wav", "flac")

# PNG, JPEG, WebP, BMP, TIFF: what moves in these formats has a demuxer of its own, which is read.
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|BM|II\*\0|MM\0\*", re.S)

# FFmpeg would bend a decoding time that goes back, and a presentation time with it: it is given a counter instead,
# and the decoding time itself as a duration, raised so that it is never negative.
_COUNTER = "N-1099511627776"
_RAISED = 4398046511104
_LOWEST_TIME = -(2**39)  # below this, a presentation time is unknown, and the counter stands in for it


@dataclass(slots=True, kw_only=True)
class Track:
    """One video or audio track."""

    kind: str = ""
    number: int = 0
    """Among the tracks of its kind, from 0, as in FFmpeg's ``v:0``."""
    codec: str = ""
    time_base: Fraction = Fraction(1)
    dimensions: tuple[int, int] = (0, 0)
    aspect: Fraction = Fraction(1)
    is_default: bool = False
    is_cover: bool = False
    packets: list[tuple[int, int]] = field(default_factory=list)
    """Presentation time and duration of each packet that is shown, in units of `time_base`."""
    leaps: int = 0
    """How often the decoding time leaps ahead."""
    restarts: int = 0
    """How often it goes back."""

    @property
    def span_s(self) -> tuple[Fraction, Fraction]:
        """First and last instant at which there is something of the track."""
        if not self.packets:
            return Fraction(0), Fraction(0)
        return min(self.packets)[0] * self.time_base, max(sum(packet) for packet in self.packets) * self.time_base

    @property
    def length_s(self) -> Fraction:
        begin, end = self.span_s
        return end - begin

    @property
    def is_decodable(self) -> bool:
        return is_decodable(self.codec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one demux-only pass found."""

    container: str
    stated_s: float | None
    """Length that the container's header states."""
    tracks: Sequence[Track]
    video_packets: int
    """Packets of every video track; those before a track's first key frame are in no `Track`, as none is shown."""

    def of(self, kind: str) -> list[Track]:
        return [track for track in self.tracks if track.kind == kind]

    @property
    def length_s(self) -> float:
        """From the first packet of any track to the end of the last."""
        spans = [track.span_s for track in self.tracks if track.packets]
        return float(max(end for _, end in spans) - min(begin for begin, _ in spans)) if spans else 0.0


def choose_video(tracks: Sequence[Track]) -> Track | None:
    """Film before still image before cover art, then what can be decoded, the default flag, and the longest."""
    return max(
        tracks,
        key=lambda t: (not t.is_cover, len(t.packets) > 1, t.is_decodable, t.is_default, t.length_s, -t.number),
        default=None,
    )


def choose_audio(tracks: Sequence[Track]) -> Track | None:
    """What can be decoded, then the default flag, then the first, as players do."""
    return max(tracks, key=lambda t: (bool(t.packets), t.is_decodable, t.is_default, -t.number), default=None)


def survey(path: Path, folder: Path, limits: Limits) -> Survey:
    """Demux ``path`` once, with ``folder`` as scratch; raises `ClipError` for what FFmpeg cannot read to its end."""
    try:
        done = child.run(_command(path, folder, limits), folder, limits, marks=CUT_SHORT, cpu_s=PROBE_CPU_S)
        raise_for_failure(done, path)
        tracks = _read_packets(folder, limits)
        _read_flags(folder, tracks)
    finally:
        for name in (_PACKETS, _CLOCK, _DEFAULTS, _COVERS):
            (folder / name).unlink(missing_ok=True)
    container = re.search(r"^\[in#0/(\S+) @ ", done.log, re.M)
    name = container[1] if container else ""
    read = re.findall(
        r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(video\): (\d+) packets read", done.log, re.M
    )
    return Survey(
        container=name,
        stated_s=_stated_length(done.log, name),
        tracks=tracks,
        video_packets=sum(map(int, read)),
    )


def _command(path: Path, folder: Path, limits: Limits) -> list[str]:
    source = ffmpeg.input(source_name(path, folder), **input_options(limits))
    every = [source["v?"], source["a?"]]
    exact = {"f": "framecrc", "c": "copy", "map_metadata": "-1", "flags": "+bitexact", "fflags": "+bitexact"}
    times = {"copypriorss": "1", **exact}
    outputs = [
        ffmpeg.output(*every, f"file:{_PACKETS}", **{"bsf:v": f"setts=pts=PTS:dts={_COUNTER}"}, **times),
        ffmpeg.output(*every, f"file:{_CLOCK}", bsf=f"setts=dts={_COUNTER}:duration=DTS+{_RAISED}", **times),
        ffmpeg.output(*every, source["v:disp:default?"], source["a:disp:default?"], f"file:{_DEFAULTS}", **exact),
        ffmpeg.output(*every, source["v:disp:attached_pic?"], f"file:{_COVERS}", **exact),
    ]
    return [str(find_ffmpeg()), *global_options(limits), *ffmpeg.merge_outputs(*outputs).get_args()]


def raise_for_failure(done: child.Finished, path: Path) -> None:
    """The `ClipError` that the end of an FFmpeg process which read a source stands for."""
    if any(done.counts.values()):
        raise ClipError("truncated", "the file ends before its index or its sizes say")
    if says(done.log, r"Picture size \d+x\d+ (exceeds|is invalid)"):
        raise ClipError("too_many_pixels", done.first_error)
    if says(done.log, "moov atom not found") and _head(path)[4:8] == b"ftyp":
        raise ClipError("truncated", "the file ends before its index (moov)")
    if done.returncode != 0 and says(done.log, "Output file does not contain any stream"):
        raise ClipError("no_video", "neither video nor audio")
    if done.returncode != 0 and says(done.log, "Format not on whitelist"):
        if _PICTURE.match(_head(path)):
            raise ClipError("still_image", "an image file")
        raise ClipError("unsupported_container", f"none of {FORMATS}")
    if done.returncode != 0:
        raise ClipError("undecodable", done.first_error)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _stated_length(log: str, container: str) -> float | None:
    """The dump's own line; where there are two, one is the author's, and nothing is stated."""
    found = re.findall(r"^ \[info\]   Duration: (\d+):(\d\d):(\d\d\.\d\d), ", log, re.M)
    if len(found) != 1 or container.split(",")[0] not in _STATES_LENGTH:
        return None
    hours, minutes, rest = found[0]
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def _read_packets(folder: Path, limits: Limits) -> list[Track]:
    tracks: dict[int, Track] = {}
    decoded_at = _read_clock(folder / _CLOCK)
    place = dict.fromkeys(decoded_at, 0)
    with (folder / _PACKETS).open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("#"):
                _read_header(line, tracks)
                continue
            cells = line.split(",")
            index = int(cells[0])
            _read_packet(cells, decoded_at[index][place[index]], tracks[index], limits)
            place[index] += 1
    for index, track in tracks.items():
        _count_jumps(track, decoded_at.get(index, []))
        track.number = sum(other.kind == track.kind for i, other in tracks.items() if i < index)
    return [tracks[index] for index in sorted(tracks)]


def _read_clock(path: Path) -> dict[int, list[int]]:
    """Decoding time of every packet by track, as the file has it."""
    times: dict[int, list[int]] = {}
    with path.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if not line.startswith("#"):
                cells = line.split(",", 4)
                raised = int(cells[3])
                times.setdefault(int(cells[0]), []).append(raised - _RAISED if raised > 0 else _NO_TIME)
    return times


def _read_header(line: str, tracks: dict[int, Track]) -> None:
    match = re.match(r"#(tb|media_type|codec_id|dimensions|sar) (\d+): (\S+)$", line)
    if match is None:
        return
    track, value = tracks.setdefault(int(match[2]), Track()), match[3]
    if match[1] == "tb":
        track.time_base = Fraction(value)
    elif match[1] == "media_type":
        track.kind = value
    elif match[1] == "codec_id":
        track.codec = value
    elif match[1] == "dimensions":
        width, height = value.split("x")
        track.dimensions = (int(width), int(height))
    else:
        track.aspect = _aspect(value)


def _aspect(text: str) -> Fraction:
    """Sample aspect ratio; one that is unknown or absurd counts as square."""
    over, under = (int(part) for part in text.split("/"))
    ratio = Fraction(over, under) if over > 0 and under > 0 else Fraction(1)
    return ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)


def _read_packet(cells: list[str], decoded_at: int, track: Track, limits: Limits) -> None:
    """``stream, dts, pts, duration, size, crc[, F=flags]``; flags are left out of a plain key frame."""
    flags = next((int(cell.strip()[2:], 16) for cell in cells[6:] if cell.strip().startswith("F=")), 1)
    if flags & _DISCARD:
        return
    pts, duration = (int(cell) for cell in cells[2:4])
    track.packets.append((pts if pts > _LOWEST_TIME else decoded_at, duration))
    if len(track.packets) > (limits.max_frames if track.kind == "video" else limits.max_audio_packets):
        word = "too_many_frames" if track.kind == "video" else "over_duration"
        raise ClipError(word, f"more than {len(track.packets) - 1} packets of {track.kind}")


def _count_jumps(track: Track, decoded_at: Sequence[int]) -> None:
    known = [time for time in decoded_at if time != _NO_TIME]
    steps_s = [(after - before) * track.time_base for before, after in pairwise(known)]
    track.restarts = sum(step < -_BACK_S for step in steps_s)
    track.leaps = sum(step > _LEAP_S for step in steps_s)


def _read_flags(folder: Path, tracks: Sequence[Track]) -> None:
    """Which tracks come once more behind all of them; of two with the same packets, one is as good as the other."""
    for name, attribute in ((_DEFAULTS, "is_default"), (_COVERS, "is_cover")):
        packets = _digests(folder / name)
        flagged = {digest for index, digest in packets.items() if index >= len(tracks)}
        for index, track in enumerate(tracks):
            setattr(track, attribute, packets.get(index) in flagged)


def _digests(path: Path) -> dict[int, str]:
    """A hash of all packets of each track that has some."""
    found: dict[int, Any] = {}
    with path.open("rb") as lines:
        for line in lines:
            if not line.startswith(b"#"):
                index, _, packet = line.partition(b",")
                found.setdefault(int(index), hashlib.blake2b()).update(packet)
    return {index: digest.hexdigest() for index, digest in found.items()}
