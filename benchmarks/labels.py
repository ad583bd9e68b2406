"""How often the labels of `frame_captions` are right, and of how many frames, over the limit on their probability.

    python benchmarks/labels.py

``tests/corpora/frame_labels.csv`` has what the default classifier says of the sample's 184 frames, and whether that is
in the picture, judged by eye. ``at`` is the share right with its Wilson interval of 95 %, which takes frames for
independent, and the frames and clips that get a caption; ``classes_alone`` is the same without kinds. As frames of a
clip are alike, a limit is chosen that reaches `GOAL` whichever clip is left out, and ``cross_validated`` chooses it on
all clips but one and counts what it says of that one. Target: 9 of 10 are right, at the default limit and
cross-validated.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from figures import options, show

from vidal.stages.text.frame_captions import FrameCaptions

VERDICTS = Path(__file__).parents[1] / "tests" / "corpora" / "frame_labels.csv"
GOAL = 0.9
LIMITS = [n / 100 for n in range(30, 96, 5)]


class Verdict(NamedTuple):
    label: str
    score: float
    is_right: bool


Frames = dict[tuple[str, int], list[Verdict]]
"""The verdicts of each frame by clip and number: on the class, then on likelier kinds."""


def verdicts() -> Frames:
    lines = [line for line in VERDICTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    frames: Frames = {}
    for row in csv.DictReader(lines):
        said = Verdict(row["label"], float(row["score"]), row["right"] == "1")
        frames.setdefault((row["clip_id"], int(row["frame"])), []).append(said)
    return frames


def said_at(limit: float, frames: Frames, clips: Collection[str]) -> dict[tuple[str, int], Verdict]:
    """Return what a limit says of the frames of the clips: the narrowest that reaches it."""
    first = {at: next((v for v in of if v.score >= limit), None) for at, of in frames.items() if at[0] in clips}
    return {at: verdict for at, verdict in first.items() if verdict}


def share_right(said: Collection[Verdict]) -> float:
    return sum(v.is_right for v in said) / len(said) if said else 1.0


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    centre, spread = right + z * z / 2, z * math.sqrt(right * (count - right) / count + z * z / 4)
    return (centre - spread) / (count + z * z), (centre + spread) / (count + z * z)


def summary(said: dict[tuple[str, int], Verdict], frames: int) -> dict[str, Any]:
    right = sum(v.is_right for v in said.values())
    if not said:
        return {"right": 0, "said": 0}
    low, high = wilson(right, len(said))
    return {
        "share": right / len(said), "low": low, "high": high, "right": right, "said": len(said),
        "clips": len({clip for clip, _ in said}), "coverage": len(said) / frames,
    }  # fmt: skip


def worst_share(limit: float, frames: Frames, clips: Collection[str]) -> float:
    """Return the share right without the clip that is best for it."""
    said = said_at(limit, frames, clips)
    return min(share_right([v for (clip, _), v in said.items() if clip != left_out]) for left_out in clips)


def lowest_limit(frames: Frames, clips: Collection[str]) -> float:
    """Return the limit from which on the goal is reached whichever clip is left out."""
    below = [limit for limit in LIMITS if worst_share(limit, frames, clips) < GOAL]
    return LIMITS[LIMITS.index(below[-1]) + 1] if below else LIMITS[0]


def cross_validated(frames: Frames, clips: Sequence[str]) -> dict[str, Any]:
    said, limits = {}, []
    for left_out in clips:
        limits.append(lowest_limit(frames, [clip for clip in clips if clip != left_out]))
        said |= said_at(limits[-1], frames, [left_out])
    return {**summary(said, len(frames)), "lowest_limit": min(limits), "highest_limit": max(limits)}


def main() -> None:
    asked = options(__doc__).parse_args()
    frames, default = verdicts(), FrameCaptions().min_score
    clips = sorted({clip for clip, _ in frames})
    classes = {at: of[:1] for at, of in frames.items()}
    said = said_at(default, frames, clips)
    figures: dict[str, Any] = {
        "default": {"limit": default, **summary(said, len(frames))},
        "default_without_its_best_clip": worst_share(default, frames, clips),
        "lowest_limit": lowest_limit(frames, clips),
        "default_by_label": {},
    }
    for verdict in said.values():
        of = figures["default_by_label"].setdefault(verdict.label, {"right": 0, "said": 0})
        of["right"] += verdict.is_right
        of["said"] += 1
    figures["cross_validated"] = cross_validated(frames, clips)
    for limit in LIMITS:
        figures[f"at {limit:.2f}"] = summary(said_at(limit, frames, clips), len(frames))
        figures[f"at {limit:.2f}, classes_alone"] = summary(said_at(limit, classes, clips), len(frames))
    show(figures, as_json=asked.json)


if __name__ == "__main__":
    main()
