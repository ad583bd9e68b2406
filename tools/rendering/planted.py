"""Faults with a known answer in the rows of the learning set: captions of other scenes, and copies of clips.

A clip with a wrong caption has the texts of another scene. ``match_score`` is what a filter sees of it: a draw from
one of two normal distributions that overlap. A copy has the members of an earlier clip and texts of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RIGHT, WRONG, SPREAD = 0.6, 0.3, 0.15
"""Means of the match scores of right and of wrong captions, and the standard deviation of both."""


def plant(
    rows: list[dict[str, Any]], scenes: list[int], *, wrong: float, copies: float, seed: int
) -> list[dict[str, Any]]:
    """Return the rows with the columns ``caption_scene``, ``caption_is_wrong``, ``match_score`` and ``copy_of``.

    ``scenes`` are the scenes of the rows, ``wrong`` and ``copies`` the shares of clips with each fault. The last
    rows are the copies, each of the scene of its original.
    """
    rng = np.random.default_rng([seed, 7])
    first_copy = len(rows) - round(copies * len(rows))
    planted = []
    for place, (row, scene) in enumerate(zip(rows, scenes, strict=True)):
        is_wrong = bool(rng.random() < wrong)
        others = [other for other in sorted(set(scenes)) if other != scene]
        originals = [other for other in range(first_copy) if scenes[other] == scene]
        original = rows[int(rng.choice(originals))]["clip_id"] if place >= first_copy else None
        planted.append({
            **row, "caption_scene": int(rng.choice(others)) if is_wrong else scene, "caption_is_wrong": is_wrong,
            "match_score": float(rng.normal(WRONG if is_wrong else RIGHT, SPREAD)), "copy_of": original,
        })  # fmt: skip
    return planted
