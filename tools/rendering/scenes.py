"""Rendered scenes: RGB, exact depth, segmentation and material of every pixel, all from one seed.

The scenes are built so that height in the image says little about distance: cameras pitch and roll far, a fifth of
the objects float, ceilings and slanted walls come near at the top or at one side, and some scenes have no floor.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.cutouts import DEEPEST
from tools.rendering.materials import Category, Material
from tools.rendering.paint import Texture, backdrop, paint
from tools.rendering.raycast import Board, Box, Cylinder, Ellipsoid, Floats, Plane, Shape, camera_rays
from tools.rendering.textures import Library

SUPERSAMPLE = 1.15
"""Scenes are traced this much finer than asked and averaged down, which softens edges as a lens does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """rgb (h, w, 3) uint8; depth (h, w) float32 z-depth in metres, inf for the sky; segment, material and category
    (h, w) uint8 (segment 0 is the background); lit (h, w) float32, the share of direct sun that heats a surface."""

    rgb: npt.NDArray[np.uint8]
    depth: Floats
    segment: npt.NDArray[np.uint8]
    material: npt.NDArray[np.uint8]
    category: npt.NDArray[np.uint8]
    lit: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A shape, what covers it, and where it touches the floor (x, z, radius in metres), if it does."""

    shape: Shape
    texture: Texture
    material: Material | npt.NDArray[np.uint8]
    """Of the whole, or of each of (k, k) equal parts of a board."""
    category: Category = Category.SCENERY
    contact: tuple[float, float, float] | None = None

    def material_at(self, u: Floats, v: Floats) -> Material | npt.NDArray[np.uint8]:
        """Of points (n,) given by texture coordinates."""
        if isinstance(self.material, Material):
            return self.material
        rows, cols = (np.minimum((x * len(self.material)).astype(np.intp), len(self.material) - 1) for x in (v, u))
        return self.material[rows, cols]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Camera and surroundings of one scene: lengths in metres, angles in radians, the share of objects that float.

    An honest scene has more people and lets colour tell the material, as the infrared network has only that to go by.
    """

    rays: Floats
    hw: tuple[int, int]
    half_height: float
    floor_m: float | None
    outdoor: bool
    floating: float
    honest: bool


def render(seed: int, library: Library, hw: tuple[int, int] = (192, 192), *, honest: bool = False) -> Frame:
    """The scene of that seed, at most 8 objects; same arguments, same frame."""
    rng = np.random.default_rng([seed, 0])
    fine = (round(hw[0] * SUPERSAMPLE), round(hw[1] * SUPERSAMPLE))
    stage = _stage(rng, fine, honest=honest)
    surfaces = [*_room(rng, stage, library), *_objects(rng, stage, library)]
    return _shrunk(_finished(rng, _traced(rng, stage, surfaces, library)), hw)


def _stage(rng: np.random.Generator, hw: tuple[int, int], *, honest: bool) -> Stage:
    # A third of the scenes are as people film them; were there none, the network would lose an honest cue altogether.
    kind = rng.choice(["calm", "tilted", "wild"], p=[0.35, 0.43, 0.22])
    pitch = float(np.clip(rng.normal(0.1, {"calm": 0.12, "tilted": 0.28, "wild": 0.65}[kind]), -1.2, 1.3))
    half_height = float(np.tan(rng.uniform(0.3, 0.65))) * (1.0 if hw[0] < 1.2 * hw[1] else 1.2)
    return Stage(
        rays=camera_rays(hw, half_height=half_height, pitch=pitch, roll=float(rng.normal(0, 0.09))),
        hw=hw,
        half_height=half_height,
        floor_m=float(np.exp(rng.normal(0.3, 0.6))) if rng.random() < (1 if kind == "calm" else 0.85) else None,
        outdoor=bool(rng.random() < 0.55),
        floating=0.1 if kind == "calm" else 0.25,
        honest=honest,
    )


