"""Which of a clip's texts it is trained with: drawn by weight from those that it has."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Row = Mapping[str, Any]


def _raw(row: Row) -> list[str]:
    return [" ".join([row.get("title") or "", *(f"#{tag}" for tag in row.get("hashtags") or ())]).strip()]


def _one(column: str) -> Callable[[Row], list[str]]:
    return lambda row: [row.get(column) or ""]


VIEWS: dict[str, Callable[[Row], list[str]]] = {
    "raw": _raw,
    "cleaned": _one("clean_title"),
    "frame_caption": lambda row: list(row.get("frame_captions") or ()),
    "video_caption": _one("video_caption"),
    "transcript": _one("transcript"),
    "ocr": _one("ocr_text"),
    "sound_caption": _one("sound_caption"),
    "caption": _one("caption"),
}
COLUMNS = (
    "title", "hashtags", "clean_title", "frame_captions", "video_caption", "transcript", "ocr_text", "sound_caption",
    "caption",
)  # fmt: skip
"""What the views read of a manifest row."""

PRESETS = {
    "caption": {"caption": 1.0},
    # LanguageBind's: each of the eight frame captions has a share of .025.
    "mix": {"raw": 0.2, "video_caption": 0.2, "caption": 0.2, "sound_caption": 0.2, "frame_caption": 0.2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A text, and the frame that it describes where it is one frame's."""

    text: str
    view: str
    frame: int | None


class TextViews(BaseModel):
    """``caption``, ``mix``, or weights by view; a clip's share of a view that it lacks goes to the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, float] = Field(default_factory=lambda: dict(PRESETS["caption"]))

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_weights(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in PRESETS:
                raise ValueError(f"no preset `{value}`: there is {', '.join(PRESETS)}")
            return {"weights": PRESETS[value]}
        return {"weights": value} if isinstance(value, Mapping) and value and "weights" not in value else value

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: dict[str, float]) -> dict[str, float]:
        for view in weights:
            if view not in VIEWS:
                near = difflib.get_close_matches(view, VIEWS, n=1)
                raise ValueError(f"no text view `{view}`: {f'did you mean {near[0]}?' if near else ', '.join(VIEWS)}")
        if not all(0 <= weight < math.inf for weight in weights.values()) or sum(weights.values()) <= 0:
            raise ValueError("weights of text views are numbers that are not negative, and not all zero")
        return weights

    def choose(self, row: Row, rng: np.random.Generator) -> Choice:
        """One text; raises `LookupError` for a row that has none of the views."""
        there = [(view, texts, self.weights[view]) for view, texts in self._texts(row)]
        if not there:
            raise LookupError("no text")
        weights = np.cumsum([weight for _, _, weight in there])
        drawn = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        view, texts, _ = there[min(drawn, len(there) - 1)]
        number = int(rng.integers(len(texts)))
        return Choice(text=texts[number][1], view=view, frame=texts[number][0] if view == "frame_caption" else None)

    def every(self, row: Row) -> list[str]:
        """The distinct texts of all views, for evaluation with several captions a clip."""
        return list(dict.fromkeys(text for _, texts in self._texts(row) for _, text in texts))

    def has_text(self, rows: Iterable[Row]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows have any of the views."""
        return np.fromiter((bool(self._texts(row)) for row in rows), np.bool_)

    def _texts(self, row: Row) -> list[tuple[str, list[tuple[int, str]]]]:
        found = []
        for view, weight in self.weights.items():
            texts = [(k, text.strip()) for k, text in enumerate(VIEWS[view](row)) if text and text.strip()]
            if texts and weight > 0:
                found.append((view, texts))
        return found
