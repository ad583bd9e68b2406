"""Cut-outs: what stands in a rendered scene as an upright board with relief, and what each of them shows."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.materials import Category, Material

CUTOUT_PX = 128
ROUND_RELIEF = 0.35
"""How far a cut-out of unknown shape bulges, in heights, at the root of its distance from the rim in heights."""

DEEPEST = 2.0
"""Depth, in heights of the thing, of the largest value of a relief: a car seen from the front is that deep."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """Square images of 128 px whatever the shape of the thing: rgba (k, k, 4); relief (k, k) uint8, how far the
    surface bulges towards the camera (255 = `DEEPEST` heights); material (k, k) uint8; width over height."""

    rgba: Bytes
    relief: Bytes
    material: Bytes
    aspect: float
    category: Category


def cutout(rgba: Bytes, material: Material | Bytes, category: Category, relief: Bytes | None = None) -> Cutout:
    """Trim an image (h, w, 4) to its opaque part and stretch it; without a relief it is taken to be round."""
    rows, cols = np.nonzero(rgba[..., 3] > 127)
    box = (slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1)) if len(rows) else np.s_[:, :]
    size = (CUTOUT_PX, CUTOUT_PX)
    tight = rgba[box]
    square = np.asarray(cv2.resize(tight, size, interpolation=cv2.INTER_AREA), np.uint8)
    if relief is None:
        inside = cv2.distanceTransform((square[..., 3] > 127).astype(np.uint8), cv2.DIST_L2, 3)
        depth = np.asarray(np.sqrt(inside / CUTOUT_PX) * ROUND_RELIEF / DEEPEST * 255, np.uint8)
    else:
        depth = np.asarray(cv2.resize(relief[box], size, interpolation=cv2.INTER_NEAREST), np.uint8)
    made_of = np.full(size, material, np.uint8) if isinstance(material, Material) else material[box]
    return Cutout(
        rgba=square,
        relief=depth,
        material=np.asarray(cv2.resize(made_of, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        aspect=tight.shape[1] / tight.shape[0],
        category=category,
    )
