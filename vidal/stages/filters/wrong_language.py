from __future__ import annotations

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class WrongLanguage(Stage):
    """Rejects clips whose title is not in one of the ``allowed`` languages (``en``, ``pt``, …).

    Titles without a detected language or with a score below ``min_score``, usually short ones, pass.
    """

    reads = ("title_language", "title_language_score")
    allowed: list[str] = Field(["en"], min_length=1)
    """Languages of the title, ISO 639-1."""
    min_score: float = Field(0.5, ge=0, le=1)
    """Titles whose language was detected with a lower score pass."""

    def process(self, clip: Clip) -> None:
        language, score = clip.title_language, clip.title_language_score
        if language is None or language in self.allowed or (score is not None and score < self.min_score):
            return
        certainty = "" if score is None else f" (score {score:.2f})"
        clip.reject("wrong_language", f"{language}{certainty} is not one of {', '.join(self.allowed)}")
