"""What becomes of a source's audio, told from FFmpeg's own counts and the levels of its channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidal.media import graph
from vidal.media.measures import read_levels

_PACKETS = re.compile(
    r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(audio\): (\d+) packets read .*; (\d+) decode errors",
    re.M,
)

# A mix of independent channels is at most 6 dB below the louder one of two, and 19 dB below the loudest of eight.
_CANCELLED_DB = 10.0
_CANCELLED_OF_MANY_DB = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFate:
    """``status`` and ``reason`` as the record has them; the share is of the source's packets."""

    status: str
    reason: str | None = None
    corrupt_share: float | None = None

    @classmethod
    def none(cls) -> AudioFate:
        return cls(status="none")

    @classmethod
    def of(cls, corrupt: float, limit: float) -> AudioFate:
        """Of audio that could be read, ``corrupt`` of it not."""
        if corrupt == 0:
            return cls(status="ok", corrupt_share=0.0)
        status = "left_out" if corrupt > limit else "damaged"
        return cls(status=status, reason="corrupt_packets", corrupt_share=round(corrupt, 6))


def corrupt_share(log: str) -> float:
    """Share of the audio packets that the decoder refused."""
    # The last match: what the file's author wrote is logged before FFmpeg's own summary.
    packets, errors = map(int, (_PACKETS.findall(log) or [(0, 0)])[-1])
    return min(1.0, errors / packets) if packets else 0.0


def cancelled_channel(folder: Path) -> int | None:
    """The loudest channel, if mixing all into one has taken away far more than mixing does."""
    channels, mono = read_levels(folder / graph.CHANNEL_MEASURES), read_levels(folder / graph.MONO_MEASURES)
    if len(channels) < 2 or not mono:
        return None
    loudest = max(range(len(channels)), key=lambda k: channels[k])
    limit = _CANCELLED_DB if len(channels) == 2 else _CANCELLED_OF_MANY_DB
    return loudest if channels[loudest] > mono[0] + limit else None
