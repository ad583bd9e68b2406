"""`Chart`: the clips of a dataset as points of a plane, by the first two principal components of their vectors."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from vidal.errors import SourceError
from vidal.view.features import Features
from vidal.view.queries import Numbers

MOST_DRAWN = 20_000
_SEED = 0
_BLOCK = 1 << 14
_NUMBER = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_BOX = re.compile(",".join([_NUMBER] * 4), re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Where the clips lie. The components are those of the clips that are drawn; all clips are projected on them."""

    points: npt.NDArray[np.float32]
    """(clips, 2), NaN for a clip without a vector."""
    drawn: Numbers
    """The numbers (k,) of at most `MOST_DRAWN` clips, drawn from a fixed seed."""
    variance_share: float
    """Share of the variance that the two components have."""

    @classmethod
    def of(cls, features: Features, clips: int) -> Self:
        """Chart the ``clips`` of a dataset; the same features give the same chart."""
        count = len(features.numbers)
        places = np.sort(np.random.default_rng(_SEED).permutation(count)[:MOST_DRAWN])
        points = np.full((clips, 2), np.nan, np.float32)
        if not count:
            return cls(points=points, drawn=features.numbers, variance_share=0.0)
        vectors = features.vectors(places)
        mean = vectors.mean(axis=0)
        centred = vectors - mean
        covariance = centred.T @ centred / len(centred)
        # In ascending order, so that the largest are the last; vectors of one dimension have one axis only.
        variances, axes = np.linalg.eigh(covariance)
        variances, axes = variances[-2:], axes[:, :-3:-1]
        # An axis is as good turned around; this way round it is the same each time.
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        for start in range(0, count, _BLOCK):
            here = np.arange(start, min(start + _BLOCK, count))
            points[features.numbers[here], : axes.shape[1]] = (features.vectors(here) - mean) @ axes
        points[features.numbers, axes.shape[1] :] = 0
        total = float(np.trace(covariance))
        share = float(variances.sum()) / total if total > 0 else 0.0
        return cls(points=points, drawn=features.numbers[places], variance_share=share)

    def inside(self, box: str) -> npt.NDArray[np.bool_]:
        """Return which clips (n,) lie in a rectangle, ``left,bottom,right,top``; raises `SourceError` for no such."""
        match = _BOX.fullmatch(box)
        if match is None:
            raise SourceError(f"box={box[:80]}: write four numbers, left,bottom,right,top")
        left, bottom, right, top = map(float, match.groups())
        x, y = self.points.T
        return functools.reduce(np.logical_and, (left <= x, x <= right, bottom <= y, y <= top))
