"""Damage is told from what the decoder did, for every codec, and never from what the file's author wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.films import ffmpeg, film, process

CASES = Path(__file__).parent / "cases"
FORGED = "[hevc @ 0x5581e4f6cd80] [error] Could not find ref\n[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x1] [warning] corrupt"


@pytest.mark.parametrize(
    ("codec", "ending"),
    [
        ("libx264", "mp4"),
        ("libvpx-vp9", "webm"),
        ("mpeg4", "mkv"),
        ("mpeg2video", "mkv"),
        ("mjpeg", "mkv"),
        ("libtheora", "mkv"),
        ("wmv2", "asf"),
    ],
)
def test_spoilt_packets_are_counted_and_whole_ones_are_not(codec: str, ending: str, tmp_path: Path) -> None:
    options = ("-an", "-c:v", codec, "-g", "25", *(("-cpu-used", "8") if codec == "libvpx-vp9" else ()))
    whole, spoilt = tmp_path / f"whole.{ending}", tmp_path / f"spoilt.{ending}"
    film(whole, *options, size="320x192", length_s=2)
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", "noise=amount='if(between(n,20,29),20,0)'", spoilt)
    sound = process(whole, tmp_path)
    assert (sound.corrupt_frames, sound.damage) == (0, [])
    clip = process(spoilt, tmp_path)
    assert clip.corrupt_frames is not None and 5 <= clip.corrupt_frames <= 40
    assert clip.damage == ["corrupt_frames"]


def test_slices_that_a_decoder_passes_over_with_a_warning_are_damage(tmp_path: Path) -> None:
    clip = process(CASES / "hevc-third-spoilt.mp4", tmp_path)
    assert clip.corrupt_frames is not None and 20 <= clip.corrupt_frames <= 40
    assert clip.damage == ["corrupt_frames"]


def test_what_a_title_says_is_no_damage(tmp_path: Path) -> None:
    title = f"How to fix a partial file download\n{FORGED}"
    clip = process(film(tmp_path / "film.mp4", "-metadata", f"title={title}"), tmp_path)
    assert (clip.status, clip.corrupt_frames, clip.corrupt_audio_share, clip.damage) == ("candidate", 0, 0.0, [])


def _flip_a_bit(whole: Path, path: Path) -> Path:
    """Of the packets, after the key frame's beginning."""
    data = bytearray(whole.read_bytes())
    data[data.index(b"mdat") + 3000] ^= 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "options",
    [
        ("-c:v", "libvpx-vp9", "-cpu-used", "8"),
        ("-c:v", "libaom-av1", "-cpu-used", "8"),
        # The only checksum of HEVC is one that few encoders store.
        ("-c:v", "libx265", "-x265-params", "log-level=error:hash=1"),
    ],
    ids=["vp9", "av1", "hevc"],
)
def test_a_bit_that_decodes_is_damage_if_packet_or_checksum_ends_otherwise(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    whole = film(tmp_path / "whole.mp4", "-an", *options, size="320x192", length_s=1)
    sound = process(whole, tmp_path)
    assert (sound.corrupt_frames, sound.damage) == (0, [])
    clip = process(_flip_a_bit(whole, tmp_path / "flipped.mp4"), tmp_path)
    # What is refused is decoded all the same, for the stored images.
    assert clip.corrupt_frames and len(clip.work.members) == 9
    assert clip.damage == ["corrupt_frames"]


@pytest.mark.parametrize(
    "options",
    [
        ("-pix_fmt", "yuv420p10le", "-profile:v", "2"),
        ("-pix_fmt", "yuv444p", "-profile:v", "1"),
        ("-pix_fmt", "yuva420p", "-auto-alt-ref", "0"),
    ],
    ids=["ten bits", "full chroma", "transparent"],
)
def test_strange_vp9_is_no_damage(options: tuple[str, ...], tmp_path: Path) -> None:
    path = film(tmp_path / "film.webm", "-an", "-c:v", "libvpx-vp9", "-cpu-used", "8", *options, length_s=1)
    clip = process(path, tmp_path)
    assert (clip.corrupt_frames, clip.damage) == (0, [])


def test_what_a_demuxer_cannot_read_is_damage(tmp_path: Path) -> None:
    path = film(tmp_path / "film.webm", "-an", "-c:v", "libvpx", "-cpu-used", "8", length_s=2)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xa3", len(data) // 2)
    data[at : at + 2000] = bytes(2000)
    path.write_bytes(data)
    assert "container_errors" in process(path, tmp_path).damage


@pytest.mark.parametrize(
    ("dropped", "damage"),
    [
        ("eq(n,30)", ["missing_frames"]),
        ("between(n,30,40)", ["missing_frames"]),
        # As screen recorders and phones write it.
        ("eq(mod(n,5),3)", []),
        ("gt(n,50)", []),
    ],
)
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_gaps_in_a_constant_frame_rate_are_missing_frames(
    dropped: str, damage: list[str], ending: str, tmp_path: Path
) -> None:
    options = ("-an", "-c:v", "mjpeg", "-r", "30000/1001")
    whole = film(tmp_path / f"whole.{ending}", *options)
    path = tmp_path / f"gaps.{ending}"
    ffmpeg("-i", whole, "-c", "copy", "-bsf:v", f"noise=drop='{dropped}'", path)
    assert process(whole, tmp_path).damage == []
    assert process(path, tmp_path).damage == damage


@pytest.mark.parametrize(("second", "damage"), [("160x96", []), ("96x160", ["frame_size_changes"])])
def test_a_change_of_the_frame_size_is_noted(second: str, damage: list[str], tmp_path: Path) -> None:
    parts = [tmp_path / "0.ts", tmp_path / "1.ts"]
    for start, (part, size) in enumerate(zip(parts, ("160x96", second), strict=True)):
        film(part, "-an", "-bf", "0", "-output_ts_offset", str(2 * start), size=size, length_s=2)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = process(joined, tmp_path)
    assert (clip.duration_s, clip.damage) == (pytest.approx(4.0, abs=0.05), damage)
    assert (clip.frame_width, clip.frame_height) == (160, 96)
