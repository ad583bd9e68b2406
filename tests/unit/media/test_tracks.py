"""Which track of a source is the clip, what is no clip at all, and what the record says of it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.films import BEEPS_S, audio_of, beeps_in, ffmpeg, film, process
from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.media.limits import Limits
from vidal.media.probe import probe
from vidal.stages.probe import Probe

CASES = Path(__file__).parent / "cases"
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
MOVING, STILL = "testsrc=s=320x192:r=25:d={}", "color=red:s=64x64:r=25:d=0.04"


def probed(path: Path, folder: Path, **settings: object) -> Clip:
    folder.mkdir(exist_ok=True)
    clip = Clip(clip_id="film", url=str(path))
    clip.work.folder, clip.work.source_path = folder, path
    Probe(**settings).process(clip)  # type: ignore[arg-type]
    return clip


def test_the_audio_track_flagged_default_is_heard(tmp_path: Path) -> None:
    clip = process(CASES / "two-tracks-default-second.mkv", tmp_path)
    assert beeps_in(audio_of(clip)) == pytest.approx(BEEPS_S)
    assert (clip.audio_tracks, clip.audio_track, clip.video_tracks, clip.video_track) == (2, 1, 1, 0)


def test_a_thumbnail_track_is_not_the_film(tmp_path: Path) -> None:
    clip = process(CASES / "thumbnail-track-first.mp4", tmp_path)
    assert (clip.video_tracks, clip.video_track, clip.video_codec, clip.width) == (2, 1, "h264", 320)
    assert clip.duration_s == pytest.approx(4.0) and clip.frame_count == 100


RULES = [
    # name, tracks as (source, flagged default), number of the one that is taken
    ("the first among equals", [(MOVING.format(2), False), (MOVING.format(2), False)], 0),
    ("the longest", [(MOVING.format(1), False), (MOVING.format(2), False)], 1),
    ("the flagged one before the longest", [(MOVING.format(2), False), (MOVING.format(1), True)], 1),
    ("a film before a flagged still", [(STILL, True), (MOVING.format(1), False)], 1),
]


@pytest.mark.parametrize(("name", "tracks", "taken"), RULES, ids=[rule[0] for rule in RULES])
def test_the_video_track_is(name: str, tracks: list[tuple[str, bool]], taken: int, tmp_path: Path) -> None:
    inputs = [part for source, _ in tracks for part in ("-f", "lavfi", "-i", source)]
    maps = [part for number, _ in enumerate(tracks) for part in ("-map", str(number))]
    flags = [part for n, (_, flag) in enumerate(tracks) for part in (f"-disposition:v:{n}", "default" if flag else "0")]
    ffmpeg(*inputs, *maps, *X264, *flags, "-default_mode", "passthrough", tmp_path / "film.mkv")
    clip = probed(tmp_path / "film.mkv", tmp_path / "work")
    assert (clip.video_tracks, clip.video_track) == (len(tracks), taken)


def test_audio_that_cannot_be_decoded_is_taken_only_where_there_is_no_other(tmp_path: Path) -> None:
    both = ("-map", "0:v", "-map", "1:a", "-map", "1:a", "-c:a:0", "tta", "-c:a:1", "aac")
    film(tmp_path / "both.mkv", *both, "-disposition:a:0", "default", "-disposition:a:1", "0")
    clip = probed(tmp_path / "both.mkv", tmp_path / "work")
    assert (clip.audio_tracks, clip.audio_track, clip.audio_codec) == (2, 1, "aac")
    film(tmp_path / "one.mkv", "-c:a", "tta")
    clip = probed(tmp_path / "one.mkv", tmp_path / "work")
    assert (clip.audio_tracks, clip.audio_track, clip.audio_codec) == (1, 0, "tta")


@pytest.mark.parametrize(
    ("tag", "language"),
    [("deu", "deu"), ("pt-BR", "pt-BR"), ("und", None), ("x\n[STREAM]\nlanguage=eng", None), ("<b>", None)],
)
def test_the_language_of_the_audio_is_its_own_tag(tag: str, language: str | None, tmp_path: Path) -> None:
    film(tmp_path / "film.mkv", "-metadata:s:a", f"language={tag}", "-metadata:s:v", "title=x\n[STREAM]\nlanguage=fra")
    assert probed(tmp_path / "film.mkv", tmp_path / "work").audio_language == language


STILLS = ["one-frame-8s-sound.mp4", "one.mp4", "one.gif", "short.mp4", "one.png", "one.jpg", "one.webp"]


def still(name: str, folder: Path) -> Path:
    if (CASES / name).exists():
        return CASES / name
    path = folder / name
    if name == "short.mp4":
        ffmpeg("-f", "lavfi", "-i", MOVING.format(0.2), "-f", "lavfi", "-i", "sine=d=8", *X264, path)
    else:
        ffmpeg("-f", "lavfi", "-i", STILL, "-frames:v", "1", path)
    return path


@pytest.mark.parametrize("name", STILLS)
def test_a_still_image_is_rejected_by_that_name(name: str, tmp_path: Path) -> None:
    clip = probed(still(name, tmp_path), tmp_path / "work")
    assert (clip.status, clip.reason) == ("rejected", "still_image")
    if name == "short.mp4":
        assert clip.decided_value == pytest.approx(0.2 / 8, abs=1e-3) and clip.decided_limit == 0.1


def test_a_recipe_sets_how_short_a_video_may_be(tmp_path: Path) -> None:
    path = still("short.mp4", tmp_path)
    assert probed(path, tmp_path / "work", min_picture_share=0.02).is_open


@pytest.mark.parametrize("ending", ["gif", "apng", "webp"])
def test_a_moving_image_is_a_clip(ending: str, tmp_path: Path) -> None:
    path = CASES / "animated.gif"
    if ending != "gif":
        ffmpeg(
            "-i", path, *(["-plays", "0"] if ending == "apng" else ["-c:v", "libwebp_anim"]), tmp_path / f"a.{ending}"
        )
        path = tmp_path / f"a.{ending}"
    clip = process(path, tmp_path)
    assert (clip.frame_count, clip.width, clip.height, clip.has_audio) == (20, 96, 64, False)
    assert clip.duration_s == pytest.approx(2.0, abs=0.01)


def test_a_playlist_is_an_unsupported_container(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ClipError, match="unsupported_container"):
        probe(tmp_path / "list.m3u8", tmp_path, Limits())


@pytest.mark.parametrize("ending", ["mp4", "mp3", "wav", "flac", "ogg", "m4a", "aac"])
def test_audio_alone_is_described(ending: str, tmp_path: Path) -> None:
    path = CASES / "only-sound.mp4"
    if ending != "mp4":
        ffmpeg("-f", "lavfi", "-i", "sine=d=4", tmp_path / f"audio.{ending}")
        path = tmp_path / f"audio.{ending}"
    clip = probed(path, tmp_path / "work")
    assert clip.is_open and clip.has_audio and clip.duration_s == pytest.approx(4.0, abs=0.05)
    assert (clip.width, clip.height, clip.fps, clip.frame_count, clip.video_track) == (None,) * 5
    assert (clip.video_tracks, clip.audio_tracks, clip.audio_track, clip.audio_start_s) == (0, 1, 0, 0.0)


MATRICES = [
    # clockwise a, b, c, d of the display matrix, rotation, whether the sides change places
    ((1, 0, 0, 1), 0, False),
    ((-1, 0, 0, 1), 0, False),
    ((0, 1, -1, 0), 90, True),
    ((-1, 0, 0, -1), 180, False),
    ((0, -1, 1, 0), 270, True),
    ((0, -1, -1, 0), 90, True),
]


@pytest.mark.parametrize(("matrix", "rotation", "turned"), MATRICES, ids=str)
def test_rotation_is_what_the_display_matrix_says(
    matrix: tuple[int, int, int, int], rotation: int, turned: bool, tmp_path: Path
) -> None:
    data = bytearray(film(tmp_path / "plain.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (65536 * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    clip = process(tmp_path / "turned.mp4", tmp_path)
    assert clip.rotation_deg == rotation
    assert ((clip.width or 0) < (clip.height or 0)) is turned
    plain, shown = (one.work.frames()[0].astype(float) for one in (process(tmp_path / "plain.mp4", tmp_path), clip))
    # The pixel at (x, y) of the source, counted from the centre, is shown at (ax + cy, bx + dy).
    a, b, c, d = matrix
    expected = plain[::, :: a or 1][:: d or 1] if not turned else plain.transpose(1, 0, 2)[:: b or 1, :: c or 1]
    assert np.abs(shown - expected).mean() < 4


def test_a_mirrored_clip_has_no_rotation(tmp_path: Path) -> None:
    assert process(CASES / "hflip-only.mp4", tmp_path).rotation_deg == 0


def test_a_video_of_one_line_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="too_small: 257x1"):
        probe(CASES / "size-257x1.mp4", tmp_path, Limits())


def test_a_video_without_a_key_frame_is_undecodable(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="undecodable: no key frame"):
        probe(samples / "broken-bits.mp4", tmp_path, Limits())


def test_a_film_whose_title_speaks_of_a_partial_file_is_kept(tmp_path: Path) -> None:
    assert process(CASES / "title-says-partial-file.mp4", tmp_path).frame_count == 100
