"""Noise as natural texture: grey, and coloured with stripes, tiles or patches."""

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


def noise(rng: np.random.Generator, hw: tuple[int, int], octaves: int = 5) -> npt.NDArray[np.float32]:
    """(h, w) in [0, 1]: sums of ever finer random grids, the usual stand-in for natural texture."""
    total = np.zeros(hw, np.float32)
    roughness = rng.uniform(0.4, 0.85)
    for octave in range(octaves):
        grid = rng.random((2 ** (octave + 1) + 1, 2 ** (octave + 1) + 1), np.float32)
        total += roughness**octave * cv2.resize(grid, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((total - total.min()) / (np.ptp(total) + 1e-6), np.float32)


def noise_image(rng: np.random.Generator, hw: tuple[int, int]) -> Bytes:
    """(h, w, 3): two colours mixed by noise, often with stripes, tiles or patches on top."""
    mix = noise(rng, hw)[..., None]
    dark, bright = rng.uniform(0, 255, (2, 3))
    image = dark * (1 - mix) + bright * mix
    kind = rng.integers(4)
    rows, cols = np.mgrid[: hw[0], : hw[1]]
    if kind == 1:
        stripes = np.sin((rows * rng.normal() + cols * rng.normal()) * rng.uniform(0.1, 0.6)) > rng.uniform(-0.9, 0.9)
        image = np.where(stripes[..., None], image, image * rng.uniform(0.3, 0.9))
    elif kind == 2:
        tile = rng.integers(8, 60, 2)
        seam = (rows % tile[0] < 2) | ((cols + (rows // tile[0] % 2) * tile[1] // 2) % tile[1] < 2)
        image = np.where(seam[..., None], rng.uniform(0, 255, 3), image)
    elif kind == 3:
        patches = noise(rng, hw, 4) > rng.uniform(0.4, 0.7)
        image = np.where(patches[..., None], rng.uniform(0, 255, 3), image)
    return np.asarray(image.clip(0, 255), np.uint8)
