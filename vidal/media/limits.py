"""Limits on the size, length and processing cost of a clip."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vidal.errors import ClipError

MIB = 1024 * 1024


class Limits(BaseModel):
    """Limits for one clip; a clip that exceeds one of them becomes a ``failed`` row that names the limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = Field(512 * MIB, gt=0)
    """Size of the source file in bytes."""
    # FFmpeg's own limit lets 16000x16000 pass: 300 MB a frame, from a file of 281 kB.
    # 4K (3840x2160) just fits.
    max_pixels: int = Field(4096 * 4096 // 2, gt=0)
    """Width times height of the source, in pixels."""
    min_side: int = Field(16, gt=0)
    """Shorter side of the source in pixels; the default is one macroblock."""
    max_duration_s: float = Field(600.0, gt=0)
    """Duration of the source, in seconds."""
    max_fps: float = Field(240.0, gt=0)
    """Average frame rate of the source."""
    max_streams: int = Field(32, gt=0)
    """Number of streams of the source."""
    cpu_s: float = Field(300.0, gt=0)
    """CPU time of one FFmpeg process in seconds; the same clips exceed it on a busy and an idle machine."""
    wall_s: float = Field(900.0, gt=0)
    """Wall-clock time of one FFmpeg process in seconds, for processes that hang."""
    memory_bytes: int = Field(2048 * MIB, gt=0)
    """Address space of one FFmpeg process in bytes."""
    alloc_bytes: int = Field(256 * MIB, gt=0)
    """Largest single allocation by FFmpeg in bytes."""
    output_bytes: int = Field(256 * MIB, gt=0)
    """Largest file that FFmpeg may write, in bytes."""

    @property
    def max_frames(self) -> int:
        """Most frames that a video within `max_duration_s` and `max_fps` can have."""
        return int(self.max_duration_s * self.max_fps)

    @property
    def max_audio_packets(self) -> int:
        """Packets of 1 ms in `max_duration_s`; the shortest in practice are Opus packets of 2.5 ms."""
        return int(self.max_duration_s * 1000)

    def check_size(self, width: int, height: int) -> None:
        """Raise `ClipError` for a frame size outside `max_pixels` and `min_side`."""
        if width * height > self.max_pixels:
            raise ClipError("too_many_pixels", f"{width}x{height} > {self.max_pixels} pixels")
        if min(width, height) < self.min_side:
            raise ClipError("too_small", f"{width}x{height}: a side is below {self.min_side} pixels")

    def check_duration(self, duration_s: float) -> None:
        """Raise `ClipError` for a clip longer than `max_duration_s`."""
        if duration_s > self.max_duration_s:
            raise ClipError("over_duration", f"{duration_s:.2f} s > {self.max_duration_s:g} s")

    def check_frames(self, count: int, duration_s: float) -> None:
        """Raise `ClipError` for a frame rate above `max_fps`; clips shorter than 1 s count as 1 s long."""
        if count > self.max_fps * max(duration_s, 1.0):
            raise ClipError("too_many_frames", f"{count} frames in {duration_s:.2f} s > {self.max_fps:g} per second")
