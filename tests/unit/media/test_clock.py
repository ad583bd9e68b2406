"""A clock that restarts or leaps is spliced, so that every frame and sample is where it is seen and heard; else named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.films import BEEPS_S, audio_of, beeps_in, ffmpeg, film, process
from vidal.clip import Clip
from vidal.media.limits import Limits
from vidal.media.probe import probe
from vidal.stages.keep_source import KeepSource
from vidal.stages.probe import Probe

CASES = Path(__file__).parent / "cases"
JOINED = ["ts-joined-reset.ts", "ts-joined-jump.ts"]


@pytest.mark.parametrize("name", JOINED)
def test_halves_joined_over_a_jump_are_one_film(name: str, tmp_path: Path) -> None:
    clip = process(CASES / name, tmp_path)
    assert (clip.clock_jumps, clip.frame_count, clip.container) == (1, 100, "mpegts")
    assert clip.duration_s == pytest.approx(4.0, abs=0.05)
    assert clip.frame_times == pytest.approx([0.24, 0.72, 1.24, 1.72, 2.24, 2.72, 3.24, 3.72], abs=0.03)
    facts = probe(CASES / name, tmp_path, Limits())
    assert facts.times_s == pytest.approx([n / 25 for n in range(100)], abs=0.03)
    assert beeps_in(audio_of(clip)) == pytest.approx(BEEPS_S, abs=0.05)


@pytest.mark.parametrize("offsets", [(0, 100, 3), (50, 0, 50), (9.0, 0.5, 30)], ids=str)
def test_what_a_downloader_leaves_of_a_playlist_with_discontinuities_is_one_film(
    offsets: tuple[float, ...], tmp_path: Path
) -> None:
    parts = []
    for number, offset in enumerate(offsets):
        part = tmp_path / f"{number}.ts"
        film(part, "-output_ts_offset", str(offset), "-c:v", "libx264", "-bf", "2", "-c:a", "aac", length_s=2.0)
        parts.append(part.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    clip = process(tmp_path / "joined.ts", tmp_path)
    assert clip.clock_jumps == 2 and clip.frame_count == 150
    assert clip.duration_s == pytest.approx(6.0, abs=0.15)
    assert beeps_in(audio_of(clip)) == pytest.approx([1.0, 3.0, 5.0], abs=0.15)


def test_the_source_is_kept_as_it_came(tmp_path: Path) -> None:
    clip = Clip(clip_id="film", url="x")
    clip.work.folder, clip.work.source_path = tmp_path, tmp_path / "source"
    clip.work.source_path.write_bytes((CASES / JOINED[0]).read_bytes())
    for stage in (Probe(), KeepSource()):
        stage.process(clip)
    assert clip.work.members[0].data == (CASES / JOINED[0]).read_bytes()


def test_a_held_frame_is_no_jump(tmp_path: Path) -> None:
    slow = ("-vf", "setpts=N*15/TB", "-fps_mode", "vfr", "-c:v", "libx264", "-frames:v", "3", "-an")
    film(tmp_path / "held.mkv", *slow)
    facts = probe(tmp_path / "held.mkv", tmp_path, Limits())
    assert facts.clock_jumps == 0 and facts.times_s == pytest.approx([0, 15, 30], abs=0.01)


def test_a_clock_that_goes_back_where_none_may_is_rejected(tmp_path: Path) -> None:
    first, second = (film(tmp_path / f"{n}.flv", "-c:v", "flv", "-c:a", "mp3", "-ar", "44100") for n in "ab")
    # Header and first back pointer of the second file are 13 bytes.
    (tmp_path / "joined.flv").write_bytes(first.read_bytes() + second.read_bytes()[13:])
    clip = Clip(clip_id="film", url="x")
    clip.work.folder, clip.work.source_path = tmp_path, tmp_path / "joined.flv"
    Probe().process(clip)
    assert (clip.status, clip.reason) == ("rejected", "broken_clock")


def test_a_steady_clock_is_left_alone(tmp_path: Path) -> None:
    film(tmp_path / "film.ts", "-c:v", "libx264", "-bf", "3", "-output_ts_offset", "5000")
    ffmpeg("-i", tmp_path / "film.ts", "-c", "copy", tmp_path / "film.mpg")
    for name in ("film.ts", "film.mpg"):
        facts = probe(tmp_path / name, tmp_path, Limits())
        assert facts.clock_jumps == 0 and facts.path == tmp_path / name
