"""The media stages against clips whose every frame says its own number and whose audio clicks at a known instant."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.media.ffmpeg import find_ffmpeg
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts, probe
from vidal.stages.fetch import Fetch
from vidal.stages.media import Media
from vidal.stages.probe import Probe

WIDTH, HEIGHT, BITS = 320, 192, 6
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
    Case("odd.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv444p", width=321, height=193),
    Case("ten-bit.mp4", "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le"),
    Case("hdr.mp4", "-vf setparams=color_trc=smpte2084:colorspace=bt2020nc:color_primaries=bt2020 "
         "-c:v libx264 -preset ultrafast -pix_fmt yuv420p10le", expect=(("is_hdr", True),)),
    Case("hevc.mp4", "-c:v libx265 -preset ultrafast -x265-params log-level=error -pix_fmt yuv420p"),
    Case("wide-pixels.mp4", f"-vf setsar=2/1 {X264}", expect=(("width", 640), ("height", 192))),
    Case("two-frames.mp4", X264, frames=2),
    Case("three-frames.mp4", X264, frames=3),
    Case("late.ts", f"{X264} -output_ts_offset 5000", tolerance_s=2e-5),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stored_frame_shows_the_instant_that_frame_times_says(case: Case, folder: Path) -> None:
    clip = process(make(case, folder), folder)
    check_frames(clip, case)
    assert clip.corrupt_frames == 0 and clip.has_audio is False and clip.work.member("audio", "flac") is None
    assert clip.frame_width is not None and clip.frame_width % 2 == 0 and clip.frame_height % 2 == 0  # type: ignore[operator]
    for name, value in case.expect:
        assert getattr(clip, name) == value


def test_frames_are_those_on_display_at_the_centres_of_equal_segments(folder: Path) -> None:
    clip = process(make(Case("centres.mp4", X264, frames=48), folder), folder)
    assert [number_of(p) for p in clip.work.frames()] == [3, 9, 15, 21, 27, 33, 39, 45]


@pytest.mark.parametrize(("degrees", "transpose"), [(90, 1), (270, 2), (180, None)])
def test_a_rotated_phone_clip_is_stored_upright(degrees: int, transpose: int | None, folder: Path) -> None:
    case = Case(f"rotated-{degrees}.mp4", X264)
    plain = make(
        Case(f"flat-{degrees}.mp4", f"-vf {f'transpose={transpose}' if transpose else 'hflip,vflip'} {X264}"), folder
    )
    # FFmpeg's option is counter-clockwise, the transpose filter above clockwise: together they cancel.
    ffmpeg("-display_rotation", str(degrees), "-i", plain, "-c", "copy", folder / case.name)
    clip = process(folder / case.name, folder)
    check_frames(clip, case)
    assert clip.rotation_deg == (360 - degrees) % 360 and (clip.width, clip.height) == (WIDTH, HEIGHT)


def test_an_edit_list_moves_the_first_frame(folder: Path) -> None:
    whole = make(Case("whole.mp4", "-c:v libx264 -preset fast -bf 2 -g 50 -pix_fmt yuv420p"), folder)
    ffmpeg("-ss", "0.6", "-i", whole, "-c", "copy", folder / "edited.mp4")
    clip = process(folder / "edited.mp4", folder)
    check_frames(clip, Case("edited.mp4", "", first=15))
    assert clip.duration_s == pytest.approx((FRAMES - 15) / 25, abs=1e-3)


def test_cover_art_is_not_the_video(folder: Path) -> None:
    case = Case("film.mp4", X264)
    film, cover = make(case, folder), folder / "cover.png"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=1000x1000", "-frames:v", "1", cover)
    art = ("-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", cover, "-i", film, "-map", "0", "-map", "1", *art, folder / "covered.mp4")
    check_frames(process(folder / "covered.mp4", folder), case)
    tone = ("-f", "lavfi", "-i", "sine=d=1")
    ffmpeg("-i", cover, *tone, "-map", "0", "-map", "1", "-c:v", "copy", *art[2:], folder / "song.m4a")
    with pytest.raises(ClipError, match="no_video"):
        process(folder / "song.m4a", folder)


def test_every_frame_of_the_stored_video_is_at_its_true_time(folder: Path, tmp_path: Path) -> None:
    clip = process(
        make(Case("uneven-again.mp4", f"-vf {UNEVEN} -fps_mode vfr -enc_time_base 1/9000 {X264}", uneven, 40), folder),
        folder,
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


def test_the_stored_video_has_a_key_frame_each_second_and_at_most_30_frames_a_second(
    folder: Path, tmp_path: Path
) -> None:
    source = folder / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=60:d=4", *X264.split(), "-g", "500", source)
    clip = process(source, folder)
    member = clip.work.member("video", "mp4")
    assert member is not None and (clip.frame_width, clip.frame_height) == (456, 256)
    (tmp_path / "stored.mp4").write_bytes(member.data)
    shown = ffmpeg(
        "-skip_frame", "nokey", "-i", tmp_path / "stored.mp4", "-fps_mode", "passthrough", "-f", "framecrc", "-"
    )
    keys = [int(line.split(b",")[2]) for line in shown.splitlines() if not line.startswith(b"#")]
    base = next(line for line in shown.splitlines() if line.startswith(b"#tb 0")).split(b"/")[1]
    assert [key / int(base) for key in keys] == [0, 1, 2, 3]
    assert len(probe(tmp_path / "stored.mp4", tmp_path, Limits()).frame_ticks) == 120


def click_track(seconds: float, click_s: float, rate: int = 44_100) -> bytes:
    samples = np.zeros(int(seconds * rate), np.float32)
    samples[int(click_s * rate) : int(click_s * rate) + 20] = 0.9
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


CLICK_TRACKS = [
    # name, offset of the audio against the video, its length, where it clicks, where that is in the time of the video
    ("together", 0.0, 2.0, 1.2, 1.2),
    ("late", 0.37, 1.5, 0.9, 1.27),
    ("early", -0.52, 2.5, 1.4, 0.88),
    ("short", 0.0, 0.7, 0.3, 0.3),
    ("long", 0.0, 6.0, 1.9, 1.9),
]


CONTAINERS = {"mkv": "flac", "webm": "libopus", "ts": "mp2", "flv": "aac", "mov": "pcm_s16le"}
CLICKS = [
    *((*track, "mp4", "aac") for track in CLICK_TRACKS),
    *((*CLICK_TRACKS[i], *c) for c in CONTAINERS.items() for i in (1, 2)),
]


@pytest.mark.parametrize(
    ("name", "offset", "length", "click", "expected", "ending", "codec"), CLICKS, ids=[f"{c[0]}-{c[5]}" for c in CLICKS]
)
def test_a_click_is_where_the_video_has_it(
    name: str, offset: float, length: float, click: float, expected: float, ending: str, codec: str, folder: Path
) -> None:
    encoder = "libvpx -deadline realtime -cpu-used 8" if ending == "webm" else "libx264 -preset ultrafast"
    wav, path = folder / f"{name}.wav", folder / f"{name}-{codec}.{ending}"
    wav.write_bytes(click_track(length, click))
    options, data = raw(Case(path.name, ""))
    early, late = str(max(0.0, -offset)), str(max(0.0, offset))
    codecs = ("-c:v", *encoder.split(), "-pix_fmt", "yuv420p", "-c:a", codec)
    ffmpeg("-itsoffset", early, *options, "-itsoffset", late, "-i", wav, *codecs, path, data=data)
    clip = process(path, folder)
    audio = clip.work.audio()
    assert audio is not None and clip.has_audio and clip.duration_s is not None
    assert abs(len(audio) - clip.duration_s * 16_000) <= 1 and clip.duration_s == pytest.approx(2.0, abs=2e-3)
    assert int(np.abs(audio).argmax()) / 16_000 == pytest.approx(expected, abs=0.005)
    assert clip.audio_start_s == pytest.approx(offset, abs=0.03)


def test_a_gap_in_the_audio_is_silence_of_its_length(folder: Path) -> None:
    path = folder / "gap.mkv"
    (folder / "gap.wav").write_bytes(click_track(2.0, 1.5))
    options, data = raw(Case(path.name, ""))
    gap = ("-af", "aselect='not(between(t,0.4,0.9))'", "-c:a", "pcm_s16le")
    ffmpeg(*options, "-i", folder / "gap.wav", *X264.split(), *gap, path, data=data)
    audio = process(path, folder).work.audio()
    assert audio is not None and len(audio) == 32_000
    assert int(np.abs(audio).argmax()) / 16_000 == pytest.approx(1.5, abs=0.005)


def test_measurements_say_what_is_in_the_frames(folder: Path) -> None:
    scenes = "color=black:s=320x192:r=25:d=2[a];testsrc2=s=320x192:r=25:d=2[b];[a][b]concat"
    tone = "sine=f=440:d=4,volume='if(lt(t,2),0,1)':eval=frame"
    ffmpeg("-f", "lavfi", "-i", scenes, "-f", "lavfi", "-i", tone, *X264.split(), "-c:a", "aac", folder / "scenes.mp4")
    clip = process(folder / "scenes.mp4", folder)
    assert clip.black_share == pytest.approx(0.5, abs=0.06)
    assert clip.freeze_share == pytest.approx(0.5, abs=0.06)
    assert clip.silence_share == pytest.approx(0.5, abs=0.06)
    assert clip.scene_changes == 1
    assert clip.luma_mean == pytest.approx(0.25, abs=0.03)
    assert clip.motion is not None and clip.motion > 1
    assert clip.loudness_lufs == pytest.approx(-22, abs=2)
    assert clip.media_model is not None and clip.media_model.startswith("ffmpeg ")


def test_a_repost_has_nearly_the_same_audio_fingerprint(folder: Path) -> None:
    chirp = "aevalsrc='0.4*sin(2*PI*(300+200*t)*t)*(1+sin(7*t))/2':d=8"
    for name, options in (("one.mp4", "-c:a aac -b:a 128k"), ("two.mkv", "-c:a libopus -b:a 48k")):
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=160x120:r=10:d=8",
            "-f",
            "lavfi",
            "-i",
            chirp,
            *X264.split(),
            *options.split(),
            folder / name,
        )
    one, two = (
        np.array(process(folder / name, folder).audio_fingerprint, np.uint32) for name in ("one.mp4", "two.mkv")
    )
    assert len(one) == len(two) > 20
    assert np.bitwise_count(one ^ two).mean() < 4


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    source = folder / "again.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=30:d=2", "-f", "lavfi", "-i", "sine=d=2", *X264.split(), source)
    first, second = process(source, folder), process(source, folder)
    assert first.work.members == second.work.members and len(first.work.members) == 10
    assert first == second


def test_probe_reads_no_text_of_the_author(folder: Path) -> None:
    lie = "x\n[Parsed_showinfo_0 @ 0x1] [info] color_trc:smpte2084\n[info] Input #0, evil, from 'x'"
    path = folder / "liar.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=160x120:d=1",
        *X264.split(),
        "-metadata",
        f"title={lie}",
        "-metadata:s:v",
        f"language={lie}",
        path,
    )
    facts = probe(path, folder, Limits())
    assert isinstance(facts, SourceFacts)
    assert (facts.is_hdr, facts.container) == (False, "matroska,webm")
