"""Audio is stored where the video has it, and measurements, fingerprints and bytes are what the source and the settings say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.unit.media.numbered import (
    X264,
    Case,
    ffmpeg,
    process,
    raw,
)
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts, probe


def test_the_stored_video_has_a_key_frame_each_second_and_at_most_30_frames_a_second(tmp_path: Path) -> None:
    source = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=60:d=3", *X264.split(), "-g", "500", source)
    clip = process(source, tmp_path)
    member = clip.work.member("video", "mp4")
    assert member is not None and (clip.frame_width, clip.frame_height) == (456, 256)
    (tmp_path / "stored.mp4").write_bytes(member.data)
    shown = ffmpeg(
        "-skip_frame", "nokey", "-i", tmp_path / "stored.mp4", "-fps_mode", "passthrough", "-f", "framecrc", "-"
    )
    keys = [int(line.split(b",")[2]) for line in shown.splitlines() if not line.startswith(b"#")]
    base = next(line for line in shown.splitlines() if line.startswith(b"#tb 0")).split(b"/")[1]
    assert [key / int(base) for key in keys] == [0, 1, 2]
    assert len(probe(tmp_path / "stored.mp4", tmp_path, Limits()).frame_ticks) == 90


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
    name: str, offset: float, length: float, click: float, expected: float, ending: str, codec: str, tmp_path: Path
) -> None:
    encoder = "libvpx -deadline realtime -cpu-used 8" if ending == "webm" else "libx264 -preset ultrafast"
    wav, path = tmp_path / f"{name}.wav", tmp_path / f"{name}-{codec}.{ending}"
    wav.write_bytes(click_track(length, click))
    options, data = raw(Case(path.name, ""))
    early, late = str(max(0.0, -offset)), str(max(0.0, offset))
    codecs = ("-c:v", *encoder.split(), "-pix_fmt", "yuv420p", "-c:a", codec)
    ffmpeg("-itsoffset", early, *options, "-itsoffset", late, "-i", wav, *codecs, path, data=data)
    clip = process(path, tmp_path)
    audio = clip.work.audio()
    assert audio is not None and clip.has_audio and clip.duration_s is not None
    assert abs(len(audio) - clip.duration_s * 16_000) <= 1 and clip.duration_s == pytest.approx(2.0, abs=2e-3)
    assert int(np.abs(audio).argmax()) / 16_000 == pytest.approx(expected, abs=0.005)
    assert clip.audio_start_s == pytest.approx(offset, abs=0.03)


def test_a_gap_in_the_audio_is_silence_of_its_length(tmp_path: Path) -> None:
    path = tmp_path / "gap.mkv"
    (tmp_path / "gap.wav").write_bytes(click_track(2.0, 1.5))
    options, data = raw(Case(path.name, ""))
    gap = ("-af", "aselect='not(between(t,0.4,0.9))'", "-c:a", "pcm_s16le")
    ffmpeg(*options, "-i", tmp_path / "gap.wav", *X264.split(), *gap, path, data=data)
    audio = process(path, tmp_path).work.audio()
    assert audio is not None and len(audio) == 32_000
    assert int(np.abs(audio).argmax()) / 16_000 == pytest.approx(1.5, abs=0.005)


def test_measurements_say_what_is_in_the_frames(tmp_path: Path) -> None:
    scenes = "color=black:s=320x192:r=25:d=2[a];testsrc2=s=320x192:r=25:d=2[b];[a][b]concat"
    tone = "sine=f=440:d=4,volume='if(lt(t,2),0,1)':eval=frame"
    ffmpeg(
        "-f", "lavfi", "-i", scenes, "-f", "lavfi", "-i", tone, *X264.split(), "-c:a", "aac", tmp_path / "scenes.mp4"
    )
    clip = process(tmp_path / "scenes.mp4", tmp_path)
    assert clip.black_share == pytest.approx(0.5, abs=0.06)
    assert clip.freeze_share == pytest.approx(0.5, abs=0.06)
    assert clip.silence_share == pytest.approx(0.5, abs=0.06)
    assert clip.scene_changes == 1
    assert clip.luma_mean == pytest.approx(0.25, abs=0.03)
    assert clip.motion is not None and clip.motion > 1
    assert clip.loudness_lufs == pytest.approx(-22, abs=2)
    assert clip.media_model is not None and clip.media_model.startswith("ffmpeg ")


def test_a_repost_has_nearly_the_same_audio_fingerprint(tmp_path: Path) -> None:
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
            tmp_path / name,
        )
    one, two = (
        np.array(process(tmp_path / name, tmp_path).audio_fingerprint, np.uint32) for name in ("one.mp4", "two.mkv")
    )
    assert len(one) == len(two) > 20
    assert np.bitwise_count(one ^ two).mean() < 4


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "again.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=30:d=2", "-f", "lavfi", "-i", "sine=d=2", *X264.split(), source)
    first, second = process(source, tmp_path), process(source, tmp_path)
    assert first.work.members == second.work.members and len(first.work.members) == 10
    assert first == second


def test_probe_reads_no_text_of_the_author(tmp_path: Path) -> None:
    lie = "x\n[Parsed_showinfo_0 @ 0x1] [info] color_trc:smpte2084\n[info] Input #0, evil, from 'x'"
    path = tmp_path / "liar.mkv"
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
    facts = probe(path, tmp_path, Limits())
    assert isinstance(facts, SourceFacts)
    assert (facts.is_hdr, facts.container) == (False, "matroska,webm")
