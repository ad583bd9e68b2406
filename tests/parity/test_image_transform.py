"""The image pipeline against open_clip's, which resizes with PIL; ours does with torch, on the same bytes.

A resized byte may differ by one grey value of 255, which is 0.015 after normalisation, or by two where the image
grows; hardly any does.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.toys import image
from vidal.modality.depth import DepthTransform
from vidal.modality.image import CLIP_STD
from vidal.modality.video import VideoTransform

ONE_GREY = 1.0 / 255 / min(CLIP_STD)


@pytest.mark.parametrize(
    ("width", "height"), [(256, 256), (144, 256), (455, 256), (256, 341), (640, 360), (100, 90), (224, 224)]
)
@pytest.mark.parametrize("size", [224, 112])
def test_evaluation_equals_open_clips(width, height, size):
    from open_clip.transform import image_transform

    photo = image(width + height, width, height)
    theirs = image_transform(size, is_train=False)(Image.fromarray(photo)).numpy()
    ours = VideoTransform(size=size, frames=1)(photo[None], None).numpy()
    difference = np.abs(ours - theirs)
    assert difference.max() < (1.01 if min(width, height) >= size else 2.01) * ONE_GREY
    assert (difference > 0.01 * ONE_GREY).mean() < 0.12


@pytest.mark.parametrize(("width", "height"), [(256, 256), (144, 256), (455, 256)])
def test_metres_are_resized_as_pil_does(width, height):
    """Within half a step of the 16 bits in which a worker hands resized depth over."""
    depth = image(3, width, height)[..., 0].astype(np.uint16) * 30
    ours = DepthTransform(mean=(0, 0, 0), std=(1, 1, 1))(depth[None], None)[0].numpy()
    short = min(width, height)
    resized = (int(224 * width / short), int(224 * height / short))
    metres = Image.fromarray(np.clip(depth.astype(np.float32) / 1000, 0.01, 10) / 10).resize(
        resized, Image.Resampling.BICUBIC
    )
    left, top = (round((side - 224) / 2) for side in resized)
    theirs = np.asarray(metres)[top : top + 224, left : left + 224]
    np.testing.assert_allclose(ours, theirs, atol=1.25e-5 + 5e-6)
