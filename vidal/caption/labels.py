"""Turns the class probabilities of an image classifier into hedged sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vidal.caption.kinds import kinds

_FRAME = "a frame that may show "
MAX_VIDEO_LABELS = 2
MIN_WEIGHT_SHARE = 0.25
"""Smallest weight of a further label, relative to the weight of the first."""
MIN_CLIP_SHARE = 0.5
"""Smallest mean score of a label over all frames, relative to the score that one frame needs."""


class Label(NamedTuple):
    """What a frame may show: a class of ImageNet or a kind, the numbers of its classes, and their probability."""

    name: str
    classes: frozenset[int]
    score: float


def narrowest_label(probabilities: npt.NDArray[np.floating], names: Sequence[str], min_score: float) -> Label | None:
    """Return the class, else the kind with the fewest classes, that is as likely as ``min_score``; None if none is.

    ``probabilities`` and ``names`` are those of the 1000 classes of ImageNet.
    """
    best = int(probabilities.argmax())
    likely = [Label(names[best], frozenset([best]), float(probabilities[best]))]
    likely += [Label(kind, classes, float(probabilities[list(classes)].sum())) for kind, classes in kinds().items()]
    reached = [label for label in likely if label.score >= min_score]
    return min(reached, key=lambda label: (len(label.classes), -label.score), default=None)


def frame_sentence(label: Label | None) -> str:
    """Return a sentence for one frame, such as ``a frame that may show a tabby``; an empty one without a label."""
    return f"{_FRAME}{with_article(label.name)}" if label else ""


def is_guess(caption: str) -> bool:
    """Return whether a frame's caption was made by `frame_sentence`."""
    return caption.startswith(_FRAME)


def video_sentence(labels: Sequence[Label | None], min_score: float) -> str:
    """Return a sentence for a clip from the label of each frame, an empty one where no label is frequent enough.

    A label is weighted by the sum of its scores. A frame of a cat counts for an animal, too; what contains a thing that
    is said is not said.
    """
    named = [label for label in labels if label]
    weights = {
        (label.name, label.classes): sum(other.score for other in named if other.classes <= label.classes)
        for label in named
    }
    min_weight = MIN_CLIP_SHARE * min_score * len(labels)
    heavy = {classes: (weight, name) for (name, classes), weight in weights.items() if weight >= min_weight}
    narrow = [heavy[classes] for classes in heavy if not any(other < classes for other in heavy)]
    if not narrow:
        return ""
    # Ties are broken by name, not by the order of frames.
    ordered = sorted(narrow, key=lambda found: (-found[0], found[1]))
    shown = [name for weight, name in ordered if weight >= MIN_WEIGHT_SHARE * ordered[0][0]]
    return "a video that may show " + " and ".join(with_article(name) for name in shown[:MAX_VIDEO_LABELS])


def with_article(label: str) -> str:
    """Return the label with its article: ``an espresso``, ``a tabby``, ``sunglasses``."""
    # Glass, bus and tennis are no plurals.
    if label.endswith("s") and not label.endswith(("ss", "us", "is")):
        return label
    return f"{'an' if label[0].lower() in 'aeiou' else 'a'} {label}"
