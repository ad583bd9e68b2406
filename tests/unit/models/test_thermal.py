"""The written thermal rule, and the shipped network that imitates it."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tools.rendering.evaluate_infrared import frames_of, score_clips, score_renders
from tools.rendering.frames import REPORTING_SEEDS, held_out_frames
from tools.rendering.materials import THERMAL, Category, Material
from tools.rendering.scenes import Frame
from tools.rendering.textures import noise_library
from tools.rendering.thermal import AIR_K, CLASSES, apparent_temperature, class_levels, infrared, surface_class
from vidal.models.infrared import Translator, load_infrared

CLIPS = ROOT / "samples" / "clips"


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


@pytest.mark.parametrize(("lit", "least_k", "most_k"), [(0.0, 0, 0.01), (1.0, 3, 10)])
def test_dark_surfaces_are_warmer_in_the_sun_and_nowhere_else(lit: float, least_k: float, most_k: float) -> None:
    light, dark = (dataclasses.replace(wall(lit=lit), rgb=np.full((24, 32, 3), grey, np.uint8)) for grey in (230, 25))
    assert least_k <= apparent_temperature(dark)[0, 0] - apparent_temperature(light)[0, 0] < most_k


def test_worn_cloth_is_warmer_than_a_curtain() -> None:
    curtain = wall(Material.FABRIC)
    worn = dataclasses.replace(curtain, category=np.full((24, 32), Category.PERSON, np.uint8))
    assert apparent_temperature(worn)[0, 0] - apparent_temperature(curtain)[0, 0] > 4
    assert surface_class(worn)[0, 0] == CLASSES - 1 == len(class_levels()) - 1
    assert surface_class(curtain)[0, 0] == Material.FABRIC


def test_metal_outdoors_mirrors_the_cold_sky_and_wood_hardly_does() -> None:
    for material, least_k, most_k in ((Material.METAL, 3, 30), (Material.WOOD, 0.1, 3)):
        indoors = apparent_temperature(wall(material))[20, 20]
        outdoors = apparent_temperature(with_patch(wall(material), Material.SKY))[20, 20]
        assert least_k < indoors - outdoors < most_k


def test_every_material_has_its_numbers() -> None:
    assert set(THERMAL) == set(Material)
    assert [m.value for m in Material] == list(range(len(Material))), "the rule looks numbers up by value"


@pytest.fixture(scope="module")
def network() -> Translator:
    return load_infrared("vidal:infrared-small", device="cpu")


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return held_out_frames(noise_library(REPORTING_SEEDS), first=REPORTING_SEEDS, count=10, honest=True)


def test_the_network_follows_the_rule_on_scenes_never_seen(network: Translator, frames: list[Frame]) -> None:
    result = score_renders(network, frames, first=REPORTING_SEEDS)
    assert result["correlation"] > 0.2, (
        "these scenes are noise all over, as no film is; the model card has those of pictures, and rms on these too"
    )


def test_the_same_frame_gives_the_same_bytes(network: Translator, frames: list[Frame]) -> None:
    torch.manual_seed(1)
    first = network.translate([frames[0].rgb])[0]
    torch.manual_seed(2)
    assert first.tobytes() == network.translate([frames[0].rgb])[0].tobytes()


def test_people_come_out_brighter_than_their_surroundings(network: Translator, frames: list[Frame]) -> None:
    gaps = []
    for frame in frames:
        skin = frame.material == Material.SKIN
        grey = network.translate([frame.rgb])[0]
        if skin.mean() > 0.005:
            gaps.append(grey[skin].mean() - grey[~skin].mean())
    assert len(gaps) >= 2
    assert np.mean(gaps) > 30


def test_the_sample_has_contrast_that_is_no_inverted_brightness_and_hides_captions(network: Translator) -> None:
    names = ("bunny-wake.mp4", "cat-stare.mp4", "sintel-dunes.mp4", "astronaut-portrait.mp4")
    result = score_clips(network, [frames_of(CLIPS / name)[::4] for name in names])
    assert result["span"] > 120
    assert abs(result["brightness_correlation"]) < 0.5, (
        "over the whole sample it is .37; four clips with much sky have more"
    )
    assert result["caption_contrast"] < 12 < result["caption_contrast_of_colour"]
    assert result["flicker"] < result["flicker_of_colour"]


def test_people_and_animals_of_the_sample_are_warm(network: Translator) -> None:
    """Places of a face and a body in two photographs (shares of height and width), against a corner."""
    for name, (y, x) in {"astronaut-portrait.mp4": (0.3, 0.45), "cat-stare.mp4": (0.6, 0.5)}.items():
        grey = network.translate(frames_of(CLIPS / name)[:1])[0]
        h, w = grey.shape
        there = grey[int((y - 0.05) * h) : int((y + 0.05) * h), int((x - 0.03) * w) : int((x + 0.03) * w)]
        assert there.mean() > grey.mean() + 20, name
