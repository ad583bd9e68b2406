"""Images and cut-outs for rendered scenes: a few openly licensed packages, and noise drawn by this file.

`SOURCES` names every package with its licence; the model cards repeat that list. The packages are fetched by
name through the ordinary clients (pip, npm) and unpacked once into one npz, so that rendering needs no network.
The Middlebury motorcycle, which lies in the same scikit-image wheel, is never read here: it is for reporting only.
"""

import io
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.materials import Material

PHOTO_HW = (180, 320)
CUTOUT_PX = 128
FILM_FRAMES = 420
HELD_OUT = 10
"""One image in so many is never seen in training (for the film: its last part, as neighbouring frames look alike)."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A package whose images end up in training renders."""

    package: str
    command: tuple[str, ...]
    content: str
    licence: str


_PIP = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet")
_WHEEL = (*_PIP, "--only-binary", ":all:")
SOURCES = (
    Source(
        package="moviepy 2.2.1 (source archive)",
        command=(*_PIP, "--no-binary", ":all:", "--no-build-isolation", "moviepy==2.2.1"),
        content="Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org",
        licence="CC BY 3.0",
    ),
    Source(
        package="scikit-image 0.16.2",
        command=(*_WHEEL, "--python-version", "3.7", "scikit-image==0.16.2"),
        content="astronaut (NASA), chelsea, coffee, rocket (SpaceX), brick, grass, gravel",
        licence="CC0 or public domain, as skimage/data/__init__.py states",
    ),
    Source(
        package="scikit-learn",
        command=(*_WHEEL, "scikit-learn"),
        content="china.jpg (danielbuechele), flower.jpg (vultilion)",
        licence="CC BY 2.0",
    ),
    Source(
        package="@lobehub/fluent-emoji-3d 1.1.0 (npm)",
        command=("npm", "pack", "--silent", "@lobehub/fluent-emoji-3d@1.1.0"),
        content="Fluent Emoji in their rendered 3D style, (c) Microsoft",
        licence="MIT",
    ),
)
_STILLS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "brick.png", "grass.png", "gravel.png")
_CREATURES = ("FACE", "MAN", "WOMAN", "PERSON", "BOY", "GIRL", "BABY", "HAND", "CAT", "DOG", "BEAR", "MONKEY", "HORSE")
_PLANTS = ("TREE", "LEAF", "HERB", "CACTUS", "CLOVER", "PALM", "FLOWER", "BLOSSOM", "TULIP", "SUNFLOWER", "PLANT")
_VEHICLES = ("CAR", "AUTOMOBILE", "TRUCK", "BUS", "TAXI", "TRACTOR", "LOCOMOTIVE", "TRAIN", "MOTORCYCLE", "SCOOTER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """photos (p, 180, 320, 3) uint8 RGB; cutouts (c, 128, 128, 4) uint8 RGBA with width/height and material each."""

    photos: Bytes
    cutouts: Bytes
    aspects: npt.NDArray[np.float32]
    materials: Bytes

    def part(self, *, held_out: bool) -> "Library":
        """The images for training, or those that training never sees."""
        return Library(
            photos=self.photos[_split(len(self.photos), held_out)],
            cutouts=self.cutouts[_split(len(self.cutouts), held_out)],
            aspects=self.aspects[_split(len(self.cutouts), held_out)],
            materials=self.materials[_split(len(self.cutouts), held_out)],
        )

    def joined(self, other: "Library") -> "Library":
        return Library(
            photos=np.concatenate([self.photos, other.photos]),
            cutouts=np.concatenate([self.cutouts, other.cutouts]),
            aspects=np.concatenate([self.aspects, other.aspects]),
            materials=np.concatenate([self.materials, other.materials]),
        )

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part.npz")
        np.savez(part, photos=self.photos, cutouts=self.cutouts, aspects=self.aspects, materials=self.materials)
        part.rename(path)


def _split(count: int, held_out: bool) -> slice:
    cut = count - count // HELD_OUT
    return slice(cut, count) if held_out else slice(0, cut)


def noise(rng: np.random.Generator, hw: tuple[int, int], octaves: int = 5) -> npt.NDArray[np.float32]:
    """(h, w) in [0, 1]: sums of ever finer random grids, the usual stand-in for natural texture."""
    total = np.zeros(hw, np.float32)
    roughness = rng.uniform(0.4, 0.85)
    for octave in range(octaves):
        grid = rng.random((2 ** (octave + 1) + 1, 2 ** (octave + 1) + 1), np.float32)
        total += roughness**octave * cv2.resize(grid, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((total - total.min()) / (np.ptp(total) + 1e-6), np.float32)


def noise_image(rng: np.random.Generator, hw: tuple[int, int]) -> Bytes:
    """(h, w, 3): two colours mixed by noise, often with stripes, tiles or patches on top."""
    mix = noise(rng, hw)[..., None]
    dark, bright = rng.uniform(0, 255, (2, 3))
    image = dark * (1 - mix) + bright * mix
    kind = rng.integers(4)
    rows, cols = np.mgrid[: hw[0], : hw[1]]
    if kind == 1:
        stripes = np.sin((rows * rng.normal() + cols * rng.normal()) * rng.uniform(0.1, 0.6)) > rng.uniform(-0.9, 0.9)
        image = np.where(stripes[..., None], image, image * rng.uniform(0.3, 0.9))
    elif kind == 2:
        tile = rng.integers(8, 60, 2)
        seam = (rows % tile[0] < 2) | ((cols + (rows // tile[0] % 2) * tile[1] // 2) % tile[1] < 2)
        image = np.where(seam[..., None], rng.uniform(0, 255, 3), image)
    elif kind == 3:
        patches = noise(rng, hw, 4) > rng.uniform(0.4, 0.7)
        image = np.where(patches[..., None], rng.uniform(0, 255, 3), image)
    return np.asarray(image.clip(0, 255), np.uint8)


def noise_cutout(rng: np.random.Generator) -> Bytes:
    """(128, 128, 4): a random closed outline, shaded to look round, filled with a noise image."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 0.7 + sum(rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(1, 6))
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * np.clip(radius, 0.15, None)[:, None]
    points = (points - points.min(0)) / np.ptp(points, 0) * (CUTOUT_PX - 1)
    alpha = np.zeros((CUTOUT_PX, CUTOUT_PX), np.uint8)
    cv2.fillPoly(alpha, [points.astype(np.int32)], (255,))
    inside = cv2.distanceTransform(alpha, cv2.DIST_L2, 3)
    shade = 0.55 + 0.45 * np.sqrt(inside / (inside.max() + 1e-6))
    image = noise_image(rng, alpha.shape) * shade[..., None]
    return np.dstack([image.astype(np.uint8), alpha])


def noise_library(seed: int, *, photos: int = 40, cutouts: int = 60) -> Library:
    """Images and cut-outs from nothing but a seed: what the tests render with, and a part of training."""
    rng = np.random.default_rng([seed, 7])
    kinds = [Material.WOOD, Material.PLASTIC, Material.METAL, Material.FABRIC, Material.PLANT]
    return Library(
        photos=np.stack([noise_image(rng, PHOTO_HW) for _ in range(photos)]),
        cutouts=np.stack([noise_cutout(rng) for _ in range(cutouts)]),
        aspects=rng.uniform(0.3, 2.0, cutouts).astype(np.float32),
        materials=rng.choice(kinds, cutouts).astype(np.uint8),
    )


def package_library(cache: Path) -> Library:
    """The library of `SOURCES`, fetched and unpacked into `cache` the first time."""
    path = cache / "textures.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _unpack(cache).save(path)
    stored = np.load(path)
    return Library(**{name: stored[name] for name in ("photos", "cutouts", "aspects", "materials")})


def _unpack(cache: Path) -> Library:
    for source in SOURCES:
        where = ("--pack-destination", str(cache)) if source.command[0] == "npm" else ("-d", str(cache))
        subprocess.run([*source.command, *where], check=True, cwd=cache)
    film = list(_film_frames(_only(cache, "moviepy-*.tar.gz")))
    stills = list(_stills(cache))
    cut = [*_emoji(_only(cache, "lobehub-fluent-emoji-3d-*.tgz")), *_cut_from(film, stills)]
    # Shuffled once, so that the held-out part holds emoji as well as film.
    order = np.random.default_rng(0).permutation(len(cut))
    photos = [_covering(image) for image in [*stills, *film]]
    return Library(
        photos=np.stack(photos),
        cutouts=np.stack([cut[i][0] for i in order]),
        aspects=np.array([cut[i][1] for i in order], np.float32),
        materials=np.array([cut[i][2] for i in order], np.uint8),
    )


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return found[-1]


def _covering(image: Bytes) -> Bytes:
    """Scaled and centre-cropped to `PHOTO_HW`."""
    scale = max(PHOTO_HW[0] / image.shape[0], PHOTO_HW[1] / image.shape[1])
    size = [max(round(n * scale), m) for n, m in zip(image.shape[1::-1], PHOTO_HW[::-1], strict=True)]
    grown = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    top, left = (grown.shape[0] - PHOTO_HW[0]) // 2, (grown.shape[1] - PHOTO_HW[1]) // 2
    return np.asarray(grown[top : top + PHOTO_HW[0], left : left + PHOTO_HW[1]], np.uint8)


def _film_frames(archive: Path) -> Iterator[Bytes]:
    """Evenly spaced key frames of the film, opening and closing titles left out."""
    with tarfile.open(archive) as tar:
        (inner,) = [m for m in tar.getmembers() if m.name.endswith("moviepy_10_minutes.zip")]
        zipped = tar.extractfile(inner)
        assert zipped is not None
        with zipfile.ZipFile(zipped) as bundle:
            film = bundle.read("moviepy_10_minutes/resources/bbb.mp4")
    with av.open(io.BytesIO(film), "r") as container:
        stream = container.streams.video[0]
        assert stream.duration is not None and stream.time_base is not None
        for at_s in np.linspace(24.0, 480.0, FILM_FRAMES):
            container.seek(int(at_s / stream.time_base), stream=stream)
            frame = next(iter(container.decode(stream)))
            small = cv2.resize(frame.to_ndarray(format="rgb24"), PHOTO_HW[::-1], interpolation=cv2.INTER_AREA)
            yield np.asarray(small, np.uint8)


def _stills(cache: Path) -> Iterator[Bytes]:
    with zipfile.ZipFile(_only(cache, "scikit_image-0.16.2-*.whl")) as wheel:
        yield from (_decoded(wheel.read(f"skimage/data/{name}")) for name in _STILLS)
    with zipfile.ZipFile(_only(cache, "scikit_learn-*.whl")) as wheel:
        yield from (_decoded(wheel.read(f"sklearn/datasets/images/{name}.jpg")) for name in ("china", "flower"))


def _decoded(encoded: bytes) -> Bytes:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


def _emoji(archive: Path) -> Iterator[tuple[Bytes, float, Material]]:
    """Single-code-point images from U+1F300 up; flags, signs and skin-tone variants are near copies or flat."""
    with tarfile.open(archive) as tar:
        for member in tar:
            code = Path(member.name).stem.removesuffix("-fe0f")
            if not member.name.endswith(".webp") or "-" in code or int(code, 16) < 0x1F300:
                continue
            stream = tar.extractfile(member)
            assert stream is not None
            rgba = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
            if rgba is not None and rgba.ndim == 3 and rgba.shape[2] == 4:
                straight = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_BGRA2RGBA), np.uint8)
                yield (*_trimmed(straight), _emoji_material(int(code, 16)))


