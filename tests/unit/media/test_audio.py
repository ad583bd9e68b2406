"""The fate of a source's audio, which is its own: what is wrong with it does not cost the clip its video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.films import BEEP, BEEPS_S, audio_of, beeps_in, ffmpeg, film, process
from vidal.clip import Clip
from vidal.dataset import alignment

ANTIPHASE = f"{BEEP}|-{BEEP}:s=48000"
AAC = ("-c:a", "aac")


def mute(path: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x192:rate=25:duration=1", "-pix_fmt", "yuv420p", path)
    return path


def spoilt_audio(path: Path, share: float) -> Path:
    """An MP4 whose last packets of audio, this share of them, are noise."""
    film(path, *AAC, "-bsf:a", f"noise=amount='if(gte(n,{round(188 * (1 - share))}),1,0)'")
    return path


def changing_audio(path: Path) -> Path:
    """A transport stream joined of mono at 44.1 kHz and stereo at 48 kHz, two seconds each."""
    whole = film(path.with_suffix(".mkv"), "-c:a", "pcm_s16le", audio_source=f"{BEEP}|{BEEP}:s=48000")
    cuts = [("0", "-af", "pan=mono|c0=c0", "-ar", "44100"), ("2", "-ar", "48000")]
    parts = [path.with_name(f"part{k}.ts") for k in range(2)]
    for part, (start, *form) in zip(parts, cuts, strict=True):
        cut = ("-ss", start, "-t", "2", "-i", whole, "-output_ts_offset", start)
        ffmpeg(*cut, "-preset", "ultrafast", "-bf", "0", *AAC, *form, part)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(
    ("name", "make", "status", "reason"),
    [
        ("plain.mp4", lambda path: film(path, *AAC), "ok", None),
        ("mute.mp4", mute, "none", None),
        ("mulaw.mov", lambda path: film(path, "-c:a", "pcm_mulaw", "-ar", "8000"), "ok", None),
        ("tta.mkv", lambda path: film(path, "-c:a", "tta"), "left_out", "unsupported_codec"),
        ("changing.ts", changing_audio, "ok", None),
        ("tenth-spoilt.mp4", lambda path: spoilt_audio(path, 0.1), "damaged", "corrupt_packets"),
        ("mostly-spoilt.mp4", lambda path: spoilt_audio(path, 0.75), "left_out", "corrupt_packets"),
    ],
)
def test_the_video_is_kept_whatever_the_audio_is(
    name: str, make: Callable[[Path], Path], status: str, reason: str | None, tmp_path: Path
) -> None:
    clip = process(make(tmp_path / name), tmp_path)
    assert (clip.audio_status, clip.audio_reason) == (status, reason)
    assert len(clip.frame_times) == 8
    assert clip.work.member("video", "mp4") is not None
    alignment.check(clip)
    has_audio = status in ("ok", "damaged")
    assert clip.has_audio is has_audio
    assert (clip.work.member("audio", "flac") is not None) is has_audio
    assert bool(clip.audio_fingerprint) is has_audio
    assert ("corrupt_audio" in clip.damage) is (reason == "corrupt_packets")
    assert clip.corrupt_audio_share is None or (clip.corrupt_audio_share > 0) is (reason == "corrupt_packets")


def test_audio_that_changes_its_form_is_heard_to_its_end_at_one_level(tmp_path: Path) -> None:
    clip = process(changing_audio(tmp_path / "changing.ts"), tmp_path)
    samples = audio_of(clip)
    assert len(samples) == pytest.approx(4 * 16_000, abs=1600)
    assert len(beeps_in(samples)) == 3
    peaks = [np.abs(samples[int(start * 16_000) : int((start + 0.5) * 16_000)]).max() for start in (0.8, 1.8, 2.8)]
    assert max(peaks) < 1.25 * min(peaks)


@pytest.mark.parametrize(("limit", "status"), [(0.9, "damaged"), (0.5, "left_out")])
def test_the_recipe_says_how_much_of_the_audio_may_be_lost(limit: float, status: str, tmp_path: Path) -> None:
    clip = process(spoilt_audio(tmp_path / "spoilt.mp4", 0.75), tmp_path, max_corrupt_audio_share=limit)
    assert clip.audio_status == status
    assert clip.corrupt_audio_share == pytest.approx(0.75, abs=0.15)


@pytest.mark.parametrize(
    ("name", "audio_source"),
    [
        ("one channel is the other's negative", ANTIPHASE),
        ("nearly so", f"{BEEP}|-0.9*{BEEP}:s=48000"),
        ("only the left one", f"{BEEP}|0:s=48000"),
        ("both the same", f"{BEEP}|{BEEP}:s=48000"),
        ("two surround channels cancel", f"0|0|0|0|{BEEP}|-{BEEP}:s=48000:c=5.1(side)"),
        ("only the back of 7.1", f"0|0|0|0|{BEEP}|0|0|0:s=48000:c=7.1"),
    ],
)
def test_what_is_heard_in_the_source_is_heard_in_the_mono_audio(name: str, audio_source: str, tmp_path: Path) -> None:
    clip = process(film(tmp_path / "film.mkv", "-c:a", "flac", audio_source=audio_source), tmp_path)
    samples = audio_of(clip)
    assert beeps_in(samples / np.abs(samples).max()) == list(BEEPS_S), name
    assert clip.audio_rms_db == pytest.approx(20 * np.log10(np.sqrt((samples**2).mean())), abs=0.1)
    assert clip.damage == []


def test_only_a_mix_that_cancels_out_is_replaced_by_a_channel(tmp_path: Path) -> None:
    """Two channels that have nothing in common lose 3 dB in a mix, which is no reason to drop one."""
    left, right = (f"0.3*sin(2*PI*{hertz}*t)" for hertz in (440, 1000))
    clip = process(film(tmp_path / "film.mkv", "-c:a", "flac", audio_source=f"{left}|{right}:s=48000"), tmp_path)
    spectrum = np.abs(np.fft.rfft(audio_of(clip)))
    assert spectrum[440 * 4] == pytest.approx(spectrum[1000 * 4], rel=0.1)


def test_audio_that_the_mono_member_lost_is_flagged(tmp_path: Path) -> None:
    """A tone above what 16 kHz can hold: loud in the source and in the video, silent in the FLAC."""
    clip = process(film(tmp_path / "film.mkv", "-c:a", "flac", audio_source="0.5*sin(2*PI*15000*t):s=48000"), tmp_path)
    assert clip.loudness_lufs is not None and clip.loudness_lufs > -30
    assert clip.damage == ["silent_audio"]


@pytest.mark.parametrize("audio_source", ["0:s=48000", f"{BEEP}*0.001:s=48000"])
def test_silence_is_no_damage(audio_source: str, tmp_path: Path) -> None:
    clip: Clip = process(film(tmp_path / "film.mkv", "-c:a", "flac", audio_source=audio_source), tmp_path)
    assert (clip.audio_status, clip.damage) == ("ok", [])
