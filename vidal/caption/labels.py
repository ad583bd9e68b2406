"""Turns the labels of an image classifier into hedged sentences."""

from __future__ import annotations

from collections.abc import Sequence

_FRAME = "a frame that may show "
NOTHING_IN_FRAME = "a frame with no object recognised"
NOTHING_IN_VIDEO = "a video with no object recognised"
MAX_VIDEO_LABELS = 2
MIN_WEIGHT_SHARE = 0.25
"""Smallest weight of a further label, relative to the weight of the first."""
MIN_CLIP_SHARE = 0.5
"""Smallest mean score of a label over all frames, relative to the score that one frame needs."""


def frame_sentence(label: str, score: float, min_score: float) -> str:
    """Return a sentence for one frame, such as ``a frame that may show a tabby``."""
    return f"{_FRAME}{with_article(label)}" if score >= min_score else NOTHING_IN_FRAME


def is_guess(caption: str) -> bool:
    """Return whether a frame's caption was made by `frame_sentence`."""
    return caption == NOTHING_IN_FRAME or caption.startswith(_FRAME)


def video_sentence(labels: Sequence[tuple[str, float]], min_score: float) -> str:
    """Return a sentence for a clip from (label, score) of each frame; a label is weighted by the sum of its scores."""
    weights: dict[str, float] = {}
    for label, score in labels:
        if score >= min_score:
            weights[label] = weights.get(label, 0.0) + score
    min_weight = MIN_CLIP_SHARE * min_score * len(labels)
    weights = {label: weight for label, weight in weights.items() if weight >= min_weight}
    if not weights:
        return NOTHING_IN_VIDEO
    # Ties are broken by name, not by the order of frames.
    ordered = sorted(weights, key=lambda label: (-weights[label], label))
    shown = [label for label in ordered if weights[label] >= MIN_WEIGHT_SHARE * weights[ordered[0]]]
    return "a video that may show " + " and ".join(with_article(label) for label in shown[:MAX_VIDEO_LABELS])


def with_article(label: str) -> str:
    """Return the label with its article: ``an espresso``, ``a tabby``, ``sunglasses``."""
    # Glass, bus and tennis are no plurals.
    if label.endswith("s") and not label.endswith(("ss", "us", "is")):
        return label
    return f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
