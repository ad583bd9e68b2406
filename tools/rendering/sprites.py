"""Cut-outs with true relief: models of pybullet_data in many views, and plants drawn leaf by leaf.

pybullet is no dependency of the project: its wheel lies unpacked in the texture cache, and only this file imports it.
People take the poses of its motion files; four-legged robots stand in for animals; cars are put together from boxes and
cylinders. Each is coloured by part, half of them with textures in place of plain colours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.cutouts import CUTOUT_PX, DEEPEST, Cutout, cutout
from tools.rendering.materials import Category, Material
from tools.rendering.noise import noise, noise_image

RENDER_PX = 176
Bytes = npt.NDArray[np.uint8]
Parts = list[Material]
"""What each link of a model is made of, the base first."""
Model = tuple[int, Parts, Category]

_SKIN = ((224, 172, 140), (198, 134, 96), (141, 85, 54), (240, 200, 175), (95, 58, 38))
_FURS = ((150, 110, 70), (90, 65, 45), (60, 55, 50), (200, 180, 150), (130, 125, 120), (225, 220, 210))
_QUADRUPEDS = (
    "laikago/laikago_toes_zup.urdf", "a1/a1.urdf", "aliengo/aliengo.urdf", "mini_cheetah/mini_cheetah.urdf",
)  # fmt: skip
_HUMANOID_JOINTS = ((1, 4), (2, 4), (3, 4), (4, 1), (5, 4), (6, 4), (7, 1), (9, 4), (10, 1), (11, 4), (12, 4), (13, 1))
"""Joints in the order of the motion files, each a quaternion (4) or an angle (1)."""


def sprites(package: Path, seed: int = 0) -> Iterator[Cutout]:
    """Every sprite of the unpacked pybullet wheel in `package`; same seed, same pixels."""
    sys.path.insert(0, str(package))
    import pybullet  # type: ignore[import-not-found]

    rng = np.random.default_rng([seed, 11])
    data = package / "pybullet_data"
    makers: tuple[tuple[Callable[[Any, Path, np.random.Generator], Model], int], ...] = (
        (_person, 320), (_quadruped, 160), (_car, 200), (_thing, 260), (_random_object, 420),
    )  # fmt: skip
    pybullet.connect(pybullet.DIRECT)
    pybullet.setAdditionalSearchPath(str(data))
    for make, count in makers:
        for _ in range(count):
            pybullet.resetSimulation()
            yield _photographed(pybullet, rng, *make(pybullet, data, rng))
    pybullet.disconnect()


def _photographed(p: Any, rng: np.random.Generator, body: int, parts: Parts, category: Category) -> Cutout:
    """The model from a random side: colour, outline, relief and the material of every pixel."""
    boxes = np.array([p.getAABB(body, link) for link in range(-1, p.getNumJoints(body))])
    low, high = boxes[:, 0].min(0), boxes[:, 1].max(0)
    radius = float(np.linalg.norm(high - low) / 2) + 1e-3
    away = radius * float(rng.uniform(2.5, 6))
    fov = 2 * np.degrees(np.arcsin(radius / away))
    yaw, pitch = float(rng.uniform(0, 360)), float(rng.normal(-12, 14))
    view = p.computeViewMatrixFromYawPitchRoll(
        ((low + high) / 2).tolist(), away, yaw, pitch, float(rng.normal(0, 3)), 2
    )
    near, far = away - radius, away + radius
    _, _, rgb, depth, segments = p.getCameraImage(
        RENDER_PX, RENDER_PX, view, p.computeProjectionMatrixFOV(fov, 1, near, far), renderer=p.ER_TINY_RENDERER,
        flags=p.ER_SEGMENTATION_MASK_OBJECT_AND_LINKINDEX, shadow=0, lightDirection=rng.normal((0, 0, 2), 1.2).tolist(),
        lightAmbientCoeff=float(rng.uniform(0.3, 0.6)),
    )  # fmt: skip
    shape = (RENDER_PX, RENDER_PX)
    colour = np.reshape(rgb, (*shape, 4))[..., :3].astype(np.float32)
    segments = np.reshape(segments, shape)
    seen = segments >= 0
    # A bare wheel of links would leave gaps of a pixel between parts.
    links = np.where(seen, segments >> 24, 0)
    material = np.array([*parts, Material.PLASTIC], np.uint8)[np.minimum(links, len(parts))]
    distance = far * near / (far - (far - near) * np.reshape(depth, shape).astype(np.float32))
    rows = np.flatnonzero(seen.any(1))
    if len(rows) < 4:
        return cutout(np.zeros((*shape, 4), np.uint8), material, category, np.zeros(shape, np.uint8))
    # What a pixel covers at the model's distance gives its height in metres.
    tall = (rows[-1] - rows[0] + 1) / RENDER_PX * 2 * away * np.tan(np.radians(fov / 2))
    relief = np.where(seen, distance[seen].max() - distance, 0) / (tall * DEEPEST) * 255
    if rng.random() < 0.7:
        colour = _textured(rng, colour, links, material)
    rgba = np.dstack([colour.clip(0, 255).astype(np.uint8), (seen * 255).astype(np.uint8)])
    return cutout(rgba, material, category, relief.clip(0, 255).astype(np.uint8))


def _textured(rng: np.random.Generator, colour: Any, links: Any, material: Bytes) -> Any:
    """Noise over every part: skin and paint get little of it, cloth and fur more."""
    grain = noise(rng, colour.shape[:2], 6) - 0.5
    strength = np.where(material == Material.SKIN, 0.15, rng.uniform(0.2, 0.9))[..., None]
    patterned = colour * (1 + strength * grain[..., None])
    if rng.random() < 0.5:
        pattern = noise_image(rng, colour.shape[:2]).astype(np.float32)
        shade = colour.mean(2, keepdims=True) / 160
        chosen = (links % 3 == rng.integers(3)) & (material != Material.SKIN)
        patterned = np.where(chosen[..., None], pattern * shade, patterned)
    return patterned


def _painted(p: Any, rng: np.random.Generator, body: int, colours: list[Any]) -> None:
    """Colour every link, the base first, with what is left of the list repeating its last entry."""
    for link in range(-1, p.getNumJoints(body)):
        rgb = np.clip(np.asarray(colours[min(link + 1, len(colours) - 1)]) / 255 * rng.uniform(0.9, 1.1), 0, 1)
        p.changeVisualShape(body, link, rgbaColor=[*rgb.tolist(), 1])


def _person(p: Any, data: Path, rng: np.random.Generator) -> Model:
    """Links: base, chest, neck, right hip, knee, ankle, shoulder, elbow, wrist, and the same on the left."""
    body = p.loadURDF("humanoid/humanoid.urdf", useFixedBase=1, flags=p.URDF_MAINTAIN_LINK_ORDER)
    motions = sorted((data / "data" / "motions").glob("humanoid3d_*.txt"))
    frames = json.loads(motions[rng.integers(len(motions))].read_text())["Frames"]
    pose = np.array(frames[rng.integers(len(frames))], np.float64)
    # The model is built with y up; the motions turn the whole of it.
    turned = p.multiplyTransforms([0, 0, 0], p.getQuaternionFromEuler([np.pi / 2, 0, 0]), [0, 0, 0], _xyzw(pose[4:8]))
    p.resetBasePositionAndOrientation(body, [0, 0, 0], turned[1])
    at = 8
    for joint, size in _HUMANOID_JOINTS:
        value = _xyzw(pose[at : at + 4]) if size == 4 else [float(pose[at])]
        p.resetJointStateMultiDof(body, joint, value)
        at += size
    skin, shirt, trousers, shoes = (
        _SKIN[rng.integers(len(_SKIN))], rng.uniform(0, 255, 3), rng.uniform(0, 200, 3), rng.uniform(0, 120, 3),
    )  # fmt: skip
    bare_arms, bare_legs = rng.random() < 0.5, rng.random() < 0.3
    arm = (shirt, skin if bare_arms else shirt, skin)
    leg = (trousers, skin if bare_legs else trousers, shoes)
    made_of = {id(skin): Material.SKIN, id(shoes): Material.RUBBER}
    colours = [trousers, shirt, skin, *leg, *arm, *leg, *arm]
    _painted(p, rng, body, colours)
    return body, [made_of.get(id(c), Material.FABRIC) for c in colours], Category.PERSON


def _xyzw(wxyz: npt.NDArray[np.float64]) -> list[float]:
    return [float(wxyz[k]) for k in (1, 2, 3, 0)]


def _quadruped(p: Any, data: Path, rng: np.random.Generator) -> Model:
    """A four-legged robot in fur colours, with a head, as a stand-in for an animal."""
    body = p.loadURDF(_QUADRUPEDS[rng.integers(len(_QUADRUPEDS))], useFixedBase=1)
    for joint in range(p.getNumJoints(body)):
        if p.getJointInfo(body, joint)[2] != p.JOINT_FIXED:
            low, high = p.getJointInfo(body, joint)[8:10]
            rest = float(np.clip(0.0, low, high)) if low < high else 0.0
            p.resetJointState(body, joint, rest + float(rng.normal(0, 0.25)))
    fur = np.asarray(_FURS[rng.integers(len(_FURS))])
    if rng.random() < 0.8:
        _painted(p, rng, body, [fur])
    return body, [Material.BODY] * (p.getNumJoints(body) + 1), Category.ANIMAL


def _car(p: Any, data: Path, rng: np.random.Generator) -> Model:
    """A car, van or truck of boxes on four wheels; a fifth of them one of the wheeled robots."""
    if rng.random() < 0.2:
        body = p.loadURDF(["racecar/racecar.urdf", "husky/husky.urdf"][rng.integers(2)], useFixedBase=1)
        return body, [Material.VEHICLE] * (p.getNumJoints(body) + 1), Category.VEHICLE
    long, wide, tall = rng.uniform(1.6, 3.0), rng.uniform(0.7, 1.0), rng.uniform(0.35, 0.6)
    cabin, back = rng.uniform(0.3, 1.3) * tall, rng.uniform(0.4, 0.95) * long
    wheel = rng.uniform(0.28, 0.42)
    paint, glass = rng.uniform(0, 255, 3), rng.uniform(20, 90, 3)
    boxes = (
        ((long, wide, tall), (0, 0, 0), paint, Material.VEHICLE),
        ((back, wide * 0.9, cabin), (-(long - back) * rng.uniform(0.3, 1), 0, tall + cabin),
         glass if rng.random() < 0.7 else paint, Material.VEHICLE),
        ((long * 0.18, wide * 0.8, 0.02), (long * 0.78, 0, tall), paint, Material.ENGINE),
        ((0.02, wide * 0.7, tall * 0.4), (long, 0, 0), rng.uniform(20, 120, 3), Material.ENGINE),
    )  # fmt: skip
    shapes = [p.createVisualShape(p.GEOM_BOX, halfExtents=list(half)) for half, *_ in boxes]
    places = [list(place) for _, place, *_ in boxes]
    shapes += [p.createVisualShape(p.GEOM_CYLINDER, radius=wheel, length=0.25)] * 4
    places += [[x * long * 0.6, y * wide, -tall] for x in (-1, 1) for y in (-1, 1)]
    upright, lying = [0, 0, 0, 1], p.getQuaternionFromEuler([np.pi / 2, 0, 0])
    count = len(shapes) - 1
    body = p.createMultiBody(
        0, -1, shapes[0], linkMasses=[0] * count, linkCollisionShapeIndices=[-1] * count,
        linkVisualShapeIndices=shapes[1:], linkPositions=places[1:], linkParentIndices=[0] * count,
        linkOrientations=[upright] * (len(boxes) - 1) + [lying] * 4, linkJointTypes=[p.JOINT_FIXED] * count,
        linkInertialFramePositions=[[0, 0, 0]] * count, linkInertialFrameOrientations=[upright] * count,
        linkJointAxis=[[0, 0, 1]] * count,
    )  # fmt: skip
    _painted(p, rng, body, [*(colour for _, _, colour, _ in boxes), rng.uniform(10, 60, 3)])
    return body, [*(material for *_, material in boxes), *[Material.RUBBER] * 4], Category.VEHICLE


_THINGS = (
    ("table/table.urdf", Material.WOOD, Category.FURNITURE),
    ("table_square/table_square.urdf", Material.WOOD, Category.FURNITURE),
    ("kiva_shelf/model.sdf", Material.WOOD, Category.FURNITURE),
    ("tray/traybox.urdf", Material.PLASTIC, Category.OBJECT),
    ("samurai.urdf", Material.CONCRETE, Category.BUILDING),
    ("objects/mug.urdf", Material.CONCRETE, Category.OBJECT),
    ("soccerball.urdf", Material.PLASTIC, Category.OBJECT),
    ("lego/lego.urdf", Material.PLASTIC, Category.OBJECT),
    ("jenga/jenga.urdf", Material.WOOD, Category.OBJECT),
    ("r2d2.urdf", Material.METAL, Category.OBJECT),
    ("quadruped/minitaur.urdf", Material.METAL, Category.OBJECT),
    ("duck_vhacd.urdf", Material.PLASTIC, Category.OBJECT),
    ("teddy_vhacd.urdf", Material.FABRIC, Category.OBJECT),
)


def _thing(p: Any, data: Path, rng: np.random.Generator) -> Model:
    path, material, category = _THINGS[rng.integers(len(_THINGS))]
    body = p.loadSDF(path)[0] if path.endswith(".sdf") else p.loadURDF(path, useFixedBase=1)
    if rng.random() < 0.6:
        _painted(p, rng, body, [rng.uniform(0, 255, 3)])
    return body, [material] * (p.getNumJoints(body) + 1), category


def _random_object(p: Any, data: Path, rng: np.random.Generator) -> Model:
    number = f"{rng.integers(1000):03d}"
    way = p.getQuaternionFromEuler(rng.uniform(-np.pi, np.pi, 3).tolist())
    body = p.loadURDF(f"random_urdfs/{number}/{number}.urdf", baseOrientation=way, useFixedBase=1)
    material = Material(rng.choice([Material.PLASTIC, Material.METAL, Material.WOOD]))
    return body, [material], Category.OBJECT


def plant(rng: np.random.Generator) -> Cutout:
    """Leaves from one root, each at a depth of its own, often in a pot: rosettes, grass, palms and bushes."""
    side = CUTOUT_PX * 2
    rgba, relief = np.zeros((side, side, 4), np.uint8), np.zeros((side, side), np.uint8)
    material = np.full((side, side), Material.PLANT, np.uint8)
    green = np.array([rng.uniform(20, 130), rng.uniform(70, 170), rng.uniform(10, 90)])
    root = np.array([side / 2, side * rng.uniform(0.6, 0.95)])
    spread, width, count = rng.uniform(0.5, 1.9), rng.uniform(0.03, 0.14), int(rng.integers(6, 60))
    # Leaves are drawn from the farthest to the nearest.
    for nearness in np.sort(rng.random(count)):
        angle = rng.uniform(-spread, spread)
        long = side * rng.uniform(0.25, 0.6)
        bend = rng.normal(0, 0.5) + 0.5 * angle
        along = np.linspace(0, 1, 12)
        turn = angle + bend * along
        steps = np.stack([np.sin(turn), -np.cos(turn)], 1) * long / 12
        spine = root + rng.normal(0, side * 0.04, 2) + np.cumsum(steps, 0)
        half = (side * width * rng.uniform(0.5, 1.2) * np.sin(np.pi * (0.15 + 0.85 * along)))[:, None]
        normal = np.stack([np.cos(turn), np.sin(turn)], 1)
        shade = (0.35 + 0.65 * nearness) * rng.uniform(0.8, 1.2)
        for fold, light in ((-1, 0.85), (1, 1.1)):
            outline = np.concatenate([spine, (spine + fold * half * normal)[::-1]]).astype(np.int32)
            colour = (green * shade * light).clip(0, 255)
            cv2.fillPoly(rgba, [outline], (*map(float, colour), 255.0))
            cv2.fillPoly(relief, [outline], (float(10 + 75 * nearness),))
    if rng.random() < 0.5:
        _pot(rng, rgba, relief, material, root)
    grain = 1 + rng.uniform(0.1, 0.5) * (noise(rng, (side, side), 6)[..., None] - 0.5)
    rgba[..., :3] = (rgba[..., :3] * grain).clip(0, 255)
    return cutout(rgba, material, Category.PLANT, relief)


def _pot(rng: np.random.Generator, rgba: Bytes, relief: Bytes, material: Bytes, root: npt.NDArray[np.float64]) -> None:
    side = len(rgba)
    top, half, narrow = int(root[1]), int(side * rng.uniform(0.1, 0.25)), rng.uniform(0.5, 1.0)
    x, foot = int(root[0]), side - 1
    if foot - top < 8:
        return
    outline = np.array([[x - half, top], [x + half, top], [x + half * narrow, foot], [x - half * narrow, foot]])
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [outline.astype(np.int32)], (1,))
    inside = mask > 0
    across = np.clip(1 - ((np.arange(side) - x) / half) ** 2, 0, 1)
    rgba[inside, :3] = rng.uniform(0, 255, 3)
    round_shade = np.where(inside, 0.5 + 0.5 * np.sqrt(across)[None, :], 1)
    rgba[..., :3] = rgba[..., :3] * round_shade[..., None]
    rgba[inside, 3] = 255
    relief[:] = np.where(inside, 30 + 45 * np.sqrt(across)[None, :], relief)
    material[inside] = Material.CONCRETE
