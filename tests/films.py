"""Small films made by FFmpeg, with a beep at 1, 2 and 3 s, and the stages that turn one into a clip."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from vidal.clip import Clip
from vidal.media.ffmpeg import find_ffmpeg
from vidal.stages.media import Media
from vidal.stages.probe import Probe

BEEPS_S = (1.0, 2.0, 3.0)
BEEP = r"0.5*sin(2*PI*880*t)*lt(mod(t\,1)\,0.1)*gte(t\,0.9)"


def ffmpeg(*args: str | Path) -> None:
    subprocess.run([str(find_ffmpeg()), "-y", "-loglevel", "error", *map(str, args)], check=True)


def film(
    path: Path, *options: str, audio_source: str = f"{BEEP}:s=48000", size: str = "160x96", length_s: float = 4.0
) -> Path:
    """Moving bars, with audio from the expressions ``audio_source`` of FFmpeg's aevalsrc."""
    video, audio = f"testsrc=size={size}:rate=25:duration={length_s}", f"aevalsrc={audio_source}:d={length_s}"
    sources = ["-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio]
    ffmpeg(*sources, "-pix_fmt", "yuv420p", "-preset", "ultrafast", "-g", "25", *options, path)
    return path


def process(path: Path, folder: Path, **settings: object) -> Clip:
    """The clip after the probe and the media stage."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    clip = Clip(clip_id="film", url=str(path))
    clip.work.folder, clip.work.source_path = work, work / "source"
    shutil.copyfile(path, clip.work.source_path)
    Probe().process(clip)
    Media(**settings).process(clip)  # type: ignore[arg-type]
    assert list(work.iterdir()) == []
    return clip


def audio_of(clip: Clip) -> npt.NDArray[np.float32]:
    member = clip.work.member("audio", "flac")
    assert member is not None
    samples, rate = soundfile.read(io.BytesIO(member.data), dtype="float32")
    assert rate == 16_000
    return samples  # type: ignore[no-any-return]


def beeps_in(samples: npt.NDArray[np.float32]) -> list[float]:
    """The tenths of a second at which a stretch begins that is heard, after one that is not."""
    tenths = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    loud = np.sqrt((tenths**2).mean(axis=1)) > 0.05
    return [round(k / 10, 1) for k in range(1, len(loud)) if loud[k] and not loud[k - 1]]
