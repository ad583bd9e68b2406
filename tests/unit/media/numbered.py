"""Clips whose every frame says its own number, made by FFmpeg, and what the media stages make of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vidal.clip import Clip
from vidal.media.ffmpeg import find_ffmpeg
from vidal.stages.fetch import Fetch
from vidal.stages.media import Media
from vidal.stages.probe import Probe

WIDTH, HEIGHT, BITS = 160, 96, 6
FRAMES = 50


def ffmpeg(*args: str | Path, data: bytes | None = None) -> bytes:
    command = [str(find_ffmpeg()), "-y", "-loglevel", "error", *map(str, args)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def numbered(count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """Grey frames of eight upright bars: white, the frame's number in six bits, black."""
    bars = [[1, *(n >> bit & 1 for bit in reversed(range(BITS))), 0] for n in range(count)]
    column = np.arange(width) * (BITS + 2) // width
    rows = np.array(bars, dtype=np.uint8)[:, column] * 200 + 20
    return np.repeat(rows[:, None, :], height, axis=1).tobytes()


def number_of(image: np.ndarray) -> int:
    """The number that a frame says; white and black bars at the ends set the scale, so tone and range do not matter."""
    height, width = image.shape[:2]
    centres = [int((bar + 0.5) * width / (BITS + 2)) for bar in range(BITS + 2)]
    levels = [float(image[height // 3 : height // 2, x - 2 : x + 3].mean()) for x in centres]
    assert levels[0] - levels[-1] > 40, levels
    middle = (levels[0] + levels[-1]) / 2
    return sum((level > middle) << bit for bit, level in zip(reversed(range(BITS)), levels[1:-1], strict=True))


def steady(fps: float) -> Callable[[int], float]:
    return lambda n: n / fps


AT_25 = steady(25)


def uneven(n: int) -> float:
    """Fast, then a long hold, then slow."""
    return n / 40 if n < 20 else 2.0 + (n - 20) / 10


UNEVEN = "setpts='round(if(lt(N,20),N/40,2+(N-20)/10)/TB)'"


@dataclass(frozen=True)
class Case:
    name: str
    options: str
    true_time: Callable[[int], float] = AT_25
    rate: float = 25
    frames: int = FRAMES
    first: int = 0
    """Number of the first frame on display."""
    tolerance_s: float = 1e-6
    width: int = WIDTH
    height: int = HEIGHT
    expect: tuple[tuple[str, object], ...] = ()


X264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p"


def raw(case: Case) -> tuple[list[str], bytes]:
    size = f"{case.width}x{case.height}"
    options = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", size, "-framerate", f"{case.rate:g}", "-i", "pipe:0"]
    return options, numbered(case.frames, case.width, case.height)


def make(case: Case, folder: Path) -> Path:
    path = folder / case.name
    options, data = raw(case)
    ffmpeg(*options, *case.options.split(), path, data=data)
    return path


def process(path: Path, folder: Path, **settings: object) -> Clip:
    """The clip after the three stages."""
    work = folder / f"work-{path.name}"
    work.mkdir(exist_ok=True)
    clip = Clip(url=str(path))
    clip.work.folder = work
    for stage in (Fetch(), Probe(), Media(**settings)):  # type: ignore[arg-type]
        stage.setup()
        stage.process_batch([clip])
    assert list(work.iterdir()) == []
    return clip


def check_frames(clip: Clip, case: Case) -> None:
    numbers = [number_of(image) for image in clip.work.frames()]
    truth = [case.true_time(n) - case.true_time(case.first) for n in numbers]
    assert clip.frame_times == pytest.approx(truth, abs=case.tolerance_s)
    assert [m.time_s for m in clip.work.frame_members()] == clip.frame_times
    distinct = min(8, case.frames - case.first)
    assert len(set(numbers)) == distinct and numbers == sorted(numbers) and len(numbers) == 8
    assert {(p.shape[1], p.shape[0]) for p in clip.work.frames()} == {(clip.frame_width, clip.frame_height)}
