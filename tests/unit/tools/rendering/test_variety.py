"""Changed copies of few images: other pixels, the same things; and what training hides from the infrared decoder."""

import numpy as np
import torch

from tools.rendering.textures import noise_library
from tools.rendering.train_infrared import with_channels_dropped
from tools.rendering.variety import PHOTO_COPIES, varied
from vidal.models.small_infrared import GROUPS

FEW = noise_library(3, photos=4, cutouts=8)


def test_a_library_grows_by_changed_copies_that_a_seed_fixes() -> None:
    grown, again, other = varied(FEW, 1), varied(FEW, 1), varied(FEW, 2)
    assert (len(grown.photos), len(grown.cutouts)) == (4 * (1 + PHOTO_COPIES), 16)
    assert (grown.photos[:4] == FEW.photos).all()
    assert (grown.cutouts[:8] == FEW.cutouts).all()
    assert all(
        np.abs(copy.astype(int) - image).mean() > 3 for copy, image in zip(grown.photos[4:8], FEW.photos, strict=True)
    )
    assert (grown.photos == again.photos).all()
    assert (grown.cutouts == again.cutouts).all()
    assert (grown.photos[4:] != other.photos[4:]).any()


def test_a_changed_cutout_keeps_its_kind_and_bends_as_a_whole() -> None:
    grown = varied(FEW, 1)
    assert (grown.categories[8:] == FEW.categories).all()
    for before, after in zip(range(8), range(8, 16), strict=True):
        outlines = [grown.cutouts[which][..., 3] > 127 for which in (before, after)]
        assert (outlines[0] & outlines[1]).sum() > 0.5 * (outlines[0] | outlines[1]).sum()
        # Relief and material move with the outline: what bulges is opaque.
        bulging = grown.reliefs[after] > 0
        assert (bulging & outlines[1]).sum() > 0.95 * bulging.sum()


def test_what_imagenet_says_of_a_place_is_never_hidden() -> None:
    torch.manual_seed(0)
    features = [torch.ones(2, 40, 4, 4) for _ in range(5)]
    kept = with_channels_dropped(features)
    assert all((kept[level] == 1).all() for level in (0, 1))
    assert all((kept[level] == 0).any() for level in (2, 3, 4))
    assert (kept[4][:, -len(GROUPS) - 1 :] == 1).all()
    hidden = kept[3][:, :, 0, 0] == 0
    assert (kept[3][:, :, 3, 3] == 0).equal(hidden), "a channel is hidden everywhere or nowhere"
