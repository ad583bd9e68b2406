from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class NoText(Stage):
    """Rejects clips with too few title words and hashtags to be paired with language.

    The VIDAL paper excludes videos "with less than 2 words in the title and without hashtags", which is ambiguous:
    ``mode: and`` keeps clips with enough words and enough hashtags, ``or`` keeps clips with either. Words are counted
    in the cleaned title, hashtags in the platform's list. A clip without a title has 0 words; a clip whose words have
    not been counted passes. If the source has no hashtags (a folder, or a list without that column), only the words
    count.
    """

    version: ClassVar[int] = 2
    reads = ("clean_title", "title_words", "hashtags")
    min_words: int = Field(2, ge=0)
    """Words of the cleaned title that are enough."""
    min_hashtags: int = Field(1, ge=0)
    """Hashtags that are enough."""
    mode: Literal["and", "or"] = "and"
    """Whether both have to be enough, or either."""

    def process(self, clip: Clip) -> None:
        words = clip.title_words if clip.clean_title else 0
        if words is None:
            return
        if clip.hashtags is None:
            if words < self.min_words:
                detail = f"{words} words; wanted {self.min_words} words"
                clip.reject("no_text", detail, value=words, limit=self.min_words)
            return
        hashtags = len(clip.hashtags)
        enough = (words >= self.min_words, hashtags >= self.min_hashtags)
        if not (all(enough) if self.mode == "and" else any(enough)):
            wanted = f"{self.min_words} words {self.mode} {self.min_hashtags} hashtags"
            value, limit = (hashtags, self.min_hashtags) if enough[0] else (words, self.min_words)
            clip.reject("no_text", f"{words} words, {hashtags} hashtags; wanted {wanted}", value=value, limit=limit)
