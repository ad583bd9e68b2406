"""What a platform and a file's headers state is kept beside what is found, and a difference that matters is damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.films import film
from vidal.clip import Clip, Statement
from vidal.stages.probe import Probe

CASES = Path(__file__).parent / "cases"


def probed(path: Path, folder: Path, **known: object) -> Clip:
    clip = Clip(clip_id="film", url=str(path), **known)  # type: ignore[arg-type]
    clip.work.folder, clip.work.source_path = folder, path
    Probe().process(clip)
    return clip


def cut(path: Path, share: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def test_a_header_that_states_more_than_there_is(tmp_path: Path) -> None:
    clip = probed(CASES / "cut-60.flv", tmp_path)
    assert (clip.duration_s, clip.stated_duration_s) == (pytest.approx(2.2), pytest.approx(4.0, abs=0.03))
    assert clip.damage == ["shorter_than_stated"]
    assert Statement(by="video", width=320, height=192) in clip.stated
    assert [s.has_audio for s in clip.stated if s.by == "container"] == [True]


def test_so_does_that_of_an_avi(tmp_path: Path) -> None:
    clip = probed(cut(film(tmp_path / "film.avi", "-c:v", "mpeg4", "-c:a", "mp3")), tmp_path)
    assert clip.stated_duration_s == pytest.approx(4.0, abs=0.05)
    assert (clip.duration_s or 9) < 3 and "shorter_than_stated" in clip.damage


PAGES = [
    # length and size that the page states of a film of 4 s in 160x96, words of damage
    ((4.0, None, None), []),
    ((4.9, None, None), []),
    ((5.1, None, None), ["shorter_than_stated"]),
    ((3.1, None, None), []),
    ((2.9, None, None), ["longer_than_stated"]),
    ((4.0, 160, 96), []),
    ((4.0, 96, 160), []),
    ((4.0, 160, 97), []),
    ((4.0, 640, 384), ["size_differs"]),
    ((None, float("nan"), "320"), []),
]


@pytest.mark.parametrize(("page", "damage"), PAGES, ids=str)
def test_what_the_page_states_is_kept_and_held_against_what_is_found(
    page: tuple[float | None, object, object], damage: list[str], tmp_path: Path
) -> None:
    length, width, height = page
    extra = {"stated_width": width, "stated_height": height}
    clip = probed(film(tmp_path / "film.mp4"), tmp_path, duration_s=length, extra=extra)
    assert clip.damage == damage and clip.duration_s == pytest.approx(4.0)
    assert clip.stated_duration_s == (length or pytest.approx(4.0))
    stated = [s for s in clip.stated if s.by == "platform"]
    assert [s.duration_s for s in stated] == ([length] if length else [])


def test_a_page_s_length_outlives_a_second_try(tmp_path: Path) -> None:
    clip = probed(CASES / "cut-60.flv", tmp_path, duration_s=4.0)
    Probe().process(clip)
    assert (clip.stated[0].by, clip.stated[0].duration_s) == ("platform", 4.0)
    assert clip.stated_duration_s == 4.0 and clip.damage == ["shorter_than_stated"]


def test_the_tracks_of_matroska_state_their_lengths(tmp_path: Path) -> None:
    clip = probed(film(tmp_path / "film.mkv", "-metadata:s:v", "NUMBER_OF_FRAMES=100"), tmp_path)
    (video,) = (s for s in clip.stated if s.by == "video")
    assert (video.duration_s, video.frame_count) == (pytest.approx(4.0), 100)
    assert clip.damage == []


def test_audio_longer_than_the_video_is_no_damage(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", "-vf", "trim=end=2")
    clip = probed(tmp_path / "film.mp4", tmp_path)
    assert (clip.duration_s, clip.stated_duration_s) == (pytest.approx(2.0), pytest.approx(4.0, abs=0.05))
    assert clip.damage == []


@pytest.mark.parametrize(
    ("options", "stated_s"),
    [
        (("-metadata", "title=x\n[info]   Duration: 09:00:00.00, start: 0.0"), 4.0),
        # A key is printed as it stands: with two such lines nobody knows which is the container's.
        (("-movflags", "use_metadata_tags", "-metadata", "x\n[info]   Duration: 09:00:00.00, start: 0=y"), None),
    ],
    ids=["title", "key"],
)
def test_no_line_of_the_author_states_the_length(
    options: tuple[str, ...], stated_s: float | None, tmp_path: Path
) -> None:
    clip = probed(film(tmp_path / "film.mp4", *options), tmp_path)
    assert clip.stated_duration_s == (stated_s and pytest.approx(stated_s, abs=0.05))
    assert clip.damage == []


def test_a_header_of_audio_without_audio_is_damage(tmp_path: Path) -> None:
    film(tmp_path / "film.flv", "-c:v", "flv", "-an")
    data = bytearray((tmp_path / "film.flv").read_bytes())
    data[4] |= 4
    (tmp_path / "film.flv").write_bytes(data)
    assert probed(tmp_path / "film.flv", tmp_path).damage == ["audio_missing"]
