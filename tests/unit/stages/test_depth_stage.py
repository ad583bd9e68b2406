"""Depth is written in millimetres on one scale for all frames, at the frame's own size and time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import vidal
from tests.processes import command
from tests.runs import write_recipe
from tests.unit.models.test_captioners import Oblong
from tests.unit.stages.layered import FIRST_S, STEP_S, clip_of, image, images_of
from vidal.errors import ClipError, ModelError
from vidal.models.depth import DepthModel, load_depth, measure_range, range_frames
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
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8,
        max_depth=10,
    )  # fmt: skip
    backbone = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=56, out_indices=[1, 2],
        apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
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
    beit = transformers.BeitConfig(
        **small, image_size=64, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, use_relative_position_bias=True
    )
    zoe = transformers.ZoeDepthConfig(
        backbone_config=beit, backbone_hidden_size=24, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8,
        bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 80.0, "name": "kitti"}],
    )  # fmt: skip
    zoe_size = transformers.ZoeDepthImageProcessor(size={"height": 64, "width": 64})
    made["zoe"] = transformers.ZoeDepthForDepthEstimation(zoe), zoe_size
    vit = {
        "model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4,
        "image_size": 32, "mlp_ratio": 2,
    }  # fmt: skip
    pro = transformers.DepthProConfig(
        image_model_config=vit, patch_model_config=vit, fov_model_config=vit, fusion_hidden_size=8, patch_size=32,
        intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8], scaled_images_feature_dims=[8, 8, 8],
        num_fov_head_layers=1,
    )  # fmt: skip
    pro_size = transformers.DepthProImageProcessor(size={"height": 128, "width": 128})
    made["depth pro"] = transformers.DepthProForDepthEstimation(pro), pro_size
    for name, (model, processor) in made.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return {name: folder / name for name in made}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("glpn", "metric"), ("metric", "metric"), ("zoe", "metric"), ("depth pro", "metric"), ("relative", "relative"),
        ("dpt", "relative"), ("dpt hybrid", "relative"), ("dpt dinov2", "relative"),
    ],
)  # fmt: skip
def test_a_recipe_stores_the_depth_of_oblong_frames_with_any_class(
    name: str, scale: str, models: dict[str, Path], tmp_path: Path
) -> None:
    path = write_recipe(tmp_path, [f"{Oblong.__module__}:Oblong", {"depth": {"model": str(models[name])}}], titles=2)
    done = command("build", path, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert done.returncode == 0, done.stderr
    samples = vidal.open(tmp_path / "out")
    assert len(samples) == 2
    for sample in samples:
        assert sample["row"]["depth_scale"] == scale
        assert (sample["depth"].shape, sample["depth"].dtype) == ((3, 48, 80), np.uint16)


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


@pytest.mark.parametrize("stated", [(6.0, 30.0), (-3.0, 900.0), None], ids=str)
def test_values_of_an_unbounded_model_are_on_one_scale_whatever_else_is_in_the_clip(
    models: dict[str, Path], stated: tuple[float, float] | None
) -> None:
    stage = Depth(model=str(models["relative"]), value_range=stated)
    stage.setup()
    low, high = stated or measure_range(stage._estimator)
    assert stage.facts() == {"scale": f"relative, value_range: [{low:g}, {high:g}]"}
    ramp = np.linspace(low, high, 4000, dtype=np.float32).reshape(50, 80)
    alone, (beside, outside) = stage._millimetres([ramp])[0], stage._millimetres([ramp, ramp * 100 + 9])
    assert (alone == beside).all() and set(np.unique(outside)) <= set(range(1000, 10_001))
    # In equal steps of the value, so there are more of the near depths.
    assert (alone.max(), alone.min()) == (10_000, 1000) and (np.diff(alone.astype(int).ravel()) <= 0).all()


def test_a_range_that_was_measured_is_of_the_photographs_and_the_same_in_every_worker(models: dict[str, Path]) -> None:
    ranges = []
    for _ in range(2):
        stage = Depth(model=str(models["relative"]))
        stage.setup()
        ranges.append(stage._range)
    values = np.concatenate([depth.ravel() for depth in stage._estimator.estimate(range_frames())])
    assert ranges[0] == ranges[1] == pytest.approx(np.percentile(values, [0.5, 99.5]), rel=5e-3)
    assert {frame.shape for frame in range_frames()} == {(180, 320, 3)} and len(range_frames()) == 5


def test_a_model_of_one_value_is_as_far_as_can_be(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DepthModel, "estimate", lambda self, frames: [np.full(f.shape[:2], 12.0) for f in frames])
    stage = Depth(model=str(models["relative"]))
    stage.setup()
    assert (stage._millimetres([np.full((4, 4), 12.0, np.float32)])[0] == 10_000).all()
    assert stage.doubts() == [
        "100% of its depth of test photographs is at an end of the range; see max_depth_m, value_range"
    ]


@pytest.mark.parametrize(
    ("metres", "doubt"),
    [
        ((0.5, 4.0), None), ((3.0, 12.0), None), ((3.0, 3.1), "is 3001 to 3099 mm of 10000: nearly one value"),
        ((20.0, 90.0), "100% of its depth"), ((0.03, 0.17), "is 31 to 169 mm of 10000: nearly one value"),
    ],
)  # fmt: skip
def test_depth_that_is_nearly_one_value_or_out_of_range_is_doubted(
    models: dict[str, Path], metres: tuple[float, float], doubt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Depth(model=str(models["glpn"]))
    stage.setup()
    ramp = np.linspace(*metres, 180 * 320, dtype=np.float32).reshape(180, 320)
    monkeypatch.setattr(DepthModel, "estimate", lambda self, frames: [ramp for _ in frames])
    doubts = stage.doubts()
    assert (doubts == []) if doubt is None else (len(doubts) == 1 and doubt in doubts[0]), doubts


@pytest.mark.parametrize("name", ["glpn", "relative", "metric", "dpt dinov2"])
def test_frames_of_any_shape_are_squashed_to_an_input_size(
    models: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_depth(str(models[name]), device="cpu", half=False, input_size=(140, 84))
    assert isinstance(loaded, DepthModel)
    seen: list[tuple[int, ...]] = []
    forward = type(loaded.model).forward

    def watched(self: object, pixel_values: torch.Tensor, **options: object) -> object:
        seen.append(tuple(pixel_values.shape[-2:]))
        return forward(self, pixel_values=pixel_values, **options)

    monkeypatch.setattr(type(loaded.model), "forward", watched)
    frames = [image(60, 100, 1), image(100, 60, 2)]
    assert [loaded.estimate([frame])[0].shape for frame in frames] == [(60, 100), (100, 60)]
    # GLPN takes multiples of 32, as it did with VIDAL's 796.
    assert seen == [(128, 64) if name == "glpn" else (140, 84)] * 2


@pytest.mark.parametrize(
    "settings", [{"value_range": [3, 1]}, {"value_range": [0, float("inf")]}, {"input_size": [796, 16]}], ids=str
)
def test_a_range_or_size_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Depth(**settings)


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
