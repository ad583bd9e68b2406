"""What a clip may cost, whatever its headers say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vidal.errors import ClipError

MIB = 1024 * 1024


class Limits(BaseModel):
    """Bounds for one clip; a clip beyond one becomes a `failed` row that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_bytes: int = Field(512 * MIB, gt=0)
    """Size of the file as it came."""
    max_pixels: int = Field(4096 * 4096 // 2, gt=0)
    """Width times height of the source."""
    min_side: int = Field(16, gt=0)
    """Shorter side of the picture as stored; below a macroblock there is nothing to see."""
    max_duration_s: float = Field(600.0, gt=0)
    max_fps: float = Field(240.0, gt=0)
    """Frames of the source per second of its length, on average."""
    max_streams: int = Field(32, gt=0)
    cpu_s: float = Field(300.0, gt=0)
    """CPU seconds of one FFmpeg process: the verdict, as it does not depend on the machine's load."""
    wall_s: float = Field(900.0, gt=0)
    """Wall-clock seconds of one FFmpeg process: the backstop."""
    memory_bytes: int = Field(2048 * MIB, gt=0)
    """Address space of one FFmpeg process."""
    alloc_bytes: int = Field(256 * MIB, gt=0)
    """Largest single allocation of FFmpeg."""
    output_bytes: int = Field(256 * MIB, gt=0)
    """Largest file that FFmpeg may write."""

    @property
    def max_frames(self) -> int:
        return int(self.max_duration_s * self.max_fps)

    @property
    def max_audio_packets(self) -> int:
        """Packets of a millisecond; the shortest in use is Opus' of 2.5."""
        return int(self.max_duration_s * 1000)

    def check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise ClipError("too_many_pixels", f"{width}x{height} > {self.max_pixels} pixels")
        if min(width, height) < self.min_side:
            raise ClipError("too_small", f"{width}x{height}: a side is below {self.min_side} pixels")

    def check_duration(self, duration_s: float) -> None:
        if duration_s > self.max_duration_s:
            raise ClipError("over_duration", f"{duration_s:.2f} s > {self.max_duration_s:g} s")

    def check_frames(self, count: int, duration_s: float) -> None:
        """Refuse a rate beyond `max_fps`; a burst of up to a second's worth of frames is let through."""
        if count > self.max_fps * max(duration_s, 1.0):
            raise ClipError("too_many_frames", f"{count} frames in {duration_s:.2f} s > {self.max_fps:g} per second")