def _room(rng: np.random.Generator, stage: Stage, library: Library) -> Iterator[Surface]:
    height_m = stage.floor_m or 1.5
    if stage.floor_m is not None:
        outdoors = [Material.SOIL, Material.PLANT, Material.CONCRETE, Material.WATER, Material.SOIL]
        indoors = [Material.WOOD, Material.CONCRETE, Material.FABRIC, Material.PLASTIC]
        ground = Material(rng.choice(outdoors if stage.outdoor else indoors))
        yield Surface(
            shape=Plane(normal=(0, 1, 0), offset_m=height_m),
            texture=paint(rng, ground, library, span_m=height_m * rng.uniform(0.5, 8), honest=stage.honest),
            material=ground,
        )
    if not stage.outdoor and rng.random() < 0.6:
        yield Surface(
            shape=Plane(normal=(0, -1, 0), offset_m=height_m * rng.uniform(0.4, 2.0)),
            texture=paint(rng, Material.CONCRETE, library, span_m=height_m * rng.uniform(1, 6), honest=stage.honest),
            material=Material.CONCRETE,
        )
    count = rng.integers(1, 4) if not stage.outdoor else int(rng.random() < 0.3)
    for azimuth in rng.permutation([0.0, 1.5, -1.5])[:count]:
        turn = azimuth + rng.normal(0, 0.45)
        covering = Material(rng.choice([Material.CONCRETE, Material.WOOD, Material.PLASTIC, Material.METAL]))
        yield Surface(
            shape=Plane(normal=(np.sin(turn), 0, np.cos(turn)), offset_m=height_m * np.exp(rng.normal(1.3, 0.6))),
            texture=paint(rng, covering, library, span_m=height_m * rng.uniform(1, 6), honest=stage.honest),
            material=covering,
        )


def _objects(rng: np.random.Generator, stage: Stage, library: Library) -> Iterator[Surface]:
    for _ in range(rng.integers(1, 9)):
        base, depth_m, grounded = _place(rng, stage)
        tall_m = depth_m * stage.half_height * 2 * np.exp(rng.uniform(np.log(0.12), np.log(1.25)))
        bottom = base - np.array([0, 0 if grounded else -tall_m / 2, 0])
        boards, figures = (0.6, 0.75) if stage.honest else (0.5, 0.62)
        kind = rng.random()
        if kind < boards:
            yield _board(rng, library, bottom, tall_m, grounded=grounded, honest=stage.honest)
        elif kind < figures:
            yield from _figure(rng, library, bottom, tall_m, honest=stage.honest)
        else:
            yield _solid(rng, library, bottom, tall_m, grounded=grounded, honest=stage.honest)


def _place(rng: np.random.Generator, stage: Stage) -> tuple[npt.NDArray[np.float64], float, bool]:
    """A point to stand on (or float at), its depth in metres, and whether it is on the floor."""
    rays = stage.rays[rng.integers(len(stage.rays), size=16)]
    far_m = (stage.floor_m or 1.5) * 15
    if stage.floor_m is not None and rng.random() > stage.floating:
        depths = stage.floor_m / np.maximum(rays[:, 1], 1e-4)
        fit = np.flatnonzero((depths > 0.6) & (depths < far_m))
        if len(fit):
            return np.asarray(depths[fit[0]] * rays[fit[0]], np.float64), float(depths[fit[0]]), True
    depth_m = float(np.exp(rng.uniform(np.log(0.8), np.log(far_m / 2))))
    return np.asarray(depth_m * rays[0], np.float64), depth_m, False


def _board(
    rng: np.random.Generator,
    library: Library,
    bottom: npt.NDArray[np.float64],
    tall_m: float,
    *,
    grounded: bool,
    honest: bool,
) -> Surface:
    which = int(rng.integers(len(library.cutouts)))
    alive = np.flatnonzero(np.isin(library.categories, (Category.PERSON, Category.ANIMAL)))
    if honest and len(alive) and rng.random() < 0.4:
        which = int(rng.choice(alive))
    mirror = slice(None, None, -1 if rng.random() < 0.5 else 1)
    rgba = library.cutouts[which][:, mirror]
    # However near it stands, the board does not reach the camera.
    height_m = min(tall_m * rng.uniform(0.4, 1), bottom[2] * 0.6 / DEEPEST)
    relief = library.reliefs[which][:, mirror].astype(np.float32) / 255 * np.float32(height_m * DEEPEST)
    width_m = tall_m * float(np.clip(library.aspects[which], 0.2, 4))
    x, y, z = bottom
    facing = float(np.arctan2(-x, z))
    return Surface(
        shape=Board(
            centre=(x, y - tall_m / 2, z),
            width_m=width_m,
            height_m=tall_m,
            yaw=facing + float(rng.normal(0, 0.25)),
            alpha=rgba[..., 3],
            bulge=relief,
        ),
        texture=Texture(image=np.ascontiguousarray(rgba[..., :3]), span_m=1.0, offset=(0.0, 0.0)),
        material=library.materials[which][:, mirror],
        category=Category(library.categories[which]),
        contact=(x, z, width_m / 2) if grounded else None,
    )


