"""Which text of a clip a training step uses: one view, drawn by weight from those that the clip has."""

from __future__ import annotations

import bisect
import difflib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vidal.errors import ClipError
from vidal.settings import validate

Row = Mapping[str, Any]

VIEWS: dict[str, Callable[[Row], list[str]]] = {
    "raw": lambda row: [" ".join([row.get("title") or "", *(f"#{tag}" for tag in row.get("hashtags") or ())])],
    "cleaned": lambda row: [row.get("clean_title") or ""],
    "frame_caption": lambda row: list(row.get("frame_captions") or ()),
    "video_caption": lambda row: [row.get("video_caption") or ""],
    "transcript": lambda row: [row.get("transcript") or ""],
    "ocr": lambda row: [row.get("ocr_text") or ""],
    "sound_caption": lambda row: [row.get("sound_caption") or ""],
    "caption": lambda row: [row.get("caption") or ""],
}
"""The texts of a manifest row by view, before empty ones are dropped."""
_COLUMNS = {
    "raw": ("title", "hashtags"), "cleaned": ("clean_title",), "frame_caption": ("frame_captions",),
    "ocr": ("ocr_text",),
}  # fmt: skip
"""The manifest columns that a view reads; by default that of its name."""

PRESETS = {
    "caption": {"caption": 1.0},
    # LanguageBind's mixture (Zhu et al., 2023); each of its eight frame captions has a share of 0.025.
    "mix": {"raw": 0.2, "video_caption": 0.2, "caption": 0.2, "sound_caption": 0.2, "frame_caption": 0.2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A drawn text."""

    text: str
    frame: int | None
    """Number of the frame that the text describes; None unless it is a frame caption."""


class TextViews(BaseModel):
    """The weights of the text views: ``caption``, ``mix``, or a mapping of views to weights.

    The weight of a view that a clip lacks is distributed over the views that it has.

        text: {views: {caption: 2, transcript: 1}}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, float] = Field(default_factory=lambda: dict(PRESETS["caption"]))

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_weights(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in PRESETS:
                raise ValueError(f"no preset `{value}`; presets: {', '.join(PRESETS)}")
            return {"weights": PRESETS[value]}
        return {"weights": value} if isinstance(value, Mapping) and value and "weights" not in value else value

    @classmethod
    def named(cls, text: str) -> TextViews:
        """Return a preset, or the views whose names ``text`` lists with commas; raises `RecipeError`."""
        names = [name.strip() for name in text.split(",")]
        return validate(cls, text if text in PRESETS else {"weights": dict.fromkeys(names, 1.0)}, "--views")

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for view in weights:
            if view not in VIEWS:
                near = difflib.get_close_matches(view, VIEWS, n=1)
                raise ValueError(f"no text view `{view}`: {f'did you mean {near[0]}?' if near else ', '.join(VIEWS)}")
        if not all(0 <= weight < math.inf for weight in weights.values()) or sum(weights.values()) <= 0:
            raise ValueError("weights of text views are finite, not negative, and not all zero")
        return weights

    @property
    def columns(self) -> list[str]:
        """The manifest columns that the views read."""
        return [column for view in self.weights for column in _COLUMNS.get(view, (view,))]

    def choose(self, row: Row, rng: np.random.Generator) -> Choice:
        """Draw one text of a manifest row; raises `ClipError` (``no_text``) if it has none of the views."""
        available = self._texts(row)
        if not available:
            raise ClipError("no_text", "no text")
        # In Python, which for a few numbers is faster than NumPy.
        weights = list(itertools.accumulate(self.weights[view] for view, _ in available))
        drawn = bisect.bisect_right(weights, rng.random() * weights[-1])
        # Rounding may put the draw past the last of the cumulative weights.
        view, texts = available[min(drawn, len(available) - 1)]
        number, text = texts[int(rng.integers(len(texts)))]
        return Choice(text=text, frame=number if view == "frame_caption" else None)

    def every(self, row: Row) -> list[str]:
        """Return the distinct texts of all views, for evaluation with several captions per clip."""
        return list(dict.fromkeys(text for _, texts in self._texts(row) for _, text in texts))

    def has_text(self, rows: Iterable[Row]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return (n,) bool, True for the rows that have any of the views."""
        return np.fromiter((bool(self._texts(row)) for row in rows), np.bool_)

    def _texts(self, row: Row) -> list[tuple[str, list[tuple[int, str]]]]:
        """The views that a row has, each with its numbered texts."""
        available = []
        for view, weight in self.weights.items():
            texts = [(k, text.strip()) for k, text in enumerate(VIEWS[view](row)) if text and text.strip()]
            if texts and weight > 0:
                available.append((view, texts))
        return available
