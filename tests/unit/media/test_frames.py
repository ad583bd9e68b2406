"""Stored frames and their times are those of the source, whatever its codec, container, rate, rotation and clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.media.numbered import (
    FRAMES,
    HEIGHT,
    UNEVEN,
    WIDTH,
    X264,
    Case,
    check_frames,
    ffmpeg,
    make,
    number_of,
    process,
    steady,
    uneven,
)
from vidal.errors import ClipError
from vidal.media.limits import Limits
from vidal.media.probe import probe

CASES = [
    Case("plain.mp4", X264),
    Case("b-frames.mp4", "-c:v libx264 -preset fast -bf 3 -pix_fmt yuv420p"),
    Case("b-frames.mkv", "-c:v libx264 -preset fast -bf 3 -pix_fmt yuv420p", tolerance_s=1e-3),
    Case("b-frames.ts", "-c:v libx264 -preset fast -bf 3 -pix_fmt yuv420p", tolerance_s=2e-5),
    Case("b-frames.flv", "-c:v libx264 -preset fast -bf 3 -pix_fmt yuv420p", tolerance_s=1e-3),
    Case("plain.avi", "-c:v mpeg4 -q:v 3"),
    Case("plain.mpg", "-c:v mpeg2video -q:v 3 -bf 2", tolerance_s=2e-5),
    Case("plain.webm", "-c:v libvpx -deadline realtime -b:v 1M", tolerance_s=1e-3),
    Case("vp9.webm", "-c:v libvpx-vp9 -deadline realtime -b:v 1M", tolerance_s=1e-3),
    Case("uneven.mp4", f"-vf {UNEVEN} -fps_mode vfr -enc_time_base 1/9000 {X264}", uneven, 40,
         expect=(("is_variable_fps", True),)),
    Case("uneven.mkv", f"-vf {UNEVEN} -fps_mode vfr -enc_time_base 1/9000 -bf 2 {X264}", uneven, 40, tolerance_s=1e-3),
    Case("fast.mp4", X264, steady(60), 60, frames=60),
    Case("faster.mp4", X264, steady(50), 50),
    Case("interlaced.mp4", f"{X264} -flags +ildct+ilme -x264-params tff=1"),
    Case("odd.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv444p", width=161, height=97),
    Case("ten-bit.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"),
    Case("hdr.mp4", "-vf setparams=color_trc=smpte2084:colorspace=bt2020nc:color_primaries=bt2020 "
         "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le", expect=(("is_hdr", True),)),
    Case("hevc.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=error -pix_fmt yuv420p"),
    Case("wide-pixels.mp4", f"-vf setsar=2/1 {X264}", expect=(("width", 320), ("height", 96))),
    Case("two-frames.mp4", X264, frames=2),
    Case("three-frames.mp4", X264, frames=3),
    Case("late.ts", f"{X264} -output_ts_offset 5000", tolerance_s=2e-5),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stored_frame_shows_the_instant_that_frame_times_says(case: Case, tmp_path: Path) -> None:
    clip = process(make(case, tmp_path), tmp_path)
    check_frames(clip, case)
    assert clip.corrupt_frames == 0 and clip.has_audio is False and clip.work.member("audio", "flac") is None
    assert clip.frame_width is not None and clip.frame_width % 2 == 0 and clip.frame_height % 2 == 0  # type: ignore[operator]
    for name, value in case.expect:
        assert getattr(clip, name) == value


def test_frames_are_those_on_display_at_the_centres_of_equal_segments(tmp_path: Path) -> None:
    clip = process(make(Case("centres.mp4", X264, frames=48), tmp_path), tmp_path)
    assert [number_of(p) for p in clip.work.frames()] == [3, 9, 15, 21, 27, 33, 39, 45]


@pytest.mark.parametrize(("degrees", "transpose"), [(90, 1), (270, 2), (180, None)])
def test_a_rotated_phone_clip_is_stored_upright(degrees: int, transpose: int | None, tmp_path: Path) -> None:
    case = Case(f"rotated-{degrees}.mp4", X264)
    plain = make(
        Case(f"flat-{degrees}.mp4", f"-vf {f'transpose={transpose}' if transpose else 'hflip,vflip'} {X264}"), tmp_path
    )
    # FFmpeg's option is counter-clockwise, the transpose filter above clockwise: together they cancel.
    ffmpeg("-display_rotation", str(degrees), "-i", plain, "-c", "copy", tmp_path / case.name)
    clip = process(tmp_path / case.name, tmp_path)
    check_frames(clip, case)
    assert clip.rotation_deg == (360 - degrees) % 360 and (clip.width, clip.height) == (WIDTH, HEIGHT)


def test_an_edit_list_moves_the_first_frame(tmp_path: Path) -> None:
    whole = make(Case("whole.mp4", "-c:v libx264 -preset fast -bf 2 -g 50 -pix_fmt yuv420p"), tmp_path)
    ffmpeg("-ss", "0.6", "-i", whole, "-c", "copy", tmp_path / "edited.mp4")
    clip = process(tmp_path / "edited.mp4", tmp_path)
    check_frames(clip, Case("edited.mp4", "", first=15))
    assert clip.duration_s == pytest.approx((FRAMES - 15) / 25, abs=1e-3)


def test_cover_art_is_not_the_video(tmp_path: Path) -> None:
    case = Case("film.mp4", X264)
    film, cover = make(case, tmp_path), tmp_path / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=1000x1000", "-frames:v", "1", cover)
    art = ("-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", cover, "-i", film, "-map", "0", "-map", "1", *art, tmp_path / "covered.mp4")
    check_frames(process(tmp_path / "covered.mp4", tmp_path), case)
    tone = ("-f", "lavfi", "-i", "sine=d=1")
    ffmpeg("-i", cover, *tone, "-map", "0", "-map", "1", "-c:v", "copy", *art[2:], tmp_path / "song.m4a")
    with pytest.raises(ClipError, match="no_video"):
        process(tmp_path / "song.m4a", tmp_path)


def test_every_frame_of_the_stored_video_is_at_its_true_time(tmp_path: Path) -> None:
    clip = process(
        make(
            Case("uneven-again.mp4", f"-vf {UNEVEN} -fps_mode vfr -enc_time_base 1/9000 {X264}", uneven, 40), tmp_path
        ),
        tmp_path,
    )
    member = clip.work.member("video", "mp4")
    assert member is not None
    stored = tmp_path / "stored.mp4"
    stored.write_bytes(member.data)
    facts = probe(stored, tmp_path, Limits())
    pixels = ffmpeg("-i", stored, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    stored_frames = np.frombuffer(pixels, np.uint8).reshape(-1, clip.frame_height or 0, clip.frame_width or 0)
    numbers = [number_of(frame) for frame in stored_frames]
    assert numbers == list(range(FRAMES))
    assert facts.times_s == pytest.approx([uneven(n) for n in numbers], abs=1e-3)
    assert member.data.index(b"moov") < member.data.index(b"mdat")