def _solid(
    rng: np.random.Generator,
    library: Library,
    bottom: npt.NDArray[np.float64],
    tall_m: float,
    *,
    grounded: bool,
    honest: bool,
) -> Surface:
    made_of = [Material.WOOD, Material.PLASTIC, Material.METAL, Material.CONCRETE, Material.PLANT, Material.FABRIC]
    material = Material(rng.choice(made_of))
    half = tall_m / 2
    thick = half * float(np.exp(rng.normal(-0.2, 0.6)))
    deep = half * float(np.exp(rng.normal(-0.3, 0.5)))
    x, y, z = bottom
    centre = (x, y - half, z + deep)
    kind = rng.integers(3)
    shape: Shape
    if kind == 0:
        shape = Box(centre=centre, half=(thick, half, deep), yaw=float(rng.uniform(-0.8, 0.8)))
    elif kind == 1:
        shape = Ellipsoid(centre=centre, radii=(thick, half, deep), yaw=float(rng.uniform(-0.8, 0.8)))
    else:
        shape = Cylinder(centre=centre, radius_m=min(thick, z * 0.6), half_height_m=half)
    return Surface(
        shape=shape,
        texture=paint(rng, material, library, span_m=tall_m * rng.uniform(0.3, 2), honest=honest),
        material=material,
        category=Category.OBJECT,
        contact=(x, centre[2], thick) if grounded else None,
    )


def _figure(
    rng: np.random.Generator, library: Library, bottom: npt.NDArray[np.float64], tall_m: float, *, honest: bool
) -> Iterator[Surface]:
    """A standing person of six ellipsoids: skin for head and hands, cloth for the rest."""
    x, y, z = bottom
    shirt, trousers = (
        paint(rng, Material.FABRIC, library, span_m=tall_m * rng.uniform(0.2, 1), honest=honest) for _ in range(2)
    )
    skin = paint(rng, Material.SKIN, library, span_m=tall_m)
    lean, stride, reach = rng.normal(0, 0.03), rng.uniform(0.04, 0.12), rng.uniform(0.14, 0.24)
    parts = (
        ((lean, 0.92, 0), (0.065, 0.085, 0.075), skin, Material.SKIN),
        ((lean / 2, 0.66, 0), (0.13, 0.2, 0.09), shirt, Material.FABRIC),
        ((-stride, 0.25, 0), (0.07, 0.27, 0.08), trousers, Material.FABRIC),
        ((stride, 0.25, 0), (0.07, 0.27, 0.08), trousers, Material.FABRIC),
        ((-reach, 0.6, -0.04), (0.045, 0.2, 0.05), skin, Material.SKIN),
        ((reach, 0.6, -0.04), (0.045, 0.2, 0.05), skin, Material.SKIN),
    )
    for number, ((dx, up, dz), radii, texture, material) in enumerate(parts):
        yield Surface(
            shape=Ellipsoid(
                centre=(x + dx * tall_m, y - up * tall_m, z + dz * tall_m),
                radii=(radii[0] * tall_m, radii[1] * tall_m, radii[2] * tall_m),
            ),
            texture=texture,
            material=material,
            category=Category.PERSON,
            contact=(x, z, 0.2 * tall_m) if number == 1 else None,
        )


