"""What decides which captions become terms."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TermSettings(BaseModel):
    """Each is ``--set NAME=VALUE`` of `vidal terms`, and stands in the file that it writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int = Field(100_000, ge=1)
    """Terms to choose; VIDAL-10M has 100,000."""
    min_count: int = Field(2, ge=1)
    """A keyword in fewer captions is out of bounds. 1 suits lists of labels, 5 or more captions that people typed."""
    max_share: float = Field(0.05, gt=0, le=1)
    """A keyword in a larger share of the captions is out of bounds: it would find everything."""
    max_words: int = Field(20, ge=1)
    """A longer caption is no search term."""
    overlap_words: int = Field(8, ge=3)
    """A caption that shares a run of so many words with a benchmark's caption is excluded."""
    clips_per_term: int = Field(20, ge=1, le=500)
    """Mean of the column ``quota``, before it is held within its bounds."""
    max_clips_per_term: int = Field(100, ge=1, le=500)
    """Upper bound of ``quota``."""
    seed: int = 0
    """Decides between captions that are equally good."""
