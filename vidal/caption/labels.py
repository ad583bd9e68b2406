"""Honest sentences about what a classifier believes to see."""

from __future__ import annotations

from collections.abc import Sequence

_FRAME = "a frame that may show "
NOTHING_IN_FRAME = "a frame with no object recognised"
NOTHING_IN_VIDEO = "a video with no object recognised"
MAX_VIDEO_LABELS = 2
MIN_WEIGHT_SHARE = 0.25
"""Least weight of a further label, as a share of the first one's."""
MIN_CLIP_SHARE = 0.5
"""Least mean score of a label over all frames, as a share of what one frame needs: one odd frame is no clip."""


def frame_sentence(label: str, score: float, min_score: float) -> str:
    """What one frame shows; a classifier guesses, hence "may"."""
    return f"{_FRAME}{with_article(label)}" if score >= min_score else NOTHING_IN_FRAME


def is_guess(caption: str) -> bool:
    """Whether the caption of a frame is a sentence of `frame_sentence`."""
    return caption == NOTHING_IN_FRAME or caption.startswith(_FRAME)


def video_sentence(labels: Sequence[tuple[str, float]], min_score: float) -> str:
    """What a clip shows, by the label and score of each frame: labels weigh the sum of their scores."""
    weights: dict[str, float] = {}
    for label, score in labels:
        if score >= min_score:
            weights[label] = weights.get(label, 0.0) + score
    least = MIN_CLIP_SHARE * min_score * len(labels)
    weights = {label: weight for label, weight in weights.items() if weight >= least}
    if not weights:
        return NOTHING_IN_VIDEO
    # Ties fall by name, never by order of insertion alone.
    ordered = sorted(weights, key=lambda label: (-weights[label], label))
    shown = [label for label in ordered if weights[label] >= MIN_WEIGHT_SHARE * weights[ordered[0]]]
    return "a video that may show " + " and ".join(with_article(label) for label in shown[:MAX_VIDEO_LABELS])


def with_article(label: str) -> str:
    """``an espresso``, ``a tabby``, ``sunglasses``."""
    if label.endswith("s") and not label.endswith(("ss", "us", "is")):
        return label
    return f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
