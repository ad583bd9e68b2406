"""Counts damaged video frames by what FFmpeg's decoder reports: flagged frames, rejected packets, error messages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vidal.errors import ClipError
from vidal.media.child import Finished
from vidal.media.ffmpeg import VIDEO_CODECS
from vidal.media.probe import SourceFacts

# Anchored at FFmpeg's own prefixes: text of the file's author is indented (`log_lines`).
_FLAGGED = rb"^\[vist#0:\d+/\S+ @ \S+\] \[dec:\S+ @ \S+\] \[warning\] corrupt decoded frame"
_MESSAGE = rb"^\[(?:%s) @ \S+\] \[(?:error|fatal)\] " % VIDEO_CODECS.replace(",", "|").encode()
# For a slice that it cannot read, the HEVC decoder logs only this warning and repeats the previous frame.
_SKIPPED = rb"^\[hevc @ \S+\] \[warning\] Skipping invalid undecodable NALU"
_RESIZED = rb"^\[graph \d+ input .*\] \[warning\] filter context - w: (\d+ h: \d+) .*incoming frame - w: (?!\1 )"
MARKS = (_FLAGGED, _MESSAGE, _SKIPPED, _RESIZED)
"""Patterns of log lines, to be passed to `child.run` as ``marks``."""

_DECODED = re.compile(
    r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(video\): .*? (\d+) frames decoded; (\d+) decode errors",
    re.M,
)
# FFmpeg's own -max_error_rate, which every run raises to 1 to judge by itself.
_MAX_ERROR_SHARE = 2 / 3

# Codecs whose decoders flag each frame in which they conceal errors; their other messages report no further damage.
_FLAGS_DAMAGE = frozenset(["h264", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "wmv1", "wmv2", "wmv3", "vc1"])
_FLAGS_DAMAGE |= {"msmpeg4v1", "msmpeg4v2", "msmpeg4v3"}

# Codecs in which an intact packet may yield no frame (hidden reference frames).
_HAS_HIDDEN_FRAMES = ("vp8", "vp6", "vp6f")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDamage:
    """Damage of a decoded video."""

    corrupt_frames: int
    """Frames that could not be decoded intact, at least."""
    frame_size_changes: int
    """How often the frame size changes within the video."""


def check_decoded(finished: Finished) -> None:
    """Raise `ClipError` (``undecodable``) if the decoder rejected more than two thirds of the packets."""
    frames, errors = _frames_and_errors(finished, 1)
    if errors > _MAX_ERROR_SHARE * (frames + errors):
        raise ClipError("undecodable", finished.first_error)


def read_damage(finished: Finished, probe: SourceFacts, written: int) -> VideoDamage:
    """Return the damage found by a run that wrote ``written`` frames."""
    frames, errors = _frames_and_errors(finished, written)
    lost = max(0, len(probe.frame_ticks) - frames)
    if probe.is_interlaced or probe.video_codec in _HAS_HIDDEN_FRAMES:
        lost = 0
    # A decoder may log several messages for one frame, and none of them names the frame.
    messages = min(finished.counts[_MESSAGE] + finished.counts[_SKIPPED], len(probe.frame_ticks))
    messages = min(1, messages) if probe.video_codec in _FLAGS_DAMAGE else messages
    return VideoDamage(
        corrupt_frames=max(errors + finished.counts[_FLAGGED], lost, messages),
        frame_size_changes=finished.counts[_RESIZED],
    )


def _frames_and_errors(finished: Finished, written: int) -> tuple[int, int]:
    # The last match is FFmpeg's summary of the run; earlier ones belong to its initial probing.
    frames, errors = (_DECODED.findall(finished.log) or [(written, 0)])[-1]
    return int(frames), int(errors)