def _emoji_material(code: int) -> Material:
    words = set(unicodedata.name(chr(code), "").replace("-", " ").split())
    creature = 0x1F400 <= code < 0x1F440 or 0x1F980 <= code < 0x1F9AF
    if creature or words & set(_CREATURES):
        return Material.BODY
    if words & set(_PLANTS):
        return Material.PLANT
    if words & set(_VEHICLES):
        return Material.VEHICLE
    return Material.PLASTIC


def _cut_from(film: list[Bytes], stills: list[Bytes]) -> Iterator[tuple[Bytes, float, Material]]:
    """Foregrounds that GrabCut separates from inside a random rectangle; leafy green ones count as plants."""
    rng = np.random.default_rng(1)
    cv2.setRNGSeed(0)
    for image in [*film, *[_covering(s) for s in stills[:4]] * 3]:
        height, width = int(rng.uniform(0.5, 0.95) * PHOTO_HW[0]), int(rng.uniform(0.25, 0.6) * PHOTO_HW[1])
        box = (int(rng.integers(2, PHOTO_HW[1] - width - 2)), int(rng.integers(2, PHOTO_HW[0] - height - 2)))
        mask = np.zeros(PHOTO_HW, np.uint8)
        cv2.grabCut(image, mask, (*box, width, height), np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_RECT)
        alpha = _largest((mask % 2).astype(np.uint8))
        if 0.12 < alpha.mean() / 255 * alpha.size / (height * width) < 0.75:
            colour = image[alpha > 0].mean(0)
            plant = colour[1] > 1.06 * max(colour[0], colour[2])
            yield (*_trimmed(np.dstack([image, alpha])), Material.PLANT if plant else Material.BODY)


def _largest(mask: Bytes) -> Bytes:
    """The biggest connected piece, holes closed, as 0 or 255."""
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if len(stats) > 1 else 1
    return np.asarray((labels == best) * 255, np.uint8)


def _trimmed(rgba: Bytes) -> tuple[Bytes, float]:
    """Cut to its opaque part and stretched to the square all cut-outs share; the width/height it had."""
    rows, cols = np.nonzero(rgba[..., 3] > 127)
    if len(rows) == 0:
        return np.zeros((CUTOUT_PX, CUTOUT_PX, 4), np.uint8), 1.0
    tight = rgba[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    stretched = cv2.resize(tight, (CUTOUT_PX, CUTOUT_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(stretched, np.uint8), tight.shape[1] / tight.shape[0]
