"""Damage of a picture as FFmpeg's decoder tells it: frames that it flags, packets that it refuses, what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vidal.errors import ClipError
from vidal.media.child import Finished
from vidal.media.ffmpeg import VIDEO_CODECS
from vidal.media.probe import Probe

_FLAGGED = rb"^\[vist#0:\d+/\S+ @ \S+\] \[dec:\S+ @ \S+\] \[warning\] corrupt decoded frame"
_COMPLAINT = rb"^\[(?:%s) @ \S+\] \[(?:error|fatal)\] " % VIDEO_CODECS.replace(",", "|").encode()
# HEVC's decoder passes over a slice that it cannot read with a warning, and shows the frame before once more.
_SKIPPED = rb"^\[hevc @ \S+\] \[warning\] Skipping invalid undecodable NALU"
_RESIZED = rb"^\[graph \d+ input .*\] \[warning\] filter context - w: (\d+ h: \d+) .*incoming frame - w: (?!\1 )"
MARKS = (_FLAGGED, _COMPLAINT, _SKIPPED, _RESIZED)
"""What to count in the log of a run."""

_DECODED = re.compile(
    r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(video\): .*? (\d+) frames decoded; (\d+) decode errors",
    re.M,
)
_MOSTLY = 2 / 3

# Codecs whose decoders flag each frame that they conceal something in; what they say besides is no further damage.
_FLAGS_DAMAGE = frozenset(["h264", "mpeg1video", "mpeg2video", "mpeg4", "h263", "flv1", "wmv1", "wmv2", "wmv3", "vc1"])
_FLAGS_DAMAGE |= {"msmpeg4v1", "msmpeg4v2", "msmpeg4v3"}

# Codecs in which a packet may rightly give no frame (VP8's hidden reference frames).
_HAS_HIDDEN_FRAMES = ("vp8", "vp6", "vp6f")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureDamage:
    corrupt_frames: int
    frame_size_changes: int


def read_damage(done: Finished, probe: Probe, written: int) -> PictureDamage:
    """The damage of a run that wrote so many frames; raises `ClipError` where most of the packets were refused."""
    # The last match: only FFmpeg's summary of the run is wanted, not that of a probe before it.
    frames, errors = map(int, (_DECODED.findall(done.log) or [(written, 0)])[-1])
    if errors > _MOSTLY * (frames + errors):
        raise ClipError("undecodable", done.first_error)
    lost = max(0, len(probe.frame_ticks) - frames)
    if probe.is_interlaced or probe.video_codec in _HAS_HIDDEN_FRAMES:
        lost = 0
    # A decoder may say several things about a frame, and says which frame to nobody.
    said = min(done.counts[_COMPLAINT] + done.counts[_SKIPPED], len(probe.frame_ticks))
    said = min(1, said) if probe.video_codec in _FLAGS_DAMAGE else said
    return PictureDamage(
        corrupt_frames=max(errors + done.counts[_FLAGGED], lost, said),
        frame_size_changes=done.counts[_RESIZED],
    )
