"""Rays against planes, boxes, ellipsoids, cylinders and upright boards, in plain numpy.

The camera is the origin, world axes are x right, y down, z forward. A ray is a direction of unit camera depth, so the
distance `t` along it *is* the z-depth in metres. Every shape maps rays (n, 3) to a `Hit` of length n; inf is a miss.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
NEAREST_M = 0.05
"""Surfaces closer than this count as behind the camera."""


@dataclass(frozen=True, slots=True)
class Hit:
    """t (n,) z-depth in metres; u, v (n,) texture coordinates in metres or shape lengths; normal (n, 3)."""

    t: Floats
    u: Floats
    v: Floats
    normal: Floats


class Shape(Protocol):
    """Anything a ray can meet."""

    def hit(self, rays: Floats) -> Hit: ...

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        """Indices of the rays worth testing: most miss a compact shape by far, and the exact test is dear."""
        ...


def _in_cone(rays: Floats, centre: tuple[float, float, float], radius_m: float) -> npt.NDArray[np.intp]:
    """Rays that pass a bounding sphere."""
    to_centre = np.asarray(centre, np.float32)
    square = float(to_centre @ to_centre)
    if square <= radius_m**2:
        return np.arange(len(rays))
    along = rays @ to_centre
    lengths = np.einsum("nk,nk->n", rays, rays)
    return np.flatnonzero((along > 0) & (along * along >= (square - radius_m**2) * lengths))


def camera_rays(hw: tuple[int, int], *, half_height: float, pitch: float, roll: float) -> Floats:
    """(h * w, 3): half_height is tan(vertical field of view / 2), angles are in radians, pitch > 0 looks down."""
    height, width = hw
    x = (np.arange(width) + 0.5 - width / 2) / (height / 2) * half_height
    y = (np.arange(height) + 0.5 - height / 2) / (height / 2) * half_height
    x, y = (grid.ravel() for grid in np.meshgrid(x, y))
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    down = y * np.cos(pitch) + np.sin(pitch)
    forward = np.cos(pitch) - y * np.sin(pitch)
    return np.stack([x, down, forward], 1).astype(np.float32)


def _turned(vectors: Floats, yaw: float) -> Floats:
    """Vectors (..., 3) seen from axes that are turned by `yaw` about the vertical."""
    c, s = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([c * x - s * z, y, s * x + c * z], -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """All points p with p . normal = offset_m."""

    normal: tuple[float, float, float]
    offset_m: float

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        return np.arange(len(rays))

    def hit(self, rays: Floats) -> Hit:
        n = np.asarray(self.normal, np.float32)
        slope = rays @ n
        t = np.where(np.abs(slope) > 1e-5, self.offset_m / np.where(slope == 0, 1, slope), np.inf).astype(np.float32)
        t[t < NEAREST_M] = np.inf
        first = np.array([1, 0, 0], np.float32) if abs(n[0]) < 0.7 else np.array([0, 0, 1], np.float32)
        first = first - n * (first @ n)
        second = np.cross(n, first)
        point = np.where(np.isfinite(t), t, 0)[:, None] * rays
        return Hit(t, point @ first, point @ second, np.where(slope[:, None] > 0, -n, n))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """Half axes `radii` in metres, turned by `yaw` radians about the vertical."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    yaw: float = 0.0

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        return _in_cone(rays, self.centre, max(self.radii))

    def hit(self, rays: Floats) -> Hit:
        radii = np.asarray(self.radii, np.float32)
        d = _turned(rays, self.yaw) / radii
        o = _turned(-np.asarray(self.centre, np.float32), self.yaw) / radii
        a, b, c = np.einsum("nk,nk->n", d, d), d @ o, float(o @ o) - 1
        inside = b * b - a * c
        t = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf).astype(np.float32)
        t[t < NEAREST_M] = np.inf
        local = o + np.where(np.isfinite(t), t, 0)[:, None] * d
        normal = _turned(local / radii, -self.yaw)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
        angle = np.arctan2(local[:, 0], -local[:, 2])
        return Hit(t, angle * radii[0], local[:, 1] * radii[1], normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Half edges `half` in metres, turned by `yaw` radians about the vertical."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float = 0.0

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        return _in_cone(rays, self.centre, float(np.linalg.norm(self.half)))

    def hit(self, rays: Floats) -> Hit:
        half = np.asarray(self.half, np.float32)
        d = _turned(rays, self.yaw)
        d = np.where(np.abs(d) < 1e-6, np.float32(1e-6), d)
        o = _turned(-np.asarray(self.centre, np.float32), self.yaw)
        near = (-np.sign(d) * half - o) / d
        far = (np.sign(d) * half - o) / d
        axis = near.argmax(1)
        t = near.max(1)
        t = np.where((t < far.min(1)) & (t > NEAREST_M), t, np.inf).astype(np.float32)
        local = o + np.where(np.isfinite(t), t, 0)[:, None] * d
        side = np.zeros_like(d)
        rows = np.arange(len(d))
        side[rows, axis] = -np.sign(d[rows, axis])
        u = np.where(axis == 0, local[:, 2], local[:, 0])
        v = np.where(axis == 1, local[:, 2], local[:, 1])
        return Hit(t, u, v, _turned(side, -self.yaw))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cylinder:
    """Upright, closed at the top."""

    centre: tuple[float, float, float]
    radius_m: float
    half_height_m: float

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        return _in_cone(rays, self.centre, float(np.hypot(self.radius_m, self.half_height_m)))

    def hit(self, rays: Floats) -> Hit:
        cx, cy, cz = self.centre
        a = rays[:, 0] ** 2 + rays[:, 2] ** 2 + 1e-9
        b = -(rays[:, 0] * cx + rays[:, 2] * cz)
        inside = b * b - a * (cx * cx + cz * cz - self.radius_m**2)
        side = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
        side = np.where(np.abs(side * rays[:, 1] - cy) < self.half_height_m, side, np.inf)
        top = (cy - self.half_height_m) / np.where(np.abs(rays[:, 1]) < 1e-6, 1e-6, rays[:, 1])
        radial = (top * rays[:, 0] - cx) ** 2 + (top * rays[:, 2] - cz) ** 2
        top = np.where(radial < self.radius_m**2, top, np.inf)
        side[~(side > NEAREST_M)], top[~(top > NEAREST_M)] = np.inf, np.inf
        t = np.minimum(side, top).astype(np.float32)
        point = np.where(np.isfinite(t), t, 0)[:, None] * rays - np.asarray(self.centre, np.float32)
        normal = np.stack([point[:, 0], np.zeros_like(t), point[:, 2]], 1) / self.radius_m
        normal[top < side] = (0, -1, 0)
        around = np.arctan2(point[:, 0], -point[:, 2]) * self.radius_m
        return Hit(t, around.astype(np.float32), point[:, 1], normal.astype(np.float32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """An upright cut-out: opaque where `alpha` (k, k) is, bulging towards the camera by `bulge` (k, k) metres."""

    centre: tuple[float, float, float]
    width_m: float
    height_m: float
    yaw: float
    alpha: npt.NDArray[np.uint8]
    bulge: Floats

    def may_meet(self, rays: Floats) -> npt.NDArray[np.intp]:
        return _in_cone(rays, self.centre, float(np.hypot(self.width_m, self.height_m) / 2 + self.bulge.max()))

    def hit(self, rays: Floats) -> Hit:
        normal = np.array([np.sin(self.yaw), 0, -np.cos(self.yaw)], np.float32)
        along = np.array([np.cos(self.yaw), 0, np.sin(self.yaw)], np.float32)
        centre = np.asarray(self.centre, np.float32)
        slope = rays @ normal
        t = np.where(slope < -1e-4, (centre @ normal) / np.where(slope == 0, 1, slope), np.inf).astype(np.float32)
        point = np.where(np.isfinite(t), t, 0)[:, None] * rays - centre
        u, v = point @ along / self.width_m + 0.5, point[:, 1] / self.height_m + 0.5
        within = (u >= 0) & (u < 1) & (v >= 0) & (v < 1) & (t > NEAREST_M) & np.isfinite(t)
        size = len(self.alpha)
        row, col = (np.where(within, x, 0) * size for x in (v, u))
        row, col = row.astype(np.intp), col.astype(np.intp)
        t = np.where(within & (self.alpha[row, col] > 127), t - self.bulge[row, col], np.inf).astype(np.float32)
        t[t < NEAREST_M] = np.inf
        return Hit(t, u.astype(np.float32), v.astype(np.float32), np.broadcast_to(normal, rays.shape))
