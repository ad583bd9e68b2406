"""The written rule from surfaces to a long-wave infrared image. SYNTHETIC: no camera has confirmed any of it.

Surface temperature = air + what the material adds + sun on the lit share, which dark surfaces take up best. Clothes are
warmed by who wears them. What leaves a surface is its own emission plus the reflected sky (outdoors) or room; air
between surface and camera takes part of it and emits at its own temperature. Emission follows T^4 (the whole spectrum
instead of the 8-14 um band), and the result is turned back into an apparent temperature on ONE fixed scale: there is no
per-image stretch, so equal grey means equal temperature. Shade has no part in it: out of the sun, dark is as warm as
bright.
"""

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.materials import THERMAL, Category, Material
from tools.rendering.scenes import Frame

AIR_K = 288.0
BLACK_K = 274.0
WHITE_K = 304.0
ATTENUATION_M = 400.0
"""Distance after which air has replaced 63 % of a surface's signal."""
BACKDROP_M = 150.0
"""Distance assumed for photographs behind a scene."""
WORN_K = 6.0
"""How much warmer than the same cloth a piece of clothing is on a body."""
CLASSES = len(Material) + 1
"""Surface classes: the materials, and worn cloth."""

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def apparent_temperature(frame: Frame, seed: int = 0) -> Floats:
    """(h, w) kelvin; the seed only draws how far each object departs from its material's mean."""
    columns = ("above_air_k", "spread_k", "sun_k", "emissivity")
    table = np.array([[getattr(THERMAL[m], name) for name in columns] for m in Material], np.float32)
    above, spread, sun, emissivity = (table[frame.material, i] for i in range(4))
    departure = np.random.default_rng([seed, 3]).normal(0, 0.5, 256).astype(np.float32)
    brightness = frame.rgb.mean(2, dtype=np.float32) / 255
    surface = AIR_K + above + spread * departure[frame.segment] + sun * frame.lit * (1.5 - brightness)
    surface = surface + WORN_K * _worn(frame)
    sky_k = AIR_K + THERMAL[Material.SKY].above_air_k
    surroundings = sky_k if (frame.material == Material.SKY).any() else AIR_K
    # A rough upright surface mirrors about half sky and half warm ground.
    mirrored = 0.5 * (surroundings**4 + AIR_K**4)
    leaving = emissivity * surface**4 + (1 - emissivity) * mirrored
    distance = np.where(np.isfinite(frame.depth), frame.depth, BACKDROP_M)
    clear = np.where(frame.material == Material.SKY, 1.0, np.exp(-distance / ATTENUATION_M))
    return np.asarray((leaving * clear + AIR_K**4 * (1 - clear)) ** 0.25, np.float32)


def infrared(frame: Frame, seed: int = 0) -> Bytes:
    """(h, w) uint8: apparent temperature from `BLACK_K` to `WHITE_K`, softened by the optics."""
    scaled = (apparent_temperature(frame, seed) - BLACK_K) / (WHITE_K - BLACK_K) * 255
    return np.asarray(cv2.GaussianBlur(scaled, (5, 5), 0.8).clip(0, 255).round(), np.uint8)


def surface_class(frame: Frame) -> Bytes:
    """(h, w) uint8 below `CLASSES`: the material, or the last class where a person wears it."""
    return np.where(_worn(frame), np.uint8(CLASSES - 1), frame.material)


def class_levels() -> list[float]:
    """Grey (0 to 1) of each surface class in the shade nearby, before reflections."""
    above = [THERMAL[m].above_air_k for m in Material]
    above.append(THERMAL[Material.FABRIC].above_air_k + WORN_K)
    return [min(max((AIR_K + k - BLACK_K) / (WHITE_K - BLACK_K), 0.0), 1.0) for k in above]


def _worn(frame: Frame) -> npt.NDArray[np.bool_]:
    worn: npt.NDArray[np.bool_] = (frame.material == Material.FABRIC) & (frame.category == Category.PERSON)
    return worn
