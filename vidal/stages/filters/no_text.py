from __future__ import annotations

from typing import Literal

from pydantic import Field

from vidal.clip import Clip
from vidal.stage import Stage


class NoText(Stage):
    """Rejects clips with too few title words and hashtags to be worth pairing with language.

    VIDAL excludes videos "with less than 2 words in the title and without hashtags", which can be read
    two ways: ``and`` keeps a clip that has both enough words and enough hashtags, ``or`` one that has either.
    Words are those of the cleaned title, hashtags those of the platform. A clip without a title has no words;
    a title whose words nobody counted stays.
    """

    reads = ("clean_title", "title_words", "hashtags")
    min_words: int = Field(2, ge=0)
    min_hashtags: int = Field(1, ge=0)
    mode: Literal["and", "or"] = "and"

    def process(self, clip: Clip) -> None:
        words, hashtags = clip.title_words if clip.clean_title else 0, len(clip.hashtags)
        if words is None:
            return
        enough = (words >= self.min_words, hashtags >= self.min_hashtags)
        if not (all(enough) if self.mode == "and" else any(enough)):
            wanted = f"{self.min_words} words {self.mode} {self.min_hashtags} hashtags"
            clip.reject("no_text", f"{words} words, {hashtags} hashtags; wanted {wanted}")
