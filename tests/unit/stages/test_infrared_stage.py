"""Infrared is made frame by frame with one style and one mapping, at the frame's own size and time."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.unit.stages.layered import FIRST_S, STEP_S, clip_of, image, images_of
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.device import dtype_for
from vidal.models.infrared import SrgbTir, SrgbTirConfig, SrgbTirTranslator, load_infrared, load_srgb_tir
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
    without, with_light = stage._translator.translate([dim, lit])
    far = np.ones(dim.shape[:2], dtype=bool)
    far[70:190, 170:290] = False
    # The generator's own normalisation passes on a little of it; a stretch to the extremes would be added to that.
    assert np.abs(without[far].astype(int) - with_light[far].astype(int)).mean() < 6


@pytest.fixture(scope="module")
def srgb_tir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of an untrained sRGB-TIR generator, with its sizes beside it."""
    folder = tmp_path_factory.mktemp("srgb-tir")
    torch.manual_seed(0)
    sizes = {"dim": 4, "mlp_dim": 8, "style_dim": 4, "n_downsample": 1, "n_res": 1}
    state = SrgbTir(SrgbTirConfig(**sizes)).state_dict().items()
    named = {("b." if k.startswith("enc_content.") else "a.") + k: v.contiguous() for k, v in state}
    save_file(named, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"gen": sizes}))
    return folder / "weights.safetensors"


def test_srgb_tir_by_itself_makes_what_the_stage_does_with_its_weights(srgb_tir: Path) -> None:
    generator, frame = load_srgb_tir(srgb_tir), image(64, 112, 5)
    rgb = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
    infrared = ((generator.translate(rgb, generator.style(3)).mean(1)[0] + 1) * 127.5).round().clamp(0, 255)
    (by_stage,) = load_infrared(str(srgb_tir), device="cpu", style_seed=3).translate([frame])
    assert np.abs(infrared.numpy() - by_stage).max() <= 1


def test_half_precision_on_a_gpu_only() -> None:
    assert [dtype_for(half, "cuda") for half in (True, "bfloat16", False)] == [
        torch.float16, torch.bfloat16, torch.float32,
    ]  # fmt: skip
    assert dtype_for(True, "cpu") == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_changes_little(srgb_tir: Path, dtype: torch.dtype) -> None:
    """Computed on the CPU, where the stage would not: the same arithmetic, slowly."""
    full, frames = load_infrared(str(srgb_tir), device="cpu"), [image(72, 128, 1)]
    assert isinstance(full, SrgbTirTranslator)
    half = replace(full, generator=copy.deepcopy(full.generator).to(dtype), style=full.style.to(dtype), dtype=dtype)
    assert np.abs(np.stack(half.translate(frames)).astype(int) - np.stack(full.translate(frames))).mean() < 3


def test_another_style_seed_gives_other_bytes_and_is_part_of_the_identity(stage: Infrared, srgb_tir: Path) -> None:
    assert Infrared(style_seed=11).identity() != stage.identity()
    images = [load_infrared(str(srgb_tir), device="cpu", style_seed=s).translate([image(64, 64)]) for s in (0, 11)]
    assert (images[0][0] != images[1][0]).any()


def test_any_image_to_image_model_of_transformers_is_loaded(tmp_path: Path) -> None:
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution, Swin2SRImageProcessor

    tiny = {"embed_dim": 8, "depths": [1], "num_heads": [1], "window_size": 4, "image_size": 32, "upscale": 2}
    Swin2SRForImageSuperResolution(Swin2SRConfig(**tiny)).save_pretrained(tmp_path)
    Swin2SRImageProcessor().save_pretrained(tmp_path)
    (made,) = load_infrared(str(tmp_path), device="cpu").translate([image(64, 96)])
    assert (made.dtype, made.shape) == (np.uint8, (64, 96))


OUTSIDE = """
import numpy as np

def load(device, dtype):
    return lambda frames: [255 - frame[..., 2] for frame in frames]

def of_another_size(device, dtype):
    return lambda frames: [np.zeros((8, 8), np.uint8) for _ in frames]
"""


def test_a_function_of_ones_own_makes_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "infrared_outside.py").write_text(OUTSIDE)
    stage, clip = Infrared(model="infrared_outside:load"), clip_of([image(64, 96)])
    stage.setup()
    stage.process_batch([clip])
    assert np.abs(images_of(clip, "infrared")[0].astype(int) - (255 - image(64, 96)[..., 2])).mean() < 6
    assert clip.infrared_model and clip.infrared_model.startswith("infrared_outside:load sha256:")
    with pytest.raises(ModelError, match="infrared_outside:of_another_size must return"):
        Infrared(model="infrared_outside:of_another_size").setup()


def test_edges_of_the_sample_generator_agree_with_the_colour(stage: Infrared) -> None:
    clip = clip_of([image(128, 228, seed) for seed in range(2)])
    stage.process_batch([clip])
    assert clip.infrared_edge_agreement is not None
    assert clip.infrared_edge_agreement > 0.05


def test_edge_agreement_of_known_images() -> None:
    frame = image(64, 64, 2)
    grey = np.asarray(Image.fromarray(frame).convert("L"))
    assert edge_agreement(frame, grey) == pytest.approx(1, abs=0.02)
    assert edge_agreement(frame, 255 - grey) == pytest.approx(1, abs=0.02)
    assert abs(edge_agreement(frame, rng.integers(0, 255, (64, 64), dtype=np.uint8)) or 0) < 0.2
    assert edge_agreement(frame, np.zeros((64, 64), np.uint8)) is None


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


def test_a_pipeline_of_diffusers_is_told_where_it_goes(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionImg2ImgPipeline"}')
    with pytest.raises(ModelError, match=r"is a pipeline of diffusers, .* name package\.module:function"):
        Infrared(model=str(tmp_path)).setup()
