"""Whether a source's audio is usable, by FFmpeg's packet counts and the levels of its channels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vidal.media import graph
from vidal.media.measures import read_levels

_PACKETS = re.compile(
    r"^\[in#0\S* @ \S+\] \[verbose\] +Input stream #0:\d+ \(audio\): (\d+) packets read .*; (\d+) decode errors", re.M
)

# A mix of independent channels is at most 6 dB below the louder one of two, and 19 dB below the loudest of eight.
_CANCELLED_DB = 10.0
_CANCELLED_OF_MANY_DB = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioStatus:
    """The values of the columns ``audio_status``, ``audio_reason`` and ``corrupt_audio_share``."""

    status: str
    reason: str | None = None
    corrupt_share: float | None = None
    """Share of the source's audio packets that could not be decoded, 0 to 1."""

    @classmethod
    def of_decoded(cls, corrupt_share: float, max_corrupt_share: float) -> AudioStatus:
        """Return the status of audio of which ``corrupt_share`` could not be decoded."""
        if corrupt_share == 0:
            return cls(status="ok", corrupt_share=0.0)
        status = "left_out" if corrupt_share > max_corrupt_share else "damaged"
        return cls(status=status, reason="corrupt_packets", corrupt_share=round(corrupt_share, 6))


def corrupt_share(log: str) -> float:
    """Return the share of audio packets that the decoder rejected, 0 to 1."""
    # The last match is FFmpeg's own summary; text by the file's author is logged before it.
    packets, errors = map(int, (_PACKETS.findall(log) or [(0, 0)])[-1])
    return min(1.0, errors / packets) if packets else 0.0


def cancelled_channel(folder: Path) -> int | None:
    """Return the index of the loudest channel if the channels cancel out in the mono mix, else None."""
    channels, mono = read_levels(folder / graph.CHANNEL_MEASURES), read_levels(folder / graph.MONO_MEASURES)
    # Channels in antiphase cancel out, and the mono audio would be silence of a clip that is not silent.
    if len(channels) < 2 or not mono:
        return None
    loudest = max(range(len(channels)), key=lambda k: channels[k])
    limit = _CANCELLED_DB if len(channels) == 2 else _CANCELLED_OF_MANY_DB
    return loudest if channels[loudest] > mono[0] + limit else None
