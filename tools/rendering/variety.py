"""More images out of few: photographs and cut-outs of a library, recoloured, pieced together and bent out of shape.

They are changed before a scene is rendered, so that whatever the rule reads from a photograph's colours (sky, plants)
holds of the changed image too; hues turned in a finished frame would leave its target behind.
"""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.materials import Category
from tools.rendering.textures import Library

PHOTO_HUE, LIVING_HUE, THING_HUE = 20.0, 12.0, 60.0
"""Degrees by which hues turn at most: a thing may have any paint, a face or a leaf may not."""
PHOTO_COPIES = 3
LIVING = (Category.PERSON, Category.ANIMAL, Category.PLANT, Category.FOOD)

Bytes = npt.NDArray[np.uint8]


def varied(library: Library, seed: int) -> Library:
    """The library with three changed copies of each photograph and one of each cut-out; same seed, same pixels."""
    rng = np.random.default_rng([seed, 13])
    photos = [np.stack([_photo(rng, library.photos, image) for image in library.photos]) for _ in range(PHOTO_COPIES)]
    cut = [_cutout(rng, library, which) for which in range(len(library.cutouts))]
    rgba, reliefs, materials = (np.stack(column) for column in zip(*cut, strict=True))
    wider = np.exp(rng.normal(0, 0.2, len(cut))).astype(np.float32)
    copies = replace(
        library, photos=np.concatenate(photos), cutouts=rgba, reliefs=reliefs, materials=materials,
        aspects=library.aspects * wider,
    )  # fmt: skip
    return library.joined(copies)


def _photo(rng: np.random.Generator, photos: Bytes, image: Bytes) -> Bytes:
    """Recoloured, and half of the time with another photograph below an uneven horizon."""
    upper = _recoloured(rng, image, PHOTO_HUE)
    if rng.random() < 0.5:
        return upper
    lower = _recoloured(rng, photos[rng.integers(len(photos))], PHOTO_HUE)
    h, w = image.shape[:2]
    bumps = rng.normal(size=(1, int(rng.integers(3, 20)))).astype(np.float32)
    edge = np.asarray(cv2.resize(bumps, (w, 1), interpolation=cv2.INTER_CUBIC)) * h * 0.08
    below = np.arange(h)[:, None] > h * rng.uniform(0.25, 0.75) + edge
    return np.where(below[..., None], lower, upper)


def _cutout(rng: np.random.Generator, library: Library, which: int) -> tuple[Bytes, Bytes, Bytes]:
    """rgba, relief and material, bent by up to some pixels; colours of what lives stay near."""
    rgba, relief, material = (images[which] for images in (library.cutouts, library.reliefs, library.materials))
    rows, cols = np.mgrid[: len(rgba), : len(rgba)].astype(np.float32)
    px = rng.uniform(0, 5)
    shifts = [
        np.asarray(cv2.resize(rng.normal(size=(4, 4)).astype(np.float32), cols.shape, interpolation=cv2.INTER_CUBIC))
        for _ in range(2)
    ]
    rgba, relief, material = (
        np.asarray(cv2.remap(image, cols + shifts[0] * px, rows + shifts[1] * px, cv2.INTER_NEAREST), np.uint8)
        for image in (rgba, relief, material)
    )
    hue = LIVING_HUE if library.categories[which] in LIVING else THING_HUE
    return np.dstack([_recoloured(rng, rgba[..., :3], hue), rgba[..., 3]]), relief, material


def _recoloured(rng: np.random.Generator, rgb: Bytes, hue: float) -> Bytes:
    """Hue turned by up to so many degrees, saturation, white balance and gamma drawn."""
    hsv = cv2.cvtColor(np.ascontiguousarray(rgb, np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-hue, hue)) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.5, 1.5), 0, 1)
    tinted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * rng.uniform(0.88, 1.12, 3).astype(np.float32)
    return np.asarray(np.clip(tinted, 0, 1) ** rng.uniform(0.65, 1.5) * 255, np.uint8)
