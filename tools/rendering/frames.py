"""Rendered frames on disk, so that a second training renders nothing."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.scenes import Frame, render
from tools.rendering.textures import Library, noise_library, package_library
from tools.rendering.thermal import infrared, surface_class
from tools.rendering.variety import varied

CHUNK = 250
SHAPES = ((160, 224), (192, 192), (224, 160), (160, 288))
"""Landscape, square, portrait and wide frames, (h, w); a chunk of frames has one shape."""
VARIED = 1_000
"""Frames for whose scenes images are changed once: drawing the copies takes as long as rendering 250 frames."""
CHOOSING_SEEDS = 8_000_000
"""First seed of the renders that pick a checkpoint; training stays below a million."""
REPORTING_SEEDS = 9_000_000
"""First seed of the renders that are only ever reported on."""

Kind = Literal["depth", "infrared"]
"""What a frame's target is: rank of inverse depth, or the thermal rule with the surface class."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Frames of one shape, uint8: rgb (n, h, w, 3) and the target, rank (n, h, w) or grey and class (n, h, w, 2)."""

    rgb: Bytes
    target: Bytes


def inverse_depth_rank(depth: npt.NDArray[np.float32]) -> Bytes:
    """(h, w) uint8: the share of pixels that are farther (ties share their middle), 255 = nearest."""
    near = (1 / depth).ravel()
    ordered = np.sort(near)
    below, upto = (np.searchsorted(ordered, near, side=side) for side in ("left", "right"))
    return np.asarray(((below + upto) * (127.5 / near.size)).reshape(depth.shape), np.uint8)


@lru_cache(maxsize=1)
def training_library(folder: Path, kind: Kind, variation: int = 0) -> Library:
    """The package images that training may see, and noise images so that plain renders are familiar too.

    The infrared network would learn so few people and skies by heart, so it sees changed copies as well, which
    `variation` draws.
    """
    seen = package_library(folder).part(held_out=False)
    if kind == "depth":
        return seen.joined(noise_library(0, photos=60, cutouts=150))
    return varied(seen, 5 + variation).joined(noise_library(0, photos=120, cutouts=200))


def held_out_library(folder: Path) -> Library:
    """Images that training never saw."""
    return package_library(folder).part(held_out=True)


@contextmanager
def rendering(folder: Path, kind: Kind, *, seed: int, frames: int, workers: int) -> Iterator[list[Future[Chunk]]]:
    """Chunks of `frames` training frames, shapes in turn, rendered into `folder` beside the caller's own work."""
    firsts = range(seed * 100_000, seed * 100_000 + frames, CHUNK)
    package_library(folder)
    # Each worker is one thread; BLAS would start one per core in every worker.
    os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"})
    # Forking after torch has started its threads can hang, so the workers start afresh.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield [pool.submit(_chunk, folder, kind, first) for first in firsts]


def _chunk(folder: Path, kind: Kind, first: int) -> Chunk:
    path = folder / f"{kind}-{first:07d}.npz"
    if not path.exists():
        cv2.setNumThreads(1)
        hw = SHAPES[first // CHUNK % len(SHAPES)]
        library = training_library(folder, kind, first // VARIED if kind == "infrared" else 0)
        frames = [_rendered(kind, library, seed, hw) for seed in range(first, first + CHUNK)]
        rgb, target = (np.stack(column) for column in zip(*frames, strict=True))
        part = path.with_suffix(".part.npz")
        np.savez(part, rgb=rgb, target=target)
        part.rename(path)
    stored = np.load(path)
    return Chunk(rgb=stored["rgb"], target=stored["target"])


def _rendered(kind: Kind, library: Library, seed: int, hw: tuple[int, int]) -> tuple[Bytes, Bytes]:
    if kind == "depth":
        frame = render(seed, library, hw)
        return frame.rgb, inverse_depth_rank(frame.depth)
    frame = render(seed, library, hw, honest=True)
    return frame.rgb, np.dstack([infrared(frame, seed), surface_class(frame)])


def picks(seed: int, chunks: int, *, steps: int, batch: int) -> Iterator[tuple[int, list[int]]]:
    """Chunk and frame numbers of every step, drawn from the seed alone.

    Later chunks join over the first half of the steps, so that training need not wait for them to be rendered.
    """
    rng = np.random.default_rng([seed, 1])
    for step in range(steps):
        joined = min(chunks, 2 + 2 * step * chunks // steps)
        yield int(rng.integers(joined)), rng.choice(CHUNK, batch, replace=False).tolist()


def held_out_frames(library: Library, *, first: int, count: int, honest: bool = False) -> list[Frame]:
    """Frames from seeds outside training, landscape and portrait in turn at 4:3."""
    sizes = [(192, 256) if i % 2 == 0 else (256, 192) for i in range(count)]
    return [render(first + i, library, hw, honest=honest) for i, hw in enumerate(sizes)]
