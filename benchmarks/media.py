"""Clips per second of the media stages against a bare FFmpeg that writes the same outputs, and their peak memory.

    python benchmarks/media.py [--repeat 5]

Both run over the same generated clips, two processes at a time, in turns, so that the machine's load hits both alike;
ratios are computed within each turn, and medians are printed with their range.
The bare command measures nothing, probes nothing and checks nothing; the stages must reach 0.85 of its rate. Then one
1080p minute goes through the stages while the memory of worker and FFmpeg is watched; the sum must stay below 400 MB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from figures import log, options, show, spread

from vidal.clip import Clip
from vidal.media.ffmpeg import find_ffmpeg

RATIO_FLOOR = 0.85
MEMORY_CEILING_MB = 400
CLIP_S = 10

_BARE_GRAPH = (
    "[0:v]scale=-2:256,split[v][f];[f]fps=8/{seconds},format=yuvj420p[f];"
    "[0:a]asplit[a][b];[b]aresample=16000,aformat=sample_fmts=s16:channel_layouts=mono,asplit[b][c]"
)
_BARE_OUTPUTS = (
    "-map [v] -map [a] -c:v libx264 -preset veryfast -crf 23 -threads 1 -g 30 -c:a aac -b:a 96k -movflags +faststart "
    "out.mp4 -map [f] -q:v 2 -threads 1 out.%d.jpg -map [b] out.flac -map [c] -f chromaprint -fp_format raw out.bin"
)


def make_clip(path: Path, size: str, seconds: int, seed: int) -> None:
    """A noisy video with audio, with a long GOP, as phones make them."""
    video = f"testsrc2=s={size}:r=30:d={seconds},noise=alls=12:allf=t:all_seed={seed}"
    command = (
        f"-f lavfi -i {video} -f lavfi -i anoisesrc=d={seconds}:a=0.1:seed={seed} -c:v libx264 -preset veryfast "
        f"-b:v 3M -maxrate 4M -bufsize 8M -g 250 -pix_fmt yuv420p -c:a aac -shortest"
    )
    subprocess.run([find_ffmpeg(), "-y", "-loglevel", "error", *command.split(), path], check=True)


def run_bare(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        graph = _BARE_GRAPH.format(seconds=CLIP_S)
        given = ["-nostdin", "-y", "-loglevel", "error", "-threads", "1", "-filter_complex_threads", "1", "-i", source]
        command = [str(find_ffmpeg()), *given, "-filter_complex", graph, *_BARE_OUTPUTS.split()]
        subprocess.run(command, check=True, cwd=folder)


def run_stages(source: Path) -> Clip:
    from vidal.stages.fetch import Fetch
    from vidal.stages.media import Media
    from vidal.stages.probe import Probe

    clip = Clip(url=str(source))
    with tempfile.TemporaryDirectory() as folder:
        clip.work.folder = Path(folder)
        for stage in (Fetch(), Probe(), Media()):
            stage.process_batch([clip])
        assert clip.is_open and len(clip.work.members) > 1, f"{clip.reason}: {clip.detail}"
    return clip


WAYS: dict[str, Callable[[Path], object]] = {"bare": run_bare, "stages": run_stages}


def rate(work: Callable[[Path], object], sources: list[Path]) -> tuple[float, float]:
    """Clips per second with two at a time, and CPU seconds per clip, which other work on the machine disturbs less."""
    started, cpu = time.perf_counter(), _cpu_s()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, sources))
    return len(sources) / (time.perf_counter() - started), (_cpu_s() - cpu) / len(sources)


def _cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def peak_memory_mb(source: Path) -> float:
    """Largest sum of resident memory of a worker and its FFmpeg, over one clip."""
    worker = subprocess.Popen([sys.executable, __file__, "--worker", source])
    peak, done = 0.0, threading.Event()
    while worker.poll() is None:
        peak = max(peak, _tree_mb(worker.pid))
        done.wait(0.02)
    assert worker.returncode == 0
    return peak


def _tree_mb(pid: int) -> float:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / 2**20


def compare(sources: list[Path], repeat: int) -> dict[str, Any]:
    """Turns of the bare command and of the stages over the same clips."""
    run_stages(sources[0])
    turns: list[dict[str, tuple[float, float]]] = []
    for number in range(repeat):
        # Who goes first changes, so that neither always finds the caches as the other left them.
        order = WAYS if number % 2 == 0 else dict(reversed(WAYS.items()))
        turns.append({name: rate(work, sources) for name, work in order.items()})
        log(f"turn {number + 1} of {repeat}: {turns[-1]}")
    return {
        "clips_per_s": {name: spread([turn[name][0] for turn in turns]) for name in WAYS},
        "cpu_s_per_clip": {name: spread([turn[name][1] for turn in turns]) for name in WAYS},
        "ratio_of_clips_per_s": spread([turn["stages"][0] / turn["bare"][0] for turn in turns]),
        "ratio_of_clips_per_cpu_s": spread([turn["bare"][1] / turn["stages"][1] for turn in turns]),
    }


def measure(
    folder: Path, clips: int, repeat: int, size: str, clip_s: int, large_size: str, large_s: int
) -> dict[str, Any]:
    sources = [folder / f"{k}.mp4" for k in range(clips)]
    for seed, source in enumerate(sources):
        make_clip(source, size, clip_s, seed)
    figures = compare(sources, repeat)
    make_clip(folder / "large.mp4", large_size, large_s, 99)
    return {**figures, "peak_memory_mb": peak_memory_mb(folder / "large.mp4"), "clips": clips, "repeat": repeat}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=5, help="turns of either")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        run_stages(given.worker)
        return 0
    with tempfile.TemporaryDirectory(prefix="vidal-bench-") as folder:
        if given.quick:
            figures = measure(Path(folder), 1, 1, "128x72", 2, "192x108", 2)
        else:
            figures = measure(Path(folder), given.clips, given.repeat, "1280x720", CLIP_S, "1920x1080", 60)
    show(figures, as_json=given.json)
    is_met = figures["ratio_of_clips_per_s"]["median"] >= RATIO_FLOOR and figures["peak_memory_mb"] < MEMORY_CEILING_MB
    return 0 if given.quick or is_met else 1


if __name__ == "__main__":
    sys.exit(main())
