"""The settings that decide which captions become search terms."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TermSettings(BaseModel):
    """Settings of `vidal terms`, given by ``--set NAME=VALUE`` and recorded in the file that it writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(100_000, ge=1)
    """Number of terms to choose; VIDAL-10M has 100,000."""
    min_count: int = Field(2, ge=1)
    """A keyword in fewer captions is too rare. 1 suits lists of labels, 5 or more suits user-written captions."""
    max_share: float = Field(0.05, gt=0, le=1)
    """A keyword in a larger share of the captions is too common: it would match everything."""
    max_words: int = Field(20, ge=1)
    """Longer captions are not used as search terms."""
    overlap_words: int = Field(8, ge=3)
    """A caption that shares a run of this many words with a benchmark caption is excluded."""
    clips_per_term: int = Field(20, ge=1, le=500)
    """Mean of the column ``quota``, before clipping to its bounds."""
    max_clips_per_term: int = Field(100, ge=1, le=500)
    """Upper bound of ``quota``."""
    seed: int = 0
    """Breaks ties between equally good captions."""
