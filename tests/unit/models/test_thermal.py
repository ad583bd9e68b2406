"""The written thermal rule, and the shipped generator that imitates it."""

import dataclasses

import numpy as np
import pytest
import torch

from tools.rendering.evaluate_depth import CHECKPOINT
from tools.rendering.frames import REPORTING_SEEDS, held_out_frames
from tools.rendering.materials import THERMAL, Material
from tools.rendering.scenes import Frame
from tools.rendering.textures import noise_library
from tools.rendering.thermal import AIR_K, apparent_temperature, infrared
from tools.rendering.train_infrared import STYLE_SEED, grey, score
from vidal.models.srgb_tir import SrgbTir, load_srgb_tir

INFRARED = CHECKPOINT.with_name("infrared-small")


def wall(material: Material = Material.CONCRETE, *, depth_m: float = 3.0, lit: float = 0.0) -> Frame:
    """A frame of 24 x 32 pixels that shows one material only."""
    hw = (24, 32)
    return Frame(
        rgb=np.full((*hw, 3), 128, np.uint8),
        depth=np.full(hw, depth_m, np.float32),
        segment=np.zeros(hw, np.uint8),
        material=np.full(hw, material, np.uint8),
        category=np.zeros(hw, np.uint8),
        lit=np.full(hw, lit, np.float32),
    )


def with_patch(frame: Frame, material: Material) -> Frame:
    """The same frame with that material in rows and columns 8 to 15."""
    changed = frame.material.copy()
    changed[8:16, 8:16] = material
    return dataclasses.replace(frame, material=changed)


@pytest.mark.parametrize("warm", [Material.BODY, Material.SKIN])
@pytest.mark.parametrize("cool", [Material.CONCRETE, Material.WOOD, Material.PLANT, Material.WATER, Material.SKY])
def test_warm_bodies_are_brighter_than_what_surrounds_them(warm: Material, cool: Material) -> None:
    image = infrared(with_patch(wall(cool), warm))
    assert image[10:14, 10:14].min() > image[:, 20:].max() + 40


def test_something_hot_does_not_change_the_rest_of_the_image() -> None:
    before, after = infrared(wall()), infrared(with_patch(wall(), Material.SKIN))
    assert (before[:, 20:] == after[:, 20:]).all()
    assert (before[10:14, 10:14] != after[10:14, 10:14]).all()


def test_sun_warms_and_distance_hides() -> None:
    shaded, sunny = (apparent_temperature(wall(lit=lit))[0, 0] for lit in (0.0, 1.0))
    assert sunny == pytest.approx(shaded + THERMAL[Material.CONCRETE].sun_k, abs=0.6)
    near, far, vanished = (
        apparent_temperature(wall(Material.SKIN, depth_m=depth))[0, 0] for depth in (2.0, 300.0, 1e5)
    )
    assert near > far > vanished == pytest.approx(AIR_K, abs=0.01)


def test_dark_surfaces_are_warmer_than_light_ones() -> None:
    light, dark = (dataclasses.replace(wall(), rgb=np.full((24, 32, 3), grey, np.uint8)) for grey in (230, 25))
    assert apparent_temperature(dark)[0, 0] - apparent_temperature(light)[0, 0] > 2


def test_metal_outdoors_mirrors_the_cold_sky_and_wood_hardly_does() -> None:
    for material, least_k, most_k in ((Material.METAL, 3, 30), (Material.WOOD, 0.1, 3)):
        indoors = apparent_temperature(wall(material))[20, 20]
        outdoors = apparent_temperature(with_patch(wall(material), Material.SKY))[20, 20]
        assert least_k < indoors - outdoors < most_k


def test_every_material_has_its_numbers() -> None:
    assert set(THERMAL) == set(Material)
    assert [m.value for m in Material] == list(range(len(Material))), "the rule looks numbers up by value"


@pytest.fixture(scope="module")
def g() -> SrgbTir:
    torch.set_num_threads(1)
    return load_srgb_tir(INFRARED / "weights.safetensors")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return held_out_frames(noise_library(REPORTING_SEEDS), first=REPORTING_SEEDS, count=10, honest=True)


def test_the_generator_follows_the_rule_on_scenes_never_seen(g: SrgbTir, frames: list[Frame]) -> None:
    result = score(g, frames, seed=REPORTING_SEEDS)
    assert result["rms"] < result["constant_rms"]
    assert result["correlation"] > 0.25, "a coarse network, but it has to follow the rule within a frame"


def test_the_same_frame_gives_the_same_bytes(g: SrgbTir, frames: list[Frame]) -> None:
    torch.manual_seed(1)
    first = grey(g, frames[0].rgb)
    torch.manual_seed(2)
    assert first.tobytes() == grey(g, frames[0].rgb).tobytes()


def test_people_come_out_brighter_than_their_surroundings(g: SrgbTir, frames: list[Frame]) -> None:
    shares = [(f, f.material == Material.SKIN) for f in frames]
    gaps = [grey(g, f.rgb)[skin].mean() - grey(g, f.rgb)[~skin].mean() for f, skin in shares if skin.mean() > 0.005]
    assert len(gaps) >= 3
    assert np.mean(gaps) > 3


def test_the_generator_gives_three_nearly_alike_channels(g: SrgbTir, frames: list[Frame]) -> None:
    rgb = torch.from_numpy(frames[1].rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    infrared_rgb = g.translate(rgb, g.style(STYLE_SEED))
    assert (infrared_rgb - infrared_rgb.mean(1, keepdim=True)).abs().mean() * 127.5 < 6
