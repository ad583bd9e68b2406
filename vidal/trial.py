"""A synthetic clip with frames and speech, to try and time stages without any data."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vidal.clip import Clip
from vidal.errors import ToolError
from vidal.media.ffmpeg import find_ffmpeg
from vidal.stage import Stage
from vidal.stages.media import Media
from vidal.stages.probe import Probe

DURATION_S = 4
SPEECH = Path(__file__).with_name("trial-speech.flac")
"""Four seconds of a LibriVox reading of Sense and Sensibility, in the public domain (samples/LICENCES.md)."""

_MAKE = [
    "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=25:duration={DURATION_S}",
    "-i", str(SPEECH), "-c:v", "libx264", "-preset", "ultrafast",
    "-pix_fmt", "yuv420p", "-c:a", "aac", "-y",
]  # fmt: skip


@contextmanager
def trial_clip(stages: Sequence[Stage] = ()) -> Iterator[Clip]:
    """Provide a test pattern with a time code and a spoken sentence, probed and decoded with the stages' settings.

    Raises `ToolError` without FFmpeg.
    """
    with tempfile.TemporaryDirectory(prefix="vidal-trial-") as folder:
        source = Path(folder) / "source.mp4"
        done = subprocess.run([str(find_ffmpeg()), *_MAKE, str(source)], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ToolError(f"FFmpeg cannot make a test clip: {' '.join(done.stderr.split())[:200]}")
        declared = dict.fromkeys(name for stage in stages for name in stage.columns)
        title = "A test pattern with coloured bars and a voice"
        clip = Clip(clip_id="trial", title=title, hashtags=["test"], extra=declared)
        clip.work.folder, clip.work.source_path = Path(folder), source
        for kind in (Probe, Media):
            stage = next((stage for stage in stages if isinstance(stage, kind)), None) or kind()
            stage.setup()
            stage.process(clip)
        yield clip
