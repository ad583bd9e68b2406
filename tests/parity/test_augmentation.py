"""Augmentations against torchvision's: each change of colour, and the boxes and pixels of RandomResizedCrop.

A changed pixel may differ by two grey values of 255, as torchvision rounds down after each operation.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from tests.toys import frames, image
from vidal.modality.augment import ColourJitter, random_box
from vidal.modality.video import VideoTransform

CLIP = np.stack(frames(0, 4))
# The corners of the colour cube have hues that a photograph lacks.
CUBE = np.stack(np.meshgrid(*[np.arange(0, 256, 17, dtype=np.uint8)] * 3), -1).reshape(1, 64, 64, 3)


def factor_of(setting: str, width: float, seed: int) -> float:
    """The one draw of a jitter with a single change."""
    draw = np.random.default_rng(seed).uniform(-width, width)
    return draw if setting == "hue" else 1 + draw


@pytest.mark.parametrize("clip", [CLIP, CUBE], ids=["photograph", "cube"])
@pytest.mark.parametrize(
    ("setting", "width", "greys"), [("brightness", 0.8, 1), ("contrast", 0.8, 1), ("saturation", 0.8, 2), ("hue", 0.5, 1)]
)  # fmt: skip
def test_a_change_of_colour_is_torchvisions(clip, setting, width, greys):
    changed = 0
    for seed in range(6):
        ours = ColourJitter(**{setting: width})(clip, np.random.default_rng(seed))
        change = getattr(F, f"adjust_{setting}")
        theirs = change(torch.from_numpy(clip).permute(0, 3, 1, 2), factor_of(setting, width, seed)).permute(0, 2, 3, 1)
        difference = np.abs(ours.astype(int) - theirs.numpy().astype(int))
        assert difference.max() <= greys, (seed, difference.max())
        changed = max(changed, np.abs(ours.astype(int) - clip).max())
    assert changed > 50


def test_boxes_of_a_square_frame_have_the_sizes_of_open_clips():
    torch.manual_seed(0)
    square = torch.zeros(3, 200, 200)
    theirs = np.array([RandomResizedCrop.get_params(square, [0.5, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    rng = np.random.default_rng(0)
    ours = np.array([random_box(200, 200, (0.5, 1.0), rng) or (0, 0, 200, 200) for _ in range(4000)])
    # Top, left, height and width, of ranges of 80 pixels and more.
    quantiles = [np.quantile(boxes, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0) for boxes in (ours, theirs)]
    np.testing.assert_allclose(*quantiles, atol=3)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (144, 256), (455, 256)])
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.2, 0.5)])
def test_a_resized_crop_has_the_pixels_of_torchvisions(width, height, scale):
    photo = image(width + height, width, height)
    transform = VideoTransform(size=112, frames=1, flip=0, scale=scale)
    boxes = 0
    for seed in range(12):
        box = random_box(height, width, scale, np.random.default_rng(seed))
        if box is None:
            continue
        boxes += 1
        ours = transform.prepare(photo[None], np.random.default_rng(seed)).values[0].numpy()
        theirs = F.resized_crop(
            torch.from_numpy(photo).permute(2, 0, 1), *box, [112, 112], F.InterpolationMode.BICUBIC, antialias=True
        )
        assert np.abs(ours.astype(int) - theirs.permute(1, 2, 0).numpy()).max() <= 1
    assert boxes > 8
