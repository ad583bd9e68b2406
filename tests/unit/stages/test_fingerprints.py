"""The hash of a frame says what is to be seen, not how it was encoded."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.toys import Pixels, clip_of, encoded, frames, image
from vidal.stages.fingerprints import NO_INFORMATION, Fingerprints, frame_hash


def _distance(a: Pixels, b: Pixels) -> int:
    return (int(frame_hash(a), 16) ^ int(frame_hash(b), 16)).bit_count()


def _reencoded(frame: Pixels, size: tuple[int, int], quality: int) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(encoded(frame, size=size, quality=quality))))


def _cropped(frame: Pixels, share: float) -> Pixels:
    dy, dx = (int(side * share / 2) for side in frame.shape[:2])
    return frame[dy:-dy, dx:-dx]


@pytest.mark.parametrize(
    ("name", "change", "max_bits"),
    [
        ("jpeg quality 20", lambda f: _reencoded(f, (144, 256), 20), 4),
        ("half the size", lambda f: _reencoded(f, (72, 128), 60), 4),
        ("twice the size", lambda f: _reencoded(f, (288, 512), 60), 4),
        ("another shape", lambda f: _reencoded(f, (256, 256), 60), 4),
        ("brighter", lambda f: np.clip(f * 1.15 + 8, 0, 255).astype(np.uint8), 8),
        ("crop of 3 %", lambda f: _cropped(f, 0.03), 12),
    ],
)
def test_an_image_keeps_its_hash_through(name: str, change: Callable[[Pixels], Pixels], max_bits: int) -> None:
    originals = [image(seed) for seed in range(8)]
    distances = [_distance(frame, change(frame)) for frame in originals]
    assert np.mean(distances) <= max_bits, (name, distances)


def test_other_images_have_other_hashes() -> None:
    images = [image(seed) for seed in range(16)]
    closest = min(_distance(a, b) for i, a in enumerate(images) for b in images[:i])
    assert closest > 14


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("black", np.zeros((256, 144, 3), np.uint8)),
        ("flat grey", np.full((256, 144, 3), 90, np.uint8)),
        ("black with noise", np.random.default_rng(0).integers(0, 8, (256, 144, 3)).astype(np.uint8)),
    ],
)
def test_a_flat_frame_has_the_hash_that_says_nothing(name: str, frame: Pixels) -> None:
    assert frame_hash(frame) == NO_INFORMATION, name


def test_the_hash_is_the_one_imagehash_computes() -> None:
    """Held against ``str(imagehash.phash(Image.fromarray(image(seed))))`` of imagehash 4.3.2."""
    assert [frame_hash(image(seed)) for seed in (0, 1)] == ["9989b230b73f61c9", "e44c44b76af39899"]


def test_a_clip_gets_sixteen_digits_for_each_stored_frame_in_order() -> None:
    clip = clip_of(frames(1))
    Fingerprints().process(clip)
    assert clip.frame_hash is not None
    assert clip.frame_hash == "".join(frame_hash(frame) for frame in clip.work.frames())
    assert len(clip.frame_hash) == 8 * 16
    assert len({clip.frame_hash[k : k + 16] for k in range(0, 128, 16)}) > 4
