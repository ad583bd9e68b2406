"""Augmentations: off by default, in training only, and one draw for all that belongs to a clip."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.toys import frames
from vidal.modality.audio import AudioTransform
from vidal.modality.augment import ColourJitter, random_box
from vidal.modality.depth import DepthTransform
from vidal.modality.infrared import InfraredTransform
from vidal.modality.video import VideoTransform

CLIP = np.stack(frames(0))
DEPTH = (CLIP[:1, ..., 0].astype(np.uint16) * 20).copy()
SOUND = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
JITTER = ColourJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
AUGMENTED = [
    (VideoTransform(size=64, colour_jitter=JITTER), CLIP),
    (VideoTransform(size=64, scale=(0.3, 0.8)), CLIP),
    (InfraredTransform(size=64, scale=(0.3, 0.8)), CLIP[:1, ..., 0].copy()),
    (DepthTransform(size=64, scale=(0.3, 0.8)), DEPTH),
    (AudioTransform(mel_bins=40, length=50, time_mask=20), SOUND),
    (AudioTransform(mel_bins=40, length=50, frequency_mask=20), SOUND),
]
NAMES = ["colours", "scale", "scale of infrared", "scale of depth", "time", "frequency"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(transform):
    """The same transform without what these tests add to it."""
    added = ("scale", "frame_choice", "colour_jitter", "time_mask", "frequency_mask", "masks")
    return type(transform).model_validate(transform.model_dump(exclude={*added}))


@pytest.mark.parametrize(("transform", "array"), AUGMENTED, ids=NAMES)
def test_an_augmentation_is_seen_in_training_and_never_in_evaluation(transform, array):
    assert torch.equal(transform(array, None), plain(transform)(array, None))
    assert not torch.equal(transform(array, rng()), plain(transform)(array, rng()))
    assert torch.equal(transform(array, rng(1)), transform(array, rng(1)))
    assert len({transform(array, rng(seed)).numpy().tobytes() for seed in range(8)}) > 5


@pytest.mark.parametrize(
    ("transform", "array"),
    [(VideoTransform(size=144), CLIP), (DepthTransform(size=144, crop="random", flip=0.5), DEPTH)],
    ids=["video", "depth"],
)
def test_without_augmentations_a_sample_is_its_crop_and_takes_no_other_draw(transform, array):
    """The frames have the width of the crop: nothing is resized."""
    for seed in range(8):
        mine, theirs = rng(seed), rng(seed)
        prepared = transform.prepare(array, mine)
        top, left = int(theirs.integers(256 - 144 + 1)), int(theirs.integers(1))
        assert prepared.is_mirrored == (theirs.random() < transform.flip)
        assert mine.bit_generator.state == theirs.bit_generator.state
        whole = transform.packed(transform.planes(array)).permute(0, 2, 3, 1)
        assert torch.equal(prepared.values, whole[:, top : top + 144, left : left + 144])


def test_without_augmentations_audio_and_frames_take_no_other_draw():
    mine, theirs = rng(), rng()
    assert VideoTransform(frames=4).frames_to_read(8, mine) == [1, 3, 5, 7]
    AudioTransform(mel_bins=40, length=50)(SOUND, mine)
    for third in np.array_split(np.arange(98 - 50 + 1), 3):
        theirs.choice(third)
    assert mine.bit_generator.state == theirs.bit_generator.state


@pytest.mark.parametrize(("transform", "array"), AUGMENTED, ids=NAMES)
def test_an_encoders_record_names_an_augmentation_that_is_on_alone(transform, array):
    added = {"scale", "frame_choice", "colour_jitter", "time_mask", "frequency_mask", "masks"}
    assert not added & plain(transform).model_dump(mode="json").keys()
    assert type(transform).model_validate(transform.model_dump(mode="json")) == transform


def test_all_frames_of_a_clip_are_changed_alike():
    same = np.stack([CLIP[0]] * 8)
    transform = VideoTransform(size=64, colour_jitter=JITTER, scale=(0.3, 0.8))
    seen = [transform(same, rng(seed)) for seed in range(8)]
    assert all(torch.equal(pixels[:, 0], pixels[:, t]) for pixels in seen for t in range(8))


def test_colours_are_changed_in_either_order():
    """Where pixels are clipped in between, the result tells the order."""
    jitter, found = ColourJitter(brightness=1, saturation=1), set()
    for seed in range(12):
        made, drawn = jitter(CLIP, rng(seed)), rng(seed)
        factors = {name: drawn.uniform(0, 2) for name in ("brightness", "saturation")}
        fitting = [
            order for order in itertools.permutations(factors) if np.abs(made - in_order(order, factors)).max() < 0.6
        ]
        assert fitting
        found |= {*fitting} if len(fitting) == 1 else set()
    assert len(found) == 2


def in_order(order, factors):
    pixels = CLIP.astype(np.float32)
    for name in order:
        grey = pixels @ np.float32([0.299, 0.587, 0.114]) if name == "saturation" else np.zeros(CLIP.shape[:3])
        pixels = (pixels * factors[name] + grey[..., None] * (1 - factors[name])).clip(0, 255)
    return pixels


@pytest.mark.parametrize(("height", "width"), [(256, 256), (144, 256), (256, 144), (90, 120)])
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.2, 0.6)])
def test_boxes_fit_and_have_the_area_and_ratio_asked_for(height, width, scale):
    boxes = [box for seed in range(300) if (box := random_box(height, width, scale, rng(seed)))]
    assert len(boxes) > 200
    square = min(height, width) ** 2
    for top, left, h, w in boxes:
        assert 0 <= top <= height - h and 0 <= left <= width - w
        # Sides are rounded to pixels.
        assert scale[0] - 0.03 < h * w / square < scale[1] + 0.03 and 0.7 < w / h < 1.4
    if height != width and scale == (0.9, 1.0):
        lefts = [max(top, left) for top, left, *_ in boxes]
        assert min(lefts) < 8 and max(lefts) > max(height, width) - min(height, width) - 8


def test_a_frame_that_no_box_fits_is_cropped_to_a_square(monkeypatch):
    monkeypatch.setattr("vidal.modality.image.random_box", lambda *_: None)
    for array in (CLIP, CLIP[:, :100]):
        assert torch.equal(VideoTransform(size=64, scale=(1, 1))(array, rng()), VideoTransform(size=64)(array, rng()))


@pytest.mark.parametrize(("wanted", "stored", "parts"), [
    (4, 8, [{0, 1}, {2, 3}, {4, 5}, {6, 7}]), (3, 8, [{0, 1}, {2, 3, 4}, {5, 6, 7}]), (2, 2, [{0}, {1}]),
])  # fmt: skip
def test_random_frames_are_one_of_each_part_of_the_clip(wanted, stored, parts):
    transform = InfraredTransform(frames=wanted, frame_choice="random")
    drawn = [transform.frames_to_read(stored, rng(seed)) for seed in range(60)]
    assert [{frames[k] for frames in drawn} for k in range(wanted)] == parts
    assert transform.frames_to_read(stored, None) == InfraredTransform(frames=wanted).frames_to_read(stored, None)


@pytest.mark.parametrize(("setting", "axis", "size"), [("time_mask", 2, 50), ("frequency_mask", 1, 40)])
@pytest.mark.parametrize("masks", [1, 2])
def test_masks_hide_bands_of_all_crops_and_nothing_else(setting, axis, size, masks):
    transform = AudioTransform(mel_bins=40, length=50, masks=masks, **{setting: 8})
    widths, hidden = [], np.zeros(size, bool)
    for seed in range(80):
        made, whole = transform(SOUND, rng(seed)), plain(transform)(SOUND, rng(seed))
        masked = (made == 0).all(dim=3 - axis)
        assert torch.equal(masked[0], masked[1]) and torch.equal(masked[0], masked[2])
        kept = ~masked[0]
        assert torch.equal(made.movedim(axis, 0)[kept], whole.movedim(axis, 0)[kept])
        # Bands begin where the masked state goes up.
        assert np.count_nonzero(np.diff(np.r_[0, masked[0].numpy().astype(int)]) == 1) <= masks
        widths.append(int(masked[0].sum()))
        hidden |= masked[0].numpy()
    assert min(widths) == 0 and 8 * masks - 2 <= max(widths) <= 8 * masks
    assert hidden.mean() > 0.9


def test_a_mask_that_may_be_wider_than_a_crop_hides_all_of_it_at_most():
    transform = AudioTransform(mel_bins=40, length=10, time_mask=500)
    made = [int((transform(SOUND, rng(seed)) == 0).all(dim=1)[0].sum()) for seed in range(60)]
    assert (min(made), max(made)) == (0, 10)


def test_settings_are_checked():
    for kind, wrong in (
        (VideoTransform, {"scale": (0.9, 0.5)}), (VideoTransform, {"scale": (0, 1)}), (DepthTransform, {"scale": (1, 2)}),
        (VideoTransform, {"colour_jitter": {"hue": 0.6}}), (VideoTransform, {"colour_jitter": {"color": 1}}),
        (VideoTransform, {"frame_choice": "any"}), (DepthTransform, {"colour_jitter": {"hue": 0.1}}),
        (AudioTransform, {"time_mask": -1}), (AudioTransform, {"frequency_mask": -1}), (AudioTransform, {"masks": 0}),
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            kind.model_validate(wrong)
