"""Lists the tracks of a media file by one demux-only pass of FFmpeg, and selects those that become the clip.

The facts come from ``framecrc``, a muxer with machine-readable output; flags are read by passing it the flagged tracks
once more after all tracks. Only the name of the demuxer, the number of packets and the stated duration come from the
log, which also contains text written by the file's author.
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
from vidal.media.log_lines import CUT_SHORT, DEMUXER_ERROR, find_error

PROBE_CPU_S = 60.0

_PACKETS, _CLOCK, _DEFAULTS, _COVERS = "probe.packets", "probe.clock", "probe.defaults", "probe.covers"
_DISCARD = 0x4  # AV_PKT_FLAG_DISCARD: outside the edit list, decoded but not displayed
# FFmpeg's AV_NOPTS_VALUE: the time of a packet that has none.
_NO_TIME = -(2**63)

# FFmpeg's own thresholds for a timestamp discontinuity: -dts_delta_threshold, and 0.1 s backwards.
_LEAP_S = 10
_BACK_S = Fraction(1, 10)

# Containers in which timestamps may restart or jump by design; in others a jump is a frame displayed for long.
CLOCK_MAY_JUMP = ("mpegts", "mpeg")
# Containers whose header states a duration; for others FFmpeg estimates it.
_STATES_LENGTH = ("mov", "matroska", "avi", "flv", "asf", "wav", "flac")

# PNG, JPEG, WebP, BMP, TIFF; animated PNG and WebP have demuxers of their own, which are allowed.
_IMAGE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|BM|II\*\0|MM\0\*", re.S)

# FFmpeg would correct a decoding time that goes backwards, and the presentation time with it. So the decoding time is
# replaced by a counter and is written as the duration instead, with an offset that keeps it positive.
_COUNTER = "N-1099511627776"
_RAISED = 4398046511104
_LOWEST_TIME = -(2**39)  # a lower presentation time is the counter, which replaces an unknown one


@dataclass(slots=True, kw_only=True)
class Track:
    """One video or audio track."""

    kind: str = ""
    number: int = 0
    """Index among the tracks of the same kind, from 0, as in FFmpeg's ``v:0``."""
    codec: str = ""
    time_base: Fraction = Fraction(1)
    dimensions: tuple[int, int] = (0, 0)
    aspect: Fraction = Fraction(1)
    is_default: bool = False
    is_cover: bool = False
    packets: list[tuple[int, int]] = field(default_factory=list)
    """Presentation time and duration of each displayed packet, in units of `time_base`."""
    leaps: int = 0
    """How often the decoding time jumps forwards by more than 10 s."""
    restarts: int = 0
    """How often the decoding time jumps backwards by more than 0.1 s."""

    @property
    def span_s(self) -> tuple[Fraction, Fraction]:
        """Start of the first and end of the last packet, in seconds."""
        if not self.packets:
            return Fraction(0), Fraction(0)
        return min(self.packets)[0] * self.time_base, max(sum(packet) for packet in self.packets) * self.time_base

    @property
    def length_s(self) -> Fraction:
        """Time from the start of the first to the end of the last packet, in seconds."""
        begin, end = self.span_s
        return end - begin

    @property
    def is_decodable(self) -> bool:
        """Whether the codec has an allowed decoder."""
        return is_decodable(self.codec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Result of one demux-only pass."""

    container: str
    stated_s: float | None
    """Duration stated in the container's header."""
    tracks: Sequence[Track]
    video_packets: int
    """Packets of all video tracks, with those before the first key frame, which are in no `Track`."""
    errors: int
    """Number of errors that the demuxer reported."""

    def of(self, kind: str) -> list[Track]:
        """Return the tracks of ``kind`` (``video`` or ``audio``)."""
        return [track for track in self.tracks if track.kind == kind]

    @property
    def length_s(self) -> float:
        """Time from the first packet of any track to the end of the last, in seconds."""
        spans = [track.span_s for track in self.tracks if track.packets]
        return float(max(end for _, end in spans) - min(begin for begin, _ in spans)) if spans else 0.0


def choose_video(tracks: Sequence[Track]) -> Track | None:
    """Select the video track: video over still image over cover art, then decodable, default, longest, first."""
    return max(
        tracks,
        key=lambda t: (not t.is_cover, len(t.packets) > 1, t.is_decodable, t.is_default, t.length_s, -t.number),
        default=None,
    )


def choose_audio(tracks: Sequence[Track]) -> Track | None:
    """Select the audio track as players do: not empty, then decodable, default, first."""
    return max(tracks, key=lambda t: (bool(t.packets), t.is_decodable, t.is_default, -t.number), default=None)


def survey(path: Path, folder: Path, limits: Limits) -> Survey:
    """Demux ``path`` once, with ``folder`` as scratch space; raises `ClipError` if FFmpeg cannot read it to the end."""
    try:
        marks = (*CUT_SHORT, DEMUXER_ERROR)
        finished = child.run(_command(path, folder, limits), folder, limits, marks=marks, cpu_s=PROBE_CPU_S)
        raise_for_failure(finished, path)
        tracks = _read_packets(folder, limits)
        _read_flags(folder, tracks)
    finally:
        for name in (_PACKETS, _CLOCK, _DEFAULTS, _COVERS):
            (folder / name).unlink(missing_ok=True)
    match = re.search(r"^\[in#0/(\S+) @ ", finished.log, re.M)
    container, stated_s = match[1] if match else "", None
    lengths = re.findall(r"^ \[info\]   Duration: (\d+):(\d\d):(\d\d\.\d\d), ", finished.log, re.M)
    # If there are two such lines, one is forged by the author of the file, and neither is used.
    if len(lengths) == 1 and container.split(",")[0] in _STATES_LENGTH:
        hours, minutes, rest = lengths[0]
        stated_s = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    packets_line = r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(video\): (\d+) packets read"
    return Survey(
        container=container,
        stated_s=stated_s,
        tracks=tracks,
        video_packets=sum(map(int, re.findall(packets_line, finished.log, re.M))),
        errors=finished.counts[DEMUXER_ERROR],
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


def raise_for_failure(finished: child.Finished, path: Path) -> None:
    """Raise the `ClipError` for a failed FFmpeg process that read the source ``path``; do nothing if it succeeded."""
    if any(finished.counts.get(mark) for mark in CUT_SHORT):
        raise ClipError("truncated", "the file ends before its index or sizes say it should")
    if find_error(finished.log, r"Picture size \d+x\d+ (exceeds|is invalid)"):
        raise ClipError("too_many_pixels", finished.first_error)
    if find_error(finished.log, "moov atom not found") and _head(path)[4:8] == b"ftyp":
        raise ClipError("truncated", "the file ends before its index (moov)")
    if finished.returncode != 0 and find_error(finished.log, "Output file does not contain any stream"):
        raise ClipError("no_video", "neither video nor audio")
    if finished.returncode != 0 and find_error(finished.log, "Format not on whitelist"):
        if _IMAGE.match(_head(path)):
            raise ClipError("still_image", "an image file")
        raise ClipError("unsupported_container", f"not one of {FORMATS}")
    if finished.returncode != 0:
        raise ClipError("undecodable", finished.first_error)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _read_packets(folder: Path, limits: Limits) -> list[Track]:
    tracks: dict[int, Track] = {}
    decoded_at = _read_clock(folder / _CLOCK)
    position = dict.fromkeys(decoded_at, 0)
    with (folder / _PACKETS).open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("#"):
                _read_header(line, tracks)
                continue
            # stream, dts, pts, duration, size, crc[, F=flags]; a plain key frame has no flags.
            cells = line.split(",")
            index, pts, duration = int(cells[0]), int(cells[2]), int(cells[3])
            track, decoding_time = tracks[index], decoded_at[index][position[index]]
            position[index] += 1
            flags = next((int(cell.strip()[2:], 16) for cell in cells[6:] if cell.strip().startswith("F=")), 1)
            if flags & _DISCARD:
                continue
            track.packets.append((pts if pts > _LOWEST_TIME else decoding_time, duration))
            # Counted while reading: a file may have any number of packets.
            if len(track.packets) > (limits.max_frames if track.kind == "video" else limits.max_audio_packets):
                reason = "too_many_frames" if track.kind == "video" else "over_duration"
                raise ClipError(reason, f"more than {len(track.packets) - 1} packets of {track.kind}")
    for index, track in tracks.items():
        known = [time for time in decoded_at.get(index, []) if time != _NO_TIME]
        steps_s = [(after - before) * track.time_base for before, after in pairwise(known)]
        track.restarts = sum(step < -_BACK_S for step in steps_s)
        track.leaps = sum(step > _LEAP_S for step in steps_s)
        track.number = sum(other.kind == track.kind for i, other in tracks.items() if i < index)
    return [tracks[index] for index in sorted(tracks)]


def _read_clock(path: Path) -> dict[int, list[int]]:
    """Return the decoding times of all packets by track, uncorrected."""
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
        over, under = (int(part) for part in value.split("/"))
        ratio = Fraction(over, under) if over > 0 and under > 0 else Fraction(1)
        # An unknown or implausible sample aspect ratio is taken as square.
        track.aspect = ratio if Fraction(1, 8) <= ratio <= 8 else Fraction(1)


def _read_flags(folder: Path, tracks: Sequence[Track]) -> None:
    """Set the flags of the tracks that are repeated after all tracks; tracks with equal packets are interchangeable."""
    # The log states the flags as well, in lines that the author of the file can forge.
    for name, attribute in ((_DEFAULTS, "is_default"), (_COVERS, "is_cover")):
        hashes: dict[int, Any] = {}
        with (folder / name).open("rb") as lines:
            for line in lines:
                if not line.startswith(b"#"):
                    cell, _, packet = line.partition(b",")
                    hashes.setdefault(int(cell), hashlib.blake2b()).update(packet)
        packets = {index: digest.digest() for index, digest in hashes.items()}
        flagged = {digest for index, digest in packets.items() if index >= len(tracks)}
        for index, track in enumerate(tracks):
            setattr(track, attribute, packets.get(index) in flagged)
