"""Cuts a segment out of a source: a copy of its packets where key frames allow, else coded anew, frame for frame."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options, source_name
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts
from vidal.media.timing import seconds
from vidal.media.tracks import CLOCK_MAY_JUMP, survey

# A segment keeps the time base of its source: Matroska's is a millisecond, MOV's is any.
_MATROSKA, _MOV = "segment.mkv", "segment.mov"
_EXACT = {
    "map_metadata": "-1", "map_chapters": "-1", "flags": "+bitexact", "fflags": "+bitexact",
    # A packet before the first frame would shift all times, and hide.
    "avoid_negative_ts": "disabled",
}  # fmt: skip
_HAS_NO_TIMES = ("avi", "mpeg")
"""Containers of packets without presentation times, which FFmpeg makes up differently after a seek."""


@dataclass(frozen=True, slots=True)
class _Segment:
    facts: SourceFacts
    first: int
    behind: int
    """Indices of its first frame and of the first one behind it."""
    end_s: float
    folder: Path
    limits: Limits

    @property
    def start_s(self) -> float:
        """The time of its first frame, on the clock of the file."""
        return seconds(self.facts.frame_ticks[self.first], self.facts.time_base)

    def input(self, **options: object) -> Any:
        source = source_name(self.facts.path, self.folder)
        return ffmpeg.input(source, **input_options(self.limits), **options)

    def nearby(self) -> Any:
        """The source, from a key frame at least a second before the segment."""
        if self.facts.container in _HAS_NO_TIMES:
            return self.input()
        return self.input(seek_timestamp=1, ss=f"{self.start_s - 1:.9f}", noaccurate_seek=None)

    def run(self, streams: list[Any], target: str, **coding: object) -> child.Finished:
        """Write video and, if there is any, audio; audio is decoded, as its packets do not end where a frame does."""
        if self.facts.audio_codec is not None:
            audio = self.nearby()[f"a:{self.facts.audio_track}"]
            audio = audio.filter("atrim", start=self.start_s, end=self.facts.start_s + self.end_s)
            streams = [*streams, audio.filter("asetpts", f"PTS-({self.start_s:.9f}/TB)")]
            coding["c:a"] = "pcm_f32le"
        output = ffmpeg.output(*streams, f"file:{target}", **coding, **_EXACT)
        command = [str(find_ffmpeg()), *global_options(self.limits), "-max_error_rate", "1", *output.get_args()]
        return child.run(command, self.folder, self.limits)


def cut(
    facts: SourceFacts, start_s: float, end_s: float, folder: Path, limits: Limits, *, crf: int = 8
) -> tuple[Path, bool]:
    """Write the frames from ``start_s`` up to ``end_s``, and their audio; return the file and whether it is a copy.

    Times are in seconds after the source's first frame. Where the packets from a key frame on are those of exactly the
    segment's frames, they are copied; elsewhere the frames are decoded, turned upright and coded by x264 at ``crf``,
    where 0 is lossless. Raises `ClipError` for a segment without frames, and for one that cannot be decoded.
    """
    first, behind = (bisect_left(facts.times_s, time_s - 1e-6) for time_s in (start_s, end_s))
    if facts.video_codec is None or first == behind:
        raise ClipError("no_video", f"no frame between {start_s:g} and {end_s:g} s")
    segment = _Segment(facts, first, behind, end_s, folder, limits)
    target = _MATROSKA if facts.container.startswith("matroska") else _MOV
    if facts.container not in (*_HAS_NO_TIMES, *CLOCK_MAY_JUMP) and _copy(segment, target):
        return folder / target, True
    # One thread, because x264's output depends on their number, whose default is that of the cores.
    coding = {
        "c:v": "libx264", "crf": crf, "preset": "veryfast", "threads:v": 1, "fps_mode": "passthrough",
        "enc_time_base:v": "demux",
    }  # fmt: skip
    finished = segment.run([_trimmed(segment)], _MOV, **coding)
    if finished.returncode != 0:
        raise ClipError("undecodable", finished.first_error)
    return folder / _MOV, False


def _copy(segment: _Segment, target: str) -> bool:
    """Copy the video packets of a segment; return whether they are those of exactly its frames."""
    facts = segment.facts
    ticks = facts.frame_ticks[segment.first : segment.behind]
    # A seek goes to the last key frame before a time: from just behind the first frame, to that one if it is one.
    # In Matroska files with reordered frames, FFmpeg looks 3/23 s further back.
    margin_s = 0.132 if target == _MATROSKA else 0.001
    media = segment.input(seek_timestamp=1, ss=f"{segment.start_s + margin_s:.9f}")
    # The audio is at its place by then.
    options = {"c:v": "copy", "frames:v": len(ticks), "bsf:v": f"setts=pts=PTS-({ticks[0]}):dts=DTS-({ticks[0]})"}
    try:
        finished = segment.run([media[f"v:{facts.video_track}"]], target, **options)
        video = survey(segment.folder / target, segment.folder, segment.limits).of("video")
    except ClipError:
        return False
    # Their times decide, not FFmpeg's word: frames that lean on others outside are missing or come before the first.
    copied = sorted(seconds(time, video[0].time_base) for time, _ in video[0].packets) if video else []
    return finished.returncode == 0 and copied == [seconds(tick - ticks[0], facts.time_base) for tick in ticks]


def _trimmed(segment: _Segment) -> Any:
    facts = segment.facts
    video = segment.nearby()[f"v:{facts.video_track}"]
    if facts.container in _HAS_NO_TIMES:
        bounds = {"start_frame": segment.first, "end_frame": segment.behind}
    else:
        # The last segment has no end: a source may have frames that its packets do not announce.
        bounds = {"start_pts": facts.frame_ticks[segment.first]}
        if segment.behind < len(facts.frame_ticks):
            bounds["end_pts"] = facts.frame_ticks[segment.behind]
    return video.filter("trim", **bounds).filter("setpts", "PTS-STARTPTS")
