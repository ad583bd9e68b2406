"""Rendered scenes: the depth is the geometry's, a seed fixes every byte, and rows say little about distance."""

import numpy as np
import pytest

from tools.rendering.frames import inverse_depth_rank
from tools.rendering.materials import Category, Material
from tools.rendering.raycast import Board, Box, Cylinder, Ellipsoid, Floats, Plane, Shape, camera_rays
from tools.rendering.scenes import render
from tools.rendering.textures import Library, noise_library

AHEAD = np.array([[0, 0, 1]], np.float32)
SOLID = np.full((4, 4), 255, np.uint8)
FLAT = np.zeros((4, 4), np.float32)


@pytest.fixture(scope="module")
def library() -> Library:
    return noise_library(1, photos=8, cutouts=12)


@pytest.mark.parametrize(
    ("shape", "depth_m"),
    [
        (Plane(normal=(0, 0, 1), offset_m=4), 4),
        (Ellipsoid(centre=(0, 0, 5), radii=(1, 1, 2)), 3),
        (Ellipsoid(centre=(0, 0, 5), radii=(1, 1, 2), yaw=np.pi / 2), 4),
        (Box(centre=(0, 0, 5), half=(1, 1, 0.5)), 4.5),
        (Box(centre=(0, 0, 5), half=(1, 1, 1), yaw=np.pi / 4), 5 - 2**0.5),
        (Cylinder(centre=(0, 0, 6), radius_m=1.5, half_height_m=1), 4.5),
        (Board(centre=(0, 0, 7), width_m=1, height_m=1, yaw=0, alpha=SOLID, bulge=FLAT + 0.5), 6.5),
        (Board(centre=(0, 0, 7), width_m=1, height_m=1, yaw=0, alpha=SOLID * 0, bulge=FLAT), np.inf),
        (Box(centre=(0, 0, -5), half=(1, 1, 1)), np.inf),
        (Cylinder(centre=(0, 3, 6), radius_m=1.5, half_height_m=1), np.inf),
    ],
)
def test_a_ray_straight_ahead_meets_the_shape_at_its_depth(shape: Shape, depth_m: float) -> None:
    assert shape.hit(AHEAD).t[0] == pytest.approx(depth_m, rel=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        Ellipsoid(centre=(1, -0.5, 4), radii=(0.6, 1.2, 0.4), yaw=0.7),
        Box(centre=(-1, 0.5, 3), half=(0.3, 0.9, 0.5), yaw=0.4),
        Cylinder(centre=(0.5, 0.5, 2.5), radius_m=0.8, half_height_m=0.6),
        Board(centre=(0, 0, 3), width_m=2, height_m=1, yaw=0.3, alpha=SOLID, bulge=FLAT),
    ],
)
def test_leaving_out_far_rays_leaves_out_no_hit(shape: Shape) -> None:
    rays = camera_rays((60, 80), half_height=0.8, pitch=0.2, roll=0.1)
    met = np.flatnonzero(np.isfinite(shape.hit(rays).t))
    assert len(met) > 20
    assert set(met) <= set(shape.may_meet(rays))


def test_a_camera_that_looks_down_sees_the_floor_at_its_height() -> None:
    rays: Floats = camera_rays((1, 1), half_height=0.5, pitch=np.pi / 4, roll=0)
    assert Plane(normal=(0, 1, 0), offset_m=2).hit(rays).t[0] == pytest.approx(2 * 2**0.5, rel=1e-5)


def test_a_seed_fixes_every_byte_of_a_frame(library: Library) -> None:
    first, again, other = (render(seed, library, (48, 64)) for seed in (3, 3, 4))
    for name in ("rgb", "depth", "segment", "material", "category", "lit"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.rgb != other.rgb).any()


def test_rows_alone_explain_little_of_the_depth(library: Library) -> None:
    from scipy.stats import spearmanr

    rows = np.repeat(np.arange(48), 64)
    frames = [render(seed, library, (48, 64)) for seed in range(40)]
    assert np.mean([spearmanr(rows, (1 / f.depth).ravel()).statistic for f in frames]) < 0.55


def test_a_cutout_brings_its_category_material_and_relief_into_the_scene(library: Library) -> None:
    frames = [render(seed, library, (48, 64), honest=True) for seed in range(20)]
    plants = np.concatenate([frame.material[frame.category == Category.PLANT] for frame in frames])
    assert {Material.PLANT} <= set(plants) <= {Material.PLANT, Material.CONCRETE}, "leaves, and pots for some"
    people = np.concatenate([frame.material[frame.category == Category.PERSON] for frame in frames])
    assert {Material.SKIN, Material.FABRIC} == set(people)
    assert all((frame.category[frame.segment == 0] == Category.SCENERY).all() for frame in frames)


def test_rank_is_the_share_of_farther_pixels_with_ties_in_the_middle() -> None:
    depth = np.array([[np.inf, np.inf, 4, 2]], np.float32)
    assert inverse_depth_rank(depth).tolist() == [[63, 63, 159, 223]]


def test_held_out_images_are_not_among_those_for_training(library: Library) -> None:
    seen, unseen = library.part(held_out=False), library.part(held_out=True)
    assert len(seen.cutouts) + len(unseen.cutouts) == len(library.cutouts)
    assert not {c.tobytes() for c in seen.cutouts} & {c.tobytes() for c in unseen.cutouts}
