"""FLOP counts against torch's FlopCounterMode and against published figures."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vidal.train.flops import forward_flops, training_flops
from vidal.train.towers.settings import LoraSettings, VisionSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

# ViT, GFLOP of one image with its projection, as open_clip's model_profile.csv has them
PUBLISHED = [
    ({"hidden_size": 1024, "layers": 24, "heads": 16, "patch_size": 14, "projection_dim": 768}, 162.03),
    ({"hidden_size": 768, "layers": 12, "heads": 12, "patch_size": 32, "projection_dim": 512}, 8.82),
    ({"hidden_size": 1280, "layers": 32, "heads": 16, "patch_size": 14, "projection_dim": 1024}, 334.59),
]
VIDEO = {"frames": 4, "temporal": True}
KINDS: list[dict[str, Any]] = [
    {},
    {"image_size": (32, 64)},
    VIDEO,
    VIDEO | {"patch_dropout": 0.5},
    {"patch_dropout": 0.3, "frames": 2},
]


@pytest.mark.parametrize(("sizes", "gflop"), PUBLISHED)
def test_published_figures(sizes: dict[str, Any], gflop: float) -> None:
    assert forward_flops(VisionSettings(**sizes)).total / 1e9 == pytest.approx(gflop, rel=0.001)


def test_the_facts_video_figures() -> None:
    large = {"hidden_size": 1024, "layers": 24, "heads": 16, "patch_size": 14, "projection_dim": 768, "frames": 8}
    for temporal, dropout, gflop in [(False, 0.0, 1296), (False, 0.5, 639), (True, 0.3, 1189), (True, 0.5, 847)]:
        s = VisionSettings(**large, temporal=temporal, patch_dropout=dropout)
        assert forward_flops(s, masked=True).total / 1e9 == pytest.approx(gflop, rel=0.003)  # theirs embed every patch


def tower(settings: dict[str, Any]) -> VisionTower:
    sizes = {"hidden_size": 64, "layers": 2, "heads": 4, "patch_size": 8, "image_size": 32, "projection_dim": 48}
    return VisionTower(VisionSettings(**(sizes | settings)))


def counted(one: VisionTower, *, backward: bool) -> int:
    s = one.settings
    pixels = torch.randn(2, s.channels, s.frames, *s.height_width)
    keep = one.draw_keep(2, "cpu", None)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        embedding = one(pixels, keep)
        if backward:
            embedding.sum().backward()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("settings", KINDS)
def test_forward_equals_torchs_count(settings: dict[str, Any]) -> None:
    one = tower(settings)
    assert forward_flops(one.settings, masked=True).total == pytest.approx(counted(one, backward=False), rel=0.005)
    assert forward_flops(one.settings).total == pytest.approx(counted(one.eval(), backward=False), rel=0.005)


@pytest.mark.parametrize("settings", KINDS)
@pytest.mark.parametrize("how", ["full", "attention", "lora"])
def test_a_training_step_equals_torchs_count(settings: dict[str, Any], how: Any) -> None:
    one = tower(settings)
    lora = LoraSettings(rank=4)
    tune(one, how, lora)
    # Adding the adapters to the weights of four projections takes as much for two clips as for a chunk of any size.
    merging = one.settings.layers * 4 * 2 * lora.rank * one.settings.hidden_size**2 // 2 if how == "lora" else 0
    assert training_flops(one.settings, how, lora) == pytest.approx(counted(one, backward=True) - merging, rel=0.005)


def test_a_frozen_tower_only_runs_forward() -> None:
    s = tower({}).settings
    assert training_flops(s, "frozen") == forward_flops(s).total
