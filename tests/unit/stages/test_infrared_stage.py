"""Infrared is made frame by frame with one style and one mapping, at the frame's own size and time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.stages.layered import FIRST_S, STEP_S, clip_of, image, images_of
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.locate import CHECKPOINTS
from vidal.stages.modalities.infrared import Infrared, edge_agreement

rng = np.random.default_rng(7)


@pytest.fixture(scope="module")
def stage() -> Infrared:
    stage = Infrared()
    stage.setup()
    return stage


@pytest.mark.parametrize(("height", "width"), [(96, 170), (170, 96), (97, 131), (96, 96)])
def test_each_frame_has_one_channel_of_its_own_size_and_time(stage: Infrared, height: int, width: int) -> None:
    clip = clip_of([image(height, width, seed) for seed in range(3)])
    stage.process_batch([clip])
    members = [m for m in clip.work.members if m.layer == "infrared"]
    assert [(m.suffix, m.time_s) for m in members] == [(f"infrared.{k}.jpg", FIRST_S + STEP_S * k) for k in range(3)]
    for member in members:
        stored = Image.open(io.BytesIO(member.data))
        assert (stored.format, stored.mode, stored.size) == ("JPEG", "L", (width, height))
    assert clip.synthetic_layers == ["infrared"]
    assert clip.infrared_model and clip.infrared_model.startswith("vidal:infrared-small sha256:")


def test_a_bright_thing_does_not_change_the_far_rest(stage: Infrared) -> None:
    dim = (image(256, 456, 3) // 3 + 60).astype(np.uint8)
    lit = dim.copy()
    lit[122:134, 222:234] = 255
    without, with_light = stage._generator.translate([dim, lit])
    far = np.ones(dim.shape[:2], dtype=bool)
    far[70:190, 170:290] = False
    # The generator's own normalisation passes on a little of it; a stretch to the extremes would be added to that.
    assert np.abs(without[far].astype(int) - with_light[far].astype(int)).mean() < 6


def test_the_mapping_is_not_stretched_to_the_frame(stage: Infrared) -> None:
    class Grey:
        def translate(self, colour, style):  # type: ignore[no-untyped-def]
            return colour * 0 + 0.5

    loaded = stage._generator
    stage._generator = type(loaded)(generator=Grey(), style=loaded.style, device=loaded.device)
    try:
        clip = clip_of([image(64, 64)])
        stage.process_batch([clip])
    finally:
        stage._generator = loaded
    assert set(np.unique(images_of(clip, "infrared")[0])) == {191}


def test_another_style_seed_gives_other_bytes_and_is_part_of_the_identity(stage: Infrared) -> None:
    other = Infrared(style_seed=11)
    assert other.identity() != stage.identity()


def test_edges_of_the_sample_generator_agree_with_the_colour(stage: Infrared) -> None:
    clip = clip_of([image(128, 228, seed) for seed in range(2)])
    stage.process_batch([clip])
    assert clip.infrared_edge_agreement is not None
    assert clip.infrared_edge_agreement > 0.1


def test_edge_agreement_of_known_images() -> None:
    frame = image(64, 64, 2)
    grey = np.asarray(Image.fromarray(frame).convert("L"))
    assert edge_agreement(frame, grey) == pytest.approx(1, abs=0.02)
    assert edge_agreement(frame, 255 - grey) == pytest.approx(1, abs=0.02)
    assert abs(edge_agreement(frame, rng.integers(0, 255, (64, 64), dtype=np.uint8)) or 0) < 0.2
    assert edge_agreement(frame, np.zeros((64, 64), np.uint8)) is None


def test_the_generator_by_itself_makes_what_the_stage_does(stage: Infrared) -> None:
    from vidal.models.infrared import load_srgb_tir

    generator = load_srgb_tir(CHECKPOINTS / "infrared-small" / "weights.safetensors")
    frame = image(64, 112, 5)
    rgb = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
    infrared = ((generator.translate(rgb, generator.style(0)).mean(1)[0] + 1) * 127.5).round().clamp(0, 255)
    (by_stage,) = stage._generator.translate([frame])
    assert np.abs(infrared.numpy() - by_stage).max() <= 1


def test_a_clip_without_frames_gets_nothing_and_does_not_fail(stage: Infrared) -> None:
    clip = Clip(clip_id="a")
    stage.process_batch([clip])
    assert (clip.work.members, clip.synthetic_layers, clip.infrared_flicker) == ([], [], None)


@pytest.mark.parametrize("kind", ["hub", "empty folder", "not weights"])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    reference = {"hub": "some/model", "empty folder": tmp_path / "empty", "not weights": tmp_path / "bad.pt"}[kind]
    with pytest.raises(ModelError, match="name") as caught:
        Infrared(model=str(reference)).setup()
    assert str(reference) in str(caught.value)