def _traced(rng: np.random.Generator, stage: Stage, surfaces: list[Surface], library: Library) -> Frame:
    count = len(stage.rays)
    sky = backdrop(rng, stage.hw, library, outdoor=stage.outdoor, honest=stage.honest)
    rgb, material, lit = sky[0].reshape(count, 3), sky[1].ravel(), sky[2].ravel()
    depth = np.full(count, np.inf, np.float32)
    segment, category = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    sun = rng.normal(size=3) * (1, 0.5, 1) - (0, 1.2, 0.4)
    sun = (sun / np.linalg.norm(sun)).astype(np.float32)
    ambient = rng.uniform(0.35, 0.8)
    for number, surface in enumerate(surfaces, 1):
        tried = surface.shape.may_meet(stage.rays)
        hit = surface.shape.hit(stage.rays[tried])
        nearer = np.flatnonzero(hit.t < depth[tried])
        seen, t = tried[nearer], hit.t[nearer]
        direct = np.maximum(hit.normal[nearer] @ sun, 0)
        if isinstance(surface.shape, Plane) and surface.shape.normal[1] == 1:
            direct = direct * _shadows(t[:, None] * stage.rays[seen], surfaces)
        light = ambient + (1 - ambient) * direct / max(-float(sun[1]), 0.5)
        rgb[seen] = surface.texture.at(hit.u[nearer], hit.v[nearer]) * light.clip(0.15, 1.25)[:, None]
        depth[seen], segment[seen], category[seen] = t, number, surface.category
        material[seen] = surface.material_at(hit.u[nearer], hit.v[nearer])
        lit[seen] = direct if stage.outdoor else 0
    return Frame(
        rgb=rgb.clip(0, 255).astype(np.uint8).reshape(*stage.hw, 3),
        depth=depth.reshape(stage.hw),
        segment=segment.reshape(stage.hw),
        material=material.reshape(stage.hw),
        category=category.reshape(stage.hw),
        lit=lit.reshape(stage.hw),
    )


def _shadows(points: Floats, surfaces: list[Surface]) -> Floats:
    """(n,) in [0, 1]: how much light the objects standing nearby leave on these floor points (n, 3)."""
    left = np.ones(len(points), np.float32)
    for x, z, radius in (s.contact for s in surfaces if s.contact is not None):
        gap = ((points[:, 0] - x) ** 2 + (points[:, 2] - z) ** 2) / max(radius, 1e-3) ** 2
        left *= 1 - 0.8 * np.exp(-gap)
    return left


def _finished(rng: np.random.Generator, frame: Frame) -> Frame:
    """Fog, an out-of-focus background and uneven light, each in a part of the scenes."""
    rgb = frame.rgb.astype(np.float32)
    if rng.random() < 0.2:
        clear = np.exp(-frame.depth / (float(np.median(frame.depth.clip(0, 30))) * rng.uniform(1, 5)))
        rgb = rgb * clear[..., None] + rng.uniform(120, 255) * (1 - clear[..., None])
    if rng.random() < 0.3:
        blurred = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(1, 5))
        limit = np.quantile(1 / frame.depth, rng.uniform(0.3, 0.8))
        far = cv2.GaussianBlur((1 / frame.depth < limit).astype(np.float32), (0, 0), 1.5)
        rgb = rgb * (1 - far[..., None]) + blurred * far[..., None]
    if rng.random() < 0.4:
        rows, cols = np.mgrid[-1 : 1 : frame.depth.shape[0] * 1j, -1 : 1 : frame.depth.shape[1] * 1j]
        rgb *= np.exp(rows * rng.normal(0, 0.3) + cols * rng.normal(0, 0.3))[..., None]
    return replace(frame, rgb=rgb.clip(0, 255).astype(np.uint8))


def _shrunk(frame: Frame, hw: tuple[int, int]) -> Frame:
    size = hw[::-1]
    return Frame(
        rgb=np.asarray(cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), np.uint8),
        depth=np.asarray(cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST), np.float32),
        segment=np.asarray(cv2.resize(frame.segment, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        material=np.asarray(cv2.resize(frame.material, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        category=np.asarray(cv2.resize(frame.category, size, interpolation=cv2.INTER_NEAREST), np.uint8),
        lit=np.asarray(cv2.resize(frame.lit, size, interpolation=cv2.INTER_AREA), np.float32),
    )
