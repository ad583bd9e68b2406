"""Honest sentences about what was measured in a sound, and about nothing that was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SILENCE = "silence"
NOBODY = "nobody speaks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a sound holds, as shares of its length; ``level_db`` is its mean level, 0 being the loudest there is."""

    level_db: float
    voice: float
    """The share that a voice detector takes for speech, on its own."""
    speech: float
    singing: float
    music: float


def sound_sentence(sound: Measured, *, silent_db: float, quiet_db: float, min_share: float) -> str:
    """``quiet music; nobody speaks``: a kind that fills less than half is "some", one below ``min_share`` is not there.

    Speech is what both detectors take for it; that nobody speaks is said only where the voice detector found nothing.
    """
    if sound.level_db < silent_db:
        return SILENCE
    speech = min(sound.voice, sound.speech)
    # Over music, speech looks like singing to the event detector; the voice detector hears no speech in a song.
    singing = sound.singing if sound.voice < min_share else 0.0
    kinds = {"speech": speech, "music": sound.music, "singing": singing}
    quiet = "quiet " if sound.level_db < quiet_db else ""
    heard = [("" if share >= 0.5 else "some ") + quiet + name for name, share in kinds.items() if share >= min_share]
    if not heard:
        return f"{quiet}sounds that are neither {'clear ' if sound.voice else ''}speech nor music"
    return " and ".join(heard) + ("" if sound.voice else f"; {NOBODY}")


def tag_sentence(tags: Sequence[tuple[str, float]], *, voice: float, min_score: float, most: int) -> str:
    """What a tagger believes to hear, most likely first; it guesses, hence "may"."""
    likely = [_plain(label) for label, score in sorted(tags, key=lambda tag: (-tag[1], tag[0])) if score >= min_score]
    said = list(dict.fromkeys(likely))[:most]
    heard = f"sound that may be {_listed(said)}" if said else "sound that no tag fits"
    return heard + ("" if voice else f"; {NOBODY}")


def _plain(label: str) -> str:
    """AudioSet's "Male speech, man speaking" is "male speech"; labels with underscores are words."""
    return " ".join(label.split(",")[0].replace("_", " ").lower().split())


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
