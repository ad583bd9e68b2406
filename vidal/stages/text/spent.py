"""Adds the token usage and cost of captioning servers to the clip's row."""

from __future__ import annotations

from vidal.clip import Clip
from vidal.models.openai_server import NOTHING, Usage

Prices = tuple[float, float]
"""Prices per million prompt and completion tokens."""


def spend(clip: Clip, usage: Usage, prices: Prices) -> None:
    """Add ``usage`` to that of earlier stages; the columns of a clip without requests stay null."""
    if usage == NOTHING:
        return
    cost = (usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) / 1e6
    clip.prompt_tokens = (clip.prompt_tokens or 0) + usage.prompt_tokens
    clip.completion_tokens = (clip.completion_tokens or 0) + usage.completion_tokens
    clip.server_cost = round((clip.server_cost or 0.0) + cost, 9)
