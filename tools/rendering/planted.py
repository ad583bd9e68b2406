"""Faults with a known answer in the rows of the learning set: captions of other scenes, and copies of clips.

A clip with a wrong caption has the texts of another scene. ``match_score`` is what a filter sees of it: a draw from
one of two normal distributions that overlap. A copy has the members of an earlier clip. Copies of any clips have texts
and scores of their own; reposts, of which there are many of a few clips, those of their originals, right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

RIGHT, WRONG, SPREAD = 0.6, 0.3, 0.15
"""Means of the match scores of right and of wrong captions, and the standard deviation of both."""


def plant(
    row_of: Callable[[int, int], dict[str, Any]], scenes: list[int], *, wrong: float, copies: float, reposted: int,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return rows with the columns ``caption_scene``, ``caption_is_wrong``, ``match_score`` and ``copy_of``.

    ``row_of`` makes a row of its number and its scene, ``scenes`` are the scenes of the rows, ``wrong`` and ``copies``
    the shares of clips with each fault. The last rows are the copies, each of any clip of its scene, or, with
    ``reposted``, of one of so many clips and of its scene.
    """
    rng = np.random.default_rng([seed, 7])
    first_copy = len(scenes) - round(copies * len(scenes))
    popular = rng.choice(first_copy, reposted, replace=False).tolist()
    planted: list[dict[str, Any]] = []
    for place, scene in enumerate(scenes):
        if popular and place >= first_copy:
            source = int(rng.choice(popular))
            told = {key: planted[source][key] for key in ("caption_scene", "caption_is_wrong", "match_score")}
            planted.append({**row_of(place, scenes[source]), **told, "copy_of": planted[source]["clip_id"]})
            continue
        is_wrong = bool(rng.random() < wrong)
        others = [other for other in sorted(set(scenes)) if other != scene]
        originals = [other for other in range(first_copy) if scenes[other] == scene]
        original = planted[int(rng.choice(originals))]["clip_id"] if place >= first_copy else None
        planted.append({
            **row_of(place, scene),
            "caption_scene": int(rng.choice(others)) if is_wrong else scene, "caption_is_wrong": is_wrong,
            "match_score": float(rng.normal(WRONG if is_wrong else RIGHT, SPREAD)), "copy_of": original,
        })  # fmt: skip
    return planted
