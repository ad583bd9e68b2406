"""Sources of audio alone become clips of the audio layer alone, through the whole build."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

import vidal
from tests.films import BEEP, BEEPS_S, audio_of, beeps_in, ffmpeg, process
from tests.processes import command
from tests.runs import rows
from tests.unit.stages.test_text_match import tiny_siglip
from vidal.clip import Clip
from vidal.dataset import alignment
from vidal.errors import ClipError
from vidal.stages import step_class

CODECS = {"mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac", "ogg": "libvorbis", "opus": "libopus", "m4a": "aac"}


def audio_file(path: Path, expression: str = f"{BEEP}|{BEEP}") -> Path:
    codec = CODECS[path.suffix[1:]]
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc={expression}:s=48000:d=4", "-c:a", codec, path)
    return path


@pytest.mark.parametrize("ending", CODECS)
def test_an_audio_file_gives_its_audio_and_no_video(ending: str, tmp_path: Path) -> None:
    clip = process(audio_file(tmp_path / f"beeps.{ending}"), tmp_path, takes="any")
    samples = audio_of(clip)
    assert beeps_in(samples) == pytest.approx(list(BEEPS_S), abs=0.11)
    alignment.check(clip)
    assert [member.suffix for member in clip.work.members] == ["flac"]
    assert clip.duration_s == pytest.approx(4, abs=0.1) and clip.audio_fingerprint
    assert clip.audio_status == "ok" and clip.loudness_lufs is not None and clip.audio_rms_db is not None
    assert clip.frame_times == [] and clip.width is clip.corrupt_frames is clip.motion is None


def test_an_audio_file_fails_where_a_video_is_required(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no_video"):
        process(audio_file(tmp_path / "beeps.wav"), tmp_path)


def test_channels_that_cancel_out_are_heard_without_a_video_too(tmp_path: Path) -> None:
    clip = process(audio_file(tmp_path / "beeps.wav", f"{BEEP}|-{BEEP}"), tmp_path, takes="any")
    assert beeps_in(audio_of(clip)) == list(BEEPS_S)


def test_an_audio_file_that_cannot_be_decoded_fails(tmp_path: Path) -> None:
    path = tmp_path / "spoilt.m4a"
    ffmpeg("-i", audio_file(tmp_path / "beeps.m4a"), "-c", "copy", "-bsf:a", "noise=amount='if(gte(n,40),1,0)'", path)
    with pytest.raises(ClipError, match="of the audio cannot be decoded"):
        process(path, tmp_path, takes="any")


@pytest.mark.parametrize(
    ("columns", "is_open"),
    [
        ({"container": "mp3"}, False),
        ({"container": "mov", "video_codec": "h264"}, True),
        ({}, True),
    ],
)
def test_a_filter_rejects_what_has_no_video(columns: dict[str, str], is_open: bool) -> None:
    clip = Clip(**columns)  # type: ignore[arg-type]
    step_class("no_video")().process_batch([clip])
    assert clip.is_open is is_open
    assert clip.reason == (None if is_open else "no_video")


@pytest.mark.parametrize("name", ["fingerprints", "ocr", "depth", "infrared", "frame_captions", "text_match"])
def test_a_stage_of_frames_leaves_a_clip_without_any_as_it_is(name: str, tmp_path: Path) -> None:
    settings = {"depth": {"model": "vidal:depth-small"}}.get(name, {})
    if name == "text_match":
        settings = {"backend": "clip", "model": tiny_siglip(tmp_path)}
    clip, untouched = Clip(clip_id="a", duration_s=4.0), Clip(clip_id="a", duration_s=4.0)
    stage = step_class(name)(**settings)
    stage.setup()
    stage.process_batch([clip])
    assert clip == untouched and clip.work.members == []


def test_audio_files_are_built_verified_opened_and_shown(tmp_path: Path) -> None:
    files = [audio_file(tmp_path / "beeps.mp3"), audio_file(tmp_path / "tone.wav", "0.1*sin(2*PI*440*t)*mod(t\\,1)")]
    files.append(tmp_path / "broken.ogg")
    files[-1].write_bytes(b"OggS" + bytes(5000))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "url"), *((path.stem, path) for path in files)])
    stages = ["fetch", "probe", {"media": {"takes": "any"}}, "no_audio", "damaged", "fingerprints"]
    stages.append({"duplicates": {"audio": "reject"}})
    recipe = {"name": "audio", "source": {"list": "list.csv"}, "shards": {"size": 4}, "stages": stages}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    done = command("build", tmp_path / "recipe.yaml", "--out", out, "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert {clip_id: row["status"] for clip_id, row in rows(out).items()} == {
        "beeps": "kept",
        "tone": "kept",
        "broken": "failed",
    }
    done = command("verify", out)
    assert done.returncode == 0, done.stdout + done.stderr
    dataset = vidal.open(out)
    assert len(dataset) == 2
    assert {len(dataset[k]["audio"]) for k in range(2)} <= set(range(4 * 16_000, 4 * 16_000 + 1600))
    done = command("report", out, "--out", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    assert "beeps" in (tmp_path / "report.html").read_text()
