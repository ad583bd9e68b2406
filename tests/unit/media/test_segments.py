"""Long videos are divided at their cuts, and a segment has exactly the frames and the audio of its part."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.films import BEEPS_S, beeps_in, ffmpeg, film
from vidal.errors import ClipError
from vidal.media.cut import cut
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts, probe
from vidal.media.scenes import cuts_s, segment_bounds
from vidal.stages.segments import content_cuts

FRAMES = [k / 25 for k in range(1500)]


@pytest.mark.parametrize(
    ("cuts", "duration_s", "limits", "wanted"),
    [
        ([], 30, (20, 3), [0, 15, 30]),
        ([], 50, (20, 3), [0, 16.64, 33.32, 50]),
        ([12], 30, (20, 3), [0, 12, 30]),
        ([12, 13], 30, (20, 3), [0, 13, 30]),  # to the shorter neighbour
        ([1], 20.5, (20, 3), [0, 1, 20.5]),  # no neighbour has room: left to the filters
        ([10, 11, 12, 13], 30, (20, 3), [0, 10, 13, 30]),
        ([10, 11, 12, 13], 30, (20, 0), [0, 10, 11, 12, 13, 30]),
        ([25], 30, (20, 3), [0, 12.48, 25, 30]),
    ],
)
def test_segments_begin_at_cuts_and_are_no_longer_and_rarely_shorter_than_asked(
    cuts: list[float], duration_s: float, limits: tuple[float, float], wanted: list[float]
) -> None:
    bounds = segment_bounds(FRAMES, cuts, duration_s, max_s=limits[0], min_s=limits[1])
    assert bounds == pytest.approx(wanted)
    assert max(np.diff(bounds)) <= limits[0] + 0.04


def facts_of(path: Path, folder: Path) -> SourceFacts:
    folder.mkdir(exist_ok=True)
    return probe(path, folder, Limits())


def test_cuts_are_found_at_their_frames_also_at_a_variable_frame_rate(tmp_path: Path) -> None:
    parts = ["testsrc2=s=320x180:r=25:d=2", "smptebars=s=320x180:r=25:d=1.4", "mandelbrot=s=320x180:r=25"]
    inputs = [option for part in parts for option in ("-f", "lavfi", "-t", "2", "-i", part)]
    # Every third frame of the second half of each second is dropped.
    graph = "[0][1][2]concat=n=3:v=1:a=0,select='not(gt(mod(t,1),0.5)*not(mod(n,3)))'[v]"
    made = tmp_path / "scenes.mp4"
    ffmpeg(*inputs, "-filter_complex", graph, "-map", "[v]", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p", made)
    facts = facts_of(made, tmp_path / "work")
    assert facts.is_variable_fps

    def find(frames: Iterator[Any]) -> list[int]:
        return content_cuts(frames, kind="content", threshold=27)

    found = cuts_s(facts, tmp_path / "work", Limits(), find)
    assert found == [min(time for time in facts.times_s if time >= wanted - 1e-6) for wanted in (2.0, 3.4)]
    assert list((tmp_path / "work").iterdir()) == []


def frames_of(path: Path) -> list[str]:
    """The hash of every decoded frame, upright."""
    command = [str(find_ffmpeg()), "-v", "error", "-i", str(path), "-map", "0:v:0", "-f", "framemd5"]
    done = subprocess.run([*command, "-fps_mode", "passthrough", "-"], capture_output=True, text=True, check=True)
    return [line.split(",")[-1].strip() for line in done.stdout.splitlines() if not line.startswith("#")]


KINDS = {
    "mp4": ("-g", "25"),
    "mkv": ("-g", "25", "-bf", "3", "-preset", "veryfast", "-sc_threshold", "0"),
    "webm": ("-c:v", "libvpx-vp9", "-c:a", "libopus", "-g", "25", "-deadline", "realtime", "-cpu-used", "8"),
    "ts": ("-g", "25"),
    "avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start_s", "end_s"), [(1.0, 3.0), (1.4, 2.6)])
def test_a_segment_has_the_frames_of_its_part_and_what_is_heard_with_them(
    kind: str, start_s: float, end_s: float, tmp_path: Path
) -> None:
    source = film(tmp_path / f"film.{kind}", *KINDS[kind])
    facts = facts_of(source, tmp_path / "work")
    path, is_copy = cut(facts, start_s, end_s, tmp_path / "work", Limits(), crf=0)
    # One that begins with a key frame, in a container that is cut with certainty.
    assert is_copy == (start_s == 1.0 and kind in ("mp4", "mkv", "webm"))
    inside = [k for k, time_s in enumerate(facts.times_s) if start_s - 1e-6 <= time_s < end_s - 1e-6]
    whole = frames_of(source)
    assert frames_of(path) == whole[inside[0] : inside[-1] + 1]
    part = probe(path, tmp_path / "work", Limits())
    wanted = [facts.times_s[k] - facts.times_s[inside[0]] for k in inside]
    assert part.times_s == pytest.approx(wanted, abs=0.001)
    done = subprocess.run(
        [str(find_ffmpeg()), "-v", "error", "-i", str(path), "-ac", "1", "-ar", "16000", "-f", "f32le", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    heard = beeps_in(np.frombuffer(done.stdout, np.float32))
    # A beep begins at each second; the first of a segment has nothing before it.
    assert heard == [round(beep - start_s, 1) for beep in BEEPS_S if start_s < beep < end_s]


def test_a_turned_video_stays_upright_in_a_copy_and_when_it_is_coded_anew(tmp_path: Path) -> None:
    plain, turned = film(tmp_path / "plain.mp4", "-g", "25"), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", plain, "-c", "copy", turned)
    facts = facts_of(turned, tmp_path / "work")
    whole = frames_of(turned)
    for start_s, end_s in ((1.0, 3.0), (1.4, 2.6)):
        path, is_copy = cut(facts, start_s, end_s, tmp_path / "work", Limits(), crf=0)
        assert is_copy == (start_s == 1.0)
        assert frames_of(path) == whole[round(25 * start_s) : round(25 * end_s)]
        path.unlink()


def test_a_segment_without_frames_is_refused(tmp_path: Path) -> None:
    facts = facts_of(film(tmp_path / "film.mp4", length_s=1.0), tmp_path / "work")
    with pytest.raises(ClipError, match=r"no frame between 5 and 6 s"):
        cut(facts, 5.0, 6.0, tmp_path / "work", Limits())
