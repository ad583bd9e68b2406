"""Depth is written in millimetres on one scale for all frames, at the frame's own size and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.unit.stages.layered import FIRST_S, STEP_S, clip_of, image, images_of
from vidal.errors import ClipError, ModelError
from vidal.models.depth import load_depth
from vidal.stages.modalities.depth import Depth


@pytest.fixture(scope="module")
def stage() -> Depth:
    stage = Depth()
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real architectures with few and random weights, as a hub folder would hold them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    glpn = transformers.GLPNConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        max_depth=10,
    )
    backbone = transformers.Dinov2Config(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=14,
        image_size=56,
        out_indices=[1, 2],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    made = {
        "glpn": (transformers.GLPNForDepthEstimation(glpn), transformers.GLPNImageProcessor()),
        **{
            name: (
                transformers.DepthAnythingForDepthEstimation(
                    transformers.DepthAnythingConfig(
                        backbone_config=backbone,
                        reassemble_hidden_size=24,
                        patch_size=14,
                        reassemble_factors=[1, 0.5],
                        neck_hidden_sizes=[8, 8],
                        fusion_hidden_size=8,
                        head_hidden_size=8,
                        depth_estimation_type=name,
                        max_depth=20 if name == "metric" else 1,
                    )
                ),
                transformers.DPTImageProcessor(
                    size={"height": 56, "width": 56}, keep_aspect_ratio=True, ensure_multiple_of=14
                ),
            )
            for name in ("metric", "relative")
        },
    }
    small = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
    fused = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    bit = transformers.BitConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="bottleneck", num_groups=2,
        out_features=["stage1", "stage2", "stage3"], embedding_dynamic_padding=True, global_padding="same",
    )  # fmt: skip
    dinov2 = transformers.Dinov2Config(
        **small, patch_size=14, image_size=56, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
    )
    hybrid = {"is_hybrid": True, "backbone_featmap_shape": [1, 16, 4, 4], "neck_ignore_stages": [0, 1]}
    dpt = {
        "dpt": transformers.DPTConfig(**small, **fused, image_size=64),
        "dpt hybrid": transformers.DPTConfig(**small, **fused, **hybrid, image_size=64, backbone_config=bit),
        "dpt dinov2": transformers.DPTConfig(**small, **fused, backbone_config=dinov2),
    }
    squash = transformers.DPTImageProcessor(size={"height": 64, "width": 64}, keep_aspect_ratio=False)
    made |= {name: (transformers.DPTForDepthEstimation(config), squash) for name, config in dpt.items()}
    for name, (model, processor) in made.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return {name: folder / name for name in made}


@pytest.mark.parametrize(("height", "width"), [(96, 170), (170, 96), (97, 131), (128, 128)])
def test_each_frame_has_16_bits_of_its_own_size_and_time(stage: Depth, height: int, width: int) -> None:
    clip = clip_of([image(height, width, seed) for seed in range(3)])
    stage.process_batch([clip])
    members = [m for m in clip.work.members if m.layer == "depth"]
    assert [(m.suffix, m.time_s) for m in members] == [(f"depth.{k}.png", FIRST_S + STEP_S * k) for k in range(3)]
    for member, depth in zip(members, images_of(clip, "depth"), strict=True):
        assert (depth.dtype, depth.shape) == (np.uint16, (height, width))
        assert len(member.data) < depth.nbytes * 0.8
    assert (clip.depth_scale, clip.synthetic_layers) == ("relative", ["depth"])
    assert clip.depth_model and clip.depth_model.startswith("vidal:depth-small sha256:")
    assert all(d.min() >= 1000 and d.max() <= 10_000 for d in images_of(clip, "depth"))


@pytest.mark.parametrize("name", ["glpn", "metric"])
def test_a_metric_model_gives_millimetres(models: dict[str, Path], name: str) -> None:
    stage = Depth(model=str(models[name]))
    stage.setup()
    frame = image(96, 160, 1)
    clip = clip_of([frame])
    stage.process_batch([clip])
    assert clip.depth_scale == "metric"
    loaded = load_depth(str(models[name]), device="cpu", half=False)
    (metres,) = loaded.estimate(clip.work.frames())
    assert metres.shape == (96, 160)
    assert np.abs(images_of(clip, "depth")[0].astype(float) - metres * 1000).max() <= 0.5


def of_max_depth(models: dict[str, Path], folder: Path, name: str, max_depth: int) -> Path:
    """The model with another greatest depth, and a bias by which it says it everywhere."""
    model = transformers.AutoModelForDepthEstimation.from_pretrained(models[name])
    model.config.max_depth = max_depth
    *_, last = (layer for layer in model.head.modules() if isinstance(layer, torch.nn.Conv2d))
    torch.nn.init.constant_(last.bias, 50.0)
    model.save_pretrained(folder)
    transformers.AutoImageProcessor.from_pretrained(models[name]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["metric", "glpn"])
@pytest.mark.parametrize(
    ("stated", "asked", "farthest"), [(10, None, 10_000), (40, None, 40_000), (80, None, 65_535), (80, 20.0, 20_000)]
)
def test_the_farthest_depth_is_what_the_metric_model_states_unless_the_recipe_says_less(
    models: dict[str, Path], tmp_path: Path, name: str, stated: int, asked: float | None, farthest: int
) -> None:
    stage = Depth(model=str(of_max_depth(models, tmp_path / "far", name, stated)), max_depth_m=asked)
    stage.setup()
    clip = clip_of([image(60, 100, 1)])
    stage.process_batch([clip])
    assert set(np.unique(images_of(clip, "depth")[0])) == {farthest}
    assert clip.depth_saturation_share == 1.0


@pytest.mark.parametrize(
    ("metres", "millimetres", "saturated"),
    [(0.0004, 0, 1.0), (1.2346, 1235, 0.0), (9.999, 9999, 0.0), (10.0, 10_000, 1.0), (37.0, 10_000, 1.0), (-2, 0, 1.0)],
)
def test_metres_are_clipped_and_the_share_at_either_end_is_kept(
    models: dict[str, Path], metres: float, millimetres: int, saturated: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Depth(model=str(models["glpn"]))
    stage.setup()
    monkeypatch.setattr(type(stage._estimator), "estimate", lambda self, frames: [np.full((4, 6), metres, np.float32)])
    clip = clip_of([np.zeros((4, 6, 3), np.uint8)])
    stage.process_batch([clip])
    (depth,) = images_of(clip, "depth")
    assert (depth == millimetres).all()
    assert clip.depth_saturation_share == saturated


@pytest.mark.parametrize(("value", "millimetres"), [(0, 10_000), (-1, 10_000), (1, 1000), (0.5, 1818), (40, 1000)])
def test_values_of_a_stated_range_have_one_nominal_depth_whatever_else_is_in_the_clip(
    stage: Depth, value: float, millimetres: int
) -> None:
    for rest in (0.0, 0.3, 50.0):
        values = np.full((8, 8), rest, np.float32)
        values[0, 0] = value
        assert stage._millimetres([np.full((8, 8), 9.0, np.float32), values])[1][0, 0] == millimetres


@pytest.mark.parametrize(("least", "most"), [(6.0, 30.0), (0.0, 1.0), (-3.0, 900.0)])
def test_values_of_no_stated_range_fill_the_nominal_one_in_order_and_alike_in_every_frame_of_a_clip(
    models: dict[str, Path], least: float, most: float
) -> None:
    stage = Depth(model=str(models["relative"]))
    stage.setup()
    ramp = np.linspace(least, most, 4000, dtype=np.float32).reshape(50, 80)
    half = (least + ramp) / 2 if least else ramp / 2
    outlier = ramp.copy()
    outlier[0, 0] = most * 1000
    whole, nearer, third = (depth.astype(int) for depth in stage._millimetres([ramp, half, outlier]))
    assert 9900 < whole.max() <= 10_000 and 1000 <= whole.min() < 1060
    assert (np.diff(whole.ravel()) <= 0).all() and len(np.unique(whole)) > 1800
    # Equal values of two frames are equal depths.
    assert (whole.ravel()[1:] == third.ravel()[1:]).all() and third[0, 0] == 1000
    order = np.argsort(np.concatenate([ramp.ravel(), half.ravel()]), kind="stable")
    assert (np.diff(np.concatenate([whole.ravel(), nearer.ravel()])[order]) <= 0).all()


def test_a_clip_of_one_value_is_as_far_as_can_be(models: dict[str, Path]) -> None:
    stage = Depth(model=str(models["relative"]))
    stage.setup()
    assert (stage._millimetres([np.full((4, 4), 12.0, np.float32)])[0] == 10_000).all()


@pytest.mark.parametrize("name", ["dpt", "dpt hybrid", "dpt dinov2"])
@pytest.mark.parametrize(("height", "width"), [(96, 170), (170, 96), (97, 131), (80, 80)])
def test_every_kind_of_dpt_takes_frames_of_any_shape(
    models: dict[str, Path], name: str, height: int, width: int
) -> None:
    stage = Depth(model=str(models[name]))
    stage.setup()
    clip = clip_of([image(height, width, seed) for seed in range(2)])
    stage.process_batch([clip])
    assert [depth.shape for depth in images_of(clip, "depth")] == [(height, width)] * 2
    assert clip.depth_scale == "relative"


def test_a_relative_model_of_transformers_is_recorded_as_relative(models: dict[str, Path]) -> None:
    stage = Depth(model=str(models["relative"]))
    stage.setup()
    clip = clip_of([image(100, 60)])
    stage.process_batch([clip])
    assert clip.depth_scale == "relative"
    assert images_of(clip, "depth")[0].shape == (100, 60)


def test_the_processor_keeps_the_aspect_even_where_its_file_says_to_squash(models: dict[str, Path]) -> None:
    folder = models["relative"].parent / "squashing"
    transformers.AutoModelForDepthEstimation.from_pretrained(models["relative"]).save_pretrained(folder)
    transformers.DPTImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    loaded = load_depth(str(folder), device="cpu", half=True)
    height, width = loaded.processor(images=[image(128, 256)], return_tensors="pt")["pixel_values"].shape[-2:]
    assert (width, height) == (112, 56)
    assert loaded.dtype == torch.float32


def test_values_that_are_no_numbers_fail_the_clip(stage: Depth) -> None:
    with pytest.raises(ClipError, match="bad_depth"):
        stage._millimetres([np.full((2, 2), np.nan, np.float32)])


@pytest.mark.parametrize("kind", ["no folder", "no weights", "another kind of model", "weights missing"])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(models: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "model"
    if kind == "another kind of model":
        transformers.BertConfig(num_hidden_layers=1).save_pretrained(folder)
    elif kind != "no folder":
        model = transformers.AutoModelForDepthEstimation.from_pretrained(models["glpn"])
        transformers.GLPNImageProcessor().save_pretrained(folder)
        kept = {k: v for k, v in model.state_dict().items() if "decoder.stages.0" not in k}
        model.save_pretrained(folder, state_dict=kept)
        if kind == "no weights":
            (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="name a") as caught:
        Depth(model=str(folder)).setup()
    assert str(folder) in str(caught.value)
