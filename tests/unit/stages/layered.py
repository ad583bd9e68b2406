"""Clips of smooth frames with sharp boxes, and what a stage of a modality stores for them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.toys import Pixels, encoded
from vidal.clip import Clip
from vidal.work import Member

FIRST_S, STEP_S = 0.25, 2.0


def image(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth colours with a few sharp boxes."""
    numbers = np.random.default_rng(seed)
    small = Image.fromarray(numbers.integers(40, 200, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).copy()
    for _ in range(4):
        y, x = numbers.integers(0, height - 20), numbers.integers(0, width - 20)
        pixels[y : y + 20, x : x + 20] = numbers.integers(0, 255, 3)
    return pixels


def clip_of(frames: list[Pixels], name: str = "a") -> Clip:
    """A clip with a stored frame at 0.25, 2.25, 4.25, … s."""
    clip = Clip(clip_id=name)
    for number, frame in enumerate(frames):
        data, time_s = encoded(frame, quality=95), FIRST_S + STEP_S * number
        clip.work.put(Member(layer="video", suffix=f"frame.{number}.jpg", data=data, time_s=time_s))
    return clip


def images_of(clip: Clip, layer: str) -> list[Pixels]:
    """The images that a stage stored in the layer, in the order of the frames."""
    members = sorted((member for member in clip.work.members if member.layer == layer), key=lambda m: m.suffix)
    return [np.asarray(Image.open(io.BytesIO(member.data))) for member in members]
