"""Makes the undamaged clips, and compares what FFmpeg decodes of two of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidal.media.ffmpeg import find_ffmpeg

ROOT = Path(__file__).resolve().parents[2]
# Real footage: of a drawn test image, most flipped bits decode to the same image.
SOURCE = ROOT / "samples" / "clips" / "bunny-stick.mov"
WIDTH, HEIGHT = 96, 72
LENGTH_S, FPS = 2, 25
BLOCK = 8
VISIBLE = 12
"""Mean difference of a block of luma, in levels of 255, from which on damage is visible."""

ENCODERS = {
    "h264": ("libx264", "-preset", "fast", "-crf", "20"),
    "hevc": ("libx265", "-preset", "fast", "-crf", "22", "-x265-params", "log-level=error:pools=none:frame-threads=1"),
    "vp9": ("libvpx-vp9", "-crf", "30", "-b:v", "0", "-cpu-used", "6"),
    "av1": ("libaom-av1", "-crf", "30", "-cpu-used", "8"),
    "mpeg4": ("mpeg4", "-qscale:v", "4", "-bf", "1"),
}
CONTAINERS = {
    "h264": ("mp4", "mov", "mkv"),
    "hevc": ("mp4", "mov", "mkv"),
    "vp9": ("mp4", "mkv", "webm"),
    "av1": ("mp4", "mkv", "webm"),
    "mpeg4": ("mp4", "mov", "mkv"),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """The frames of a film."""

    luma: npt.NDArray[np.uint8]
    """Of shape (frames, `HEIGHT`, `WIDTH`)."""

    def shows(self, whole: Decoded) -> bool:
        """Whether a viewer could tell these frames from those of the undamaged film."""
        if len(self.luma) != len(whole.luma):
            return True
        difference = np.abs(self.luma.astype(np.int16) - whole.luma)
        blocks = difference.reshape(len(difference), HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK)
        return bool(blocks.mean(axis=(2, 4)).max(initial=0) > VISIBLE)


def make_films(folder: Path) -> dict[tuple[str, str], Path]:
    """Encode the same two seconds with every codec, in every container that holds it."""
    films = {}
    for codec, containers in CONTAINERS.items():
        coded = folder / f"{codec}.nut"
        picture = ("-vf", f"scale={WIDTH}:{HEIGHT},fps={FPS}", "-pix_fmt", "yuv420p", "-g", "25")
        audio = ("-ac", "1", "-c:a", "libopus", "-b:a", "24k")
        _ffmpeg("-i", SOURCE, "-t", str(LENGTH_S), *picture, "-threads", "1", "-c:v", *ENCODERS[codec], *audio, coded)
        for container in containers:
            path = folder / f"{codec}.{container}"
            # MP4 as most sites serve it, MOV as cameras write it.
            start = ("-movflags", "+faststart") if container == "mp4" else ()
            sound = ("-c:a", "aac", "-b:a", "32k") if container in ("mp4", "mov") else ("-c:a", "copy")
            _ffmpeg("-i", coded, "-c:v", "copy", *sound, *start, "-fflags", "+bitexact", path)
            films[codec, container] = path
    return films


def drop_packets(film: Path, path: Path, numbers: list[int]) -> None:
    """Copy a film without some of its video packets."""
    dropped = "+".join(f"eq(n,{number})" for number in numbers)
    _ffmpeg("-i", film, "-c", "copy", "-bsf:v", f"noise=drop='{dropped}'", "-fflags", "+bitexact", path)


def decode(path: Path) -> Decoded:
    """Decode all frames that FFmpeg can read."""
    scaled = f"scale={WIDTH}:{HEIGHT},format=gray"
    options = ("-map", "0:V:0", "-fps_mode", "passthrough", "-copyts", "-vf", scaled, "-f", "rawvideo")
    raw = _ffmpeg("-threads", "1", "-max_error_rate", "1", "-i", path, *options, "-")
    return Decoded(
        np.frombuffer(raw[: len(raw) // (WIDTH * HEIGHT) * WIDTH * HEIGHT], np.uint8).reshape(-1, HEIGHT, WIDTH)
    )


def _ffmpeg(*arguments: str | Path) -> bytes:
    command = [str(find_ffmpeg()), "-y", "-loglevel", "quiet", "-nostdin", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=60).stdout
