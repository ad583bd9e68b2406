"""Turns measurements of a clip's audio into sentences that claim no more than was measured."""

from __future__ import annotations

from collections.abc import Sequence

SILENCE = "silence"
NOBODY = "nobody speaks"


def sound_sentence(
    *, level_db: float, voice: float, speech: float, singing: float, music: float, quiet_db: float, min_share: float
) -> str:  # fmt: skip
    """Return a sentence such as ``quiet music; nobody speaks`` for audio of a mean level in dB of full scale.

    ``voice`` is the share of speech (0 to 1) by the voice activity detector, ``speech``, ``singing`` and ``music`` are
    the shares by the event detector.

    A kind with a share below 0.5 is "some", one below ``min_share`` is omitted. Speech needs the agreement of both
    detectors; "nobody speaks" is stated only if the voice activity detector found no speech at all.
    """
    # The event detector takes speech over music for singing; the voice activity detector finds no speech in songs.
    kinds = {"speech": min(voice, speech), "music": music, "singing": singing if voice < min_share else 0.0}
    quiet = "quiet " if level_db < quiet_db else ""
    parts = [("" if share >= 0.5 else "some ") + quiet + name for name, share in kinds.items() if share >= min_share]
    if not parts:
        return f"{quiet}sounds that are neither {'clear ' if voice else ''}speech nor music"
    return " and ".join(parts) + ("" if voice else f"; {NOBODY}")


def tag_sentence(tags: Sequence[tuple[str, float]], *, voice: float, min_score: float, most: int) -> str:
    """Return a hedged sentence with the ``most`` likely ``tags`` (label, score) of at least ``min_score``.

    AudioSet's labels are shortened: "Male speech, man speaking" becomes "male speech".
    """
    likely = [label for label, score in sorted(tags, key=lambda tag: (-tag[1], tag[0])) if score >= min_score]
    plain = [" ".join(label.split(",")[0].replace("_", " ").lower().split()) for label in likely]
    words = list(dict.fromkeys(plain))[:most]
    listed = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    sentence = f"sound that may be {listed}" if words else "sound that no tag fits"
    return sentence + ("" if voice else f"; {NOBODY}")


def named_sounds(sentence: str) -> str:
    """Return what a sentence of this module says is heard: empty for silence and for sounds that it does not name."""
    heard = sentence.split(";")[0]
    return "" if heard == SILENCE or "neither" in heard or "no tag fits" in heard else heard
