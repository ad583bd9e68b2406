"""Images and cut-outs for rendered scenes: a few openly licensed packages, and noise drawn by this project.

`SOURCES` names every package with its licence; the model cards repeat that list. The packages are fetched by name
through the ordinary clients (pip, npm, apt) and unpacked once into one npz, so that rendering needs no network. No
image of the sample clips and none that `evaluate_depth` scores is read here, although some lie in the same packages.
"""

import base64
import io
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.cutouts import CUTOUT_PX, Cutout, cutout
from tools.rendering.materials import Category, Material
from tools.rendering.noise import noise_image
from tools.rendering.sprites import plant, sprites

PHOTO_HW = (180, 320)
HELD_OUT = 10
"""One image in so many is never seen in training (for photographs: the last ones, as views of one place look alike)."""
PLANTS = 240

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A package whose images end up in training renders."""

    package: str
    command: tuple[str, ...]
    content: str
    licence: str


_PIP = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:")
_NPM = ("npm", "pack", "--silent")
SOURCES = (
    Source(
        package="pybullet 3.2.7",
        command=(*_PIP, "pybullet==3.2.7"),
        content="views of the models in pybullet_data, without the bicycle, which has another licence",
        licence="zlib",
    ),
    Source(
        package="@lobehub/fluent-emoji-3d 1.1.0 (npm)",
        command=(*_NPM, "@lobehub/fluent-emoji-3d@1.1.0"),
        content="Fluent Emoji in their rendered 3D style, (c) Microsoft",
        licence="MIT",
    ),
    Source(
        package="@pmndrs/assets 1.7.0 (npm)",
        command=(*_NPM, "@pmndrs/assets@1.7.0"),
        content="views of 18 Poly Haven panoramas",
        licence="CC0",
    ),
    Source(
        package="lomiri-wallpapers-16.04 20.04.0-2 (Debian)",
        command=("apt-get", "download", "lomiri-wallpapers-16.04=20.04.0-2"),
        content="photographs by Aitzol Berasategi (4), Trevor 'Freespace' (2), Abhishek Mudgal and Jakub Mede, all"
        " CC BY 4.0, and Clemens Engelhardt, CC0",
        licence="CC BY 4.0 and CC0",
    ),
    Source(
        package="scikit-image 0.16.2",
        command=(*_PIP, "--python-version", "3.7", "scikit-image==0.16.2"),
        content="brick, grass, gravel",
        licence="CC0, as skimage/data/__init__.py states",
    ),
    Source(
        package="scikit-learn 1.9.1",
        command=(*_PIP, "scikit-learn==1.9.1"),
        content="china.jpg (danielbuechele), flower.jpg (vultilion)",
        licence="CC BY 2.0",
    ),
)
_STILLS = ("brick.png", "grass.png", "gravel.png")
_WALLPAPERS = ("aitzgorri", "friends", "life", "picosdeeuropa", "Picture_0B", "Picture_1A", "seeding", "umang", "Wine")
_VIEWS = 12
"""Views of each panorama, in as many directions around."""

# The first kind with a word in an emoji's Unicode name decides; the rest are objects.
_EMOJI_WORDS: tuple[tuple[Category, Material, str], ...] = (
    (Category.VEHICLE, Material.VEHICLE, "CAR AUTOMOBILE TRUCK BUS TAXI TRACTOR LOCOMOTIVE TRAIN TRAM TRAMCAR METRO"
     " RAILWAY MOTORCYCLE SCOOTER AMBULANCE ENGINE LORRY HELICOPTER AIRPLANE ROCKET SHIP BOAT SPEEDBOAT FERRY PICKUP"
     " TROLLEYBUS MINIBUS MONORAIL"),
    (Category.ANIMAL, Material.BODY, "CAT DOG BEAR MONKEY HORSE CHICKEN BIRD"),
    (Category.PERSON, Material.BODY, "FACE SHRUG BACKHAND PALM MAN WOMAN PERSON BOY GIRL BABY ADULT CHILD CHILDREN"
     " FAMILY HAND HANDS FINGER FIST OFFICER WORKER GUARDSMAN DANCER RUNNER SURFER SWIMMER ROWBOAT PRINCE PRINCESS"
     " BRIDE SLEUTH DETECTIVE FATHER MOTHER FAIRY MAGE VAMPIRE MERPERSON ELF SUPERHERO SUPERVILLAIN EAR NOSE MUSCLE"
     " BICEPS LEG FOOT MERMAID"),
    (Category.FOOD, Material.PLANT, "APPLE PEAR PEACH GRAPES MELON WATERMELON TANGERINE LEMON BANANA PINEAPPLE MANGO"
     " CHERRIES STRAWBERRY TOMATO AUBERGINE CORN CARROT POTATO AVOCADO CUCUMBER BROCCOLI GARLIC ONION BREAD CROISSANT"
     " CHEESE MEAT BACON HAMBURGER PIZZA SANDWICH EGG COOKING STEW RICE SUSHI CAKE COOKIE CHOCOLATE CANDY DOUGHNUT PIE"
     " FRIES NOODLES SPAGHETTI CURRY DUMPLING SHRIMP CUPCAKE WAFFLE PANCAKES TACO BURRITO OLIVE COCONUT KIWIFRUIT"),
    (Category.PLANT, Material.PLANT, "TREE LEAF LEAVES HERB CACTUS CLOVER FLOWER BLOSSOM TULIP SUNFLOWER PLANT"
     " ROSE SEEDLING BOUQUET HIBISCUS MUSHROOM SHAMROCK BAMBOO LOTUS HYACINTH"),
    (Category.BUILDING, Material.CONCRETE, "HOUSE BUILDING CASTLE CHURCH HOSPITAL BANK HOTEL SCHOOL FACTORY MOSQUE"
     " SYNAGOGUE TEMPLE TOWER STORE OFFICE BRIDGE STADIUM HUT TENT HOME"),
    (Category.FURNITURE, Material.WOOD, "CHAIR BED COUCH SEAT DOOR BATHTUB TOILET SHOWER"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """photos (p, 180, 320, 3) uint8 RGB, and the fields of `Cutout` stacked: cutouts (c, 128, 128, 4) uint8 RGBA,
    reliefs and materials (c, 128, 128) uint8, aspects and categories (c,)."""

    photos: Bytes
    cutouts: Bytes
    reliefs: Bytes
    materials: Bytes
    aspects: npt.NDArray[np.float32]
    categories: Bytes

    def part(self, *, held_out: bool) -> "Library":
        """The images for training, or those that training never sees."""
        return Library(**{name: images[_split(len(images), held_out)] for name, images in self._columns().items()})

    def joined(self, other: "Library") -> "Library":
        ours, theirs = self._columns(), other._columns()
        return Library(**{name: np.concatenate([ours[name], theirs[name]]) for name in ours})

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part.npz")
        np.savez(part, **self._columns())
        part.rename(path)

    def _columns(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def library(photos: list[Bytes], cutouts: list[Cutout]) -> Library:
    return Library(
        photos=np.stack(photos),
        cutouts=np.stack([c.rgba for c in cutouts]),
        reliefs=np.stack([c.relief for c in cutouts]),
        materials=np.stack([c.material for c in cutouts]),
        aspects=np.array([c.aspect for c in cutouts], np.float32),
        categories=np.array([c.category for c in cutouts], np.uint8),
    )


def _split(count: int, held_out: bool) -> slice:
    cut = count - count // HELD_OUT
    return slice(cut, count) if held_out else slice(0, cut)


def noise_cutout(rng: np.random.Generator) -> Cutout:
    """A random closed outline, shaded to look round, filled with a noise image."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = 0.7 + sum(rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(1, 6))
    points = np.stack([np.cos(angle), np.sin(angle)], 1) * np.clip(radius, 0.15, None)[:, None]
    points = (points - points.min(0)) / np.ptp(points, 0) * (CUTOUT_PX - 1)
    alpha = np.zeros((CUTOUT_PX, CUTOUT_PX), np.uint8)
    cv2.fillPoly(alpha, [points.astype(np.int32)], (255,))
    inside = cv2.distanceTransform(alpha, cv2.DIST_L2, 3)
    shade = 0.55 + 0.45 * np.sqrt(inside / (inside.max() + 1e-6))
    image = noise_image(rng, alpha.shape) * shade[..., None]
    kinds = [Material.WOOD, Material.PLASTIC, Material.METAL, Material.FABRIC, Material.PLANT]
    wide = np.asarray(cv2.resize(image, (round(CUTOUT_PX * rng.uniform(0.3, 2.0)), CUTOUT_PX)), np.uint8)
    mask = np.asarray(cv2.resize(alpha, wide.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return cutout(np.dstack([wide, mask]), Material(rng.choice(kinds)), Category.OBJECT)


def noise_library(seed: int, *, photos: int = 40, cutouts: int = 60) -> Library:
    """Images and cut-outs from nothing but a seed: what the tests render with, and a part of training."""
    rng = np.random.default_rng([seed, 7])
    images = [noise_image(rng, PHOTO_HW) for _ in range(photos)]
    return library(images, [plant(rng) if k % 4 == 0 else noise_cutout(rng) for k in range(cutouts)])


def package_library(cache: Path) -> Library:
    """The library of `SOURCES`, fetched and unpacked into `cache` the first time."""
    path = cache / "textures.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _unpack(cache).save(path)
    stored = np.load(path)
    return Library(**{field.name: stored[field.name] for field in fields(Library)})


def _unpack(cache: Path) -> Library:
    for source in SOURCES:
        where = {"npm": ("--pack-destination", str(cache)), "apt-get": ()}.get(source.command[0], ("-d", str(cache)))
        subprocess.run([*source.command, *where], check=True, cwd=cache, stdout=subprocess.DEVNULL)
    models = cache / "pybullet"
    with zipfile.ZipFile(_only(cache, "pybullet-3.2.7-*.whl")) as wheel:
        wheel.extractall(models)
    photos = [*_stills(cache), *_panorama_views(_only(cache, "pmndrs-assets-*.tgz"))]
    rng = np.random.default_rng(2)
    cut = [*_emoji(_only(cache, "lobehub-fluent-emoji-3d-*.tgz")), *_cut_from(photos), *sprites(models)]
    cut += [plant(rng) for _ in range(PLANTS)]
    # Shuffled once, so that the held-out part holds some of every kind.
    order = np.random.default_rng(0).permutation(len(cut))
    return library(photos, [cut[i] for i in order if cut[i].rgba[..., 3].any()])


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


def _stills(cache: Path) -> Iterator[Bytes]:
    """Photographs whole, and those of high resolution in four quarters too."""
    with zipfile.ZipFile(_only(cache, "scikit_image-0.16.2-*.whl")) as wheel:
        yield from (_covering(_decoded(wheel.read(f"skimage/data/{name}"))) for name in _STILLS)
    subprocess.run(["dpkg-deb", "-x", _only(cache, "lomiri-wallpapers-16.04_*.deb"), cache / "wallpapers"], check=True)
    folder = cache / "wallpapers" / "usr" / "share" / "backgrounds"
    images = [_decoded(_only(folder, f"{name}*.jpg").read_bytes()) for name in _WALLPAPERS]
    with zipfile.ZipFile(_only(cache, "scikit_learn-*.whl")) as wheel:
        images += [_decoded(wheel.read(f"sklearn/datasets/images/{name}.jpg")) for name in ("china", "flower")]
    for image in images:
        yield _covering(image)
        halves = [slice(0, image.shape[k] // 2) for k in (0, 1)], [slice(image.shape[k] // 2, None) for k in (0, 1)]
        yield from (_covering(image[rows[0], cols[1]]) for rows in halves for cols in halves)


def _panorama_views(archive: Path) -> Iterator[Bytes]:
    """Straight views out of panoramas, exposed for their own median."""
    height, width = PHOTO_HW
    with tarfile.open(archive) as tar:
        for member in sorted((m for m in tar if m.name.endswith(".exr.js")), key=lambda m: m.name):
            stream = tar.extractfile(member)
            assert stream is not None
            encoded = base64.b64decode(stream.read().split(b"base64,", 1)[1].split(b"'")[0])
            # OpenCV's wheels cannot read EXR.
            with av.open(io.BytesIO(encoded), "r", format="exr_pipe") as image:
                frame = next(image.decode(video=0)).reformat(format="gbrpf16le")
            green, blue, red = (
                np.frombuffer(bytes(plane), np.float16).reshape(plane.height, -1) for plane in frame.planes
            )
            panorama = np.nan_to_num(np.dstack([red, green, blue])[:, : frame.width].astype(np.float32)).clip(0, 100)
            for turn in range(_VIEWS):
                half, pitch = (0.5, -0.05) if turn % 2 else (0.8, 0.1)
                x = np.linspace(-half, half, width, dtype=np.float32)[None, :] * np.ones((height, 1), np.float32)
                y = np.linspace(-half, half, height, dtype=np.float32)[:, None] * height / width + pitch
                around = np.arctan2(x, 1) / (2 * np.pi) + turn / _VIEWS
                down = np.arctan2(y, np.hypot(x, 1)) / np.pi + 0.5
                cols = (around % 1 * panorama.shape[1]).astype(np.float32)
                rows = (down * panorama.shape[0]).astype(np.float32)
                view = cv2.remap(panorama, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
                exposed = view / (np.median(view) + 1e-6) * 0.2
                # The usual curve of a display, with highlights rolled off.
                shown = (exposed / (1 + exposed) * 1.4).clip(0, 1) ** (1 / 2.2) * 255
                yield np.ascontiguousarray(shown.astype(np.uint8))


def _decoded(encoded: bytes) -> Bytes:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


def _emoji(archive: Path) -> Iterator[Cutout]:
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
                category, material = _emoji_kind(int(code, 16))
                yield cutout(np.asarray(cv2.cvtColor(rgba, cv2.COLOR_BGRA2RGBA), np.uint8), material, category)


def _emoji_kind(code: int) -> tuple[Category, Material]:
    words = set(unicodedata.name(chr(code), "").replace("-", " ").split())
    if 0x1F400 <= code < 0x1F440 or 0x1F980 <= code < 0x1F9AF:
        return Category.ANIMAL, Material.BODY
    for category, material, known in _EMOJI_WORDS:
        if words & set(known.split()):
            return category, material
    return Category.OBJECT, Material.PLASTIC


def _cut_from(photos: list[Bytes]) -> Iterator[Cutout]:
    """Foregrounds that GrabCut separates from inside a random rectangle; leafy green ones count as plants."""
    rng = np.random.default_rng(1)
    cv2.setRNGSeed(0)
    for image in [*photos, *photos]:
        height, width = int(rng.uniform(0.5, 0.95) * PHOTO_HW[0]), int(rng.uniform(0.25, 0.6) * PHOTO_HW[1])
        box = (int(rng.integers(2, PHOTO_HW[1] - width - 2)), int(rng.integers(2, PHOTO_HW[0] - height - 2)))
        mask = np.zeros(PHOTO_HW, np.uint8)
        cv2.grabCut(image, mask, (*box, width, height), np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_RECT)
        alpha = _largest((mask % 2).astype(np.uint8))
        if 0.12 < alpha.mean() / 255 * alpha.size / (height * width) < 0.75:
            colour = image[alpha > 0].mean(0)
            plant_like = colour[1] > 1.06 * max(colour[0], colour[2])
            kind = (Material.PLANT, Category.PLANT) if plant_like else (Material.CONCRETE, Category.OBJECT)
            yield cutout(np.dstack([image, alpha]), *kind)


def _largest(mask: Bytes) -> Bytes:
    """The biggest connected piece, holes closed, as 0 or 255."""
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()) if len(stats) > 1 else 1
    return np.asarray((labels == best) * 255, np.uint8)
