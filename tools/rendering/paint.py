"""What covers a surface and what stands behind everything: images of the library, tinted by material."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tools.rendering.materials import Material
from tools.rendering.noise import noise_image
from tools.rendering.textures import Library

Floats = npt.NDArray[np.float32]

# Mean colours by which people recognise materials. `_TELLING` ones are always tinted; the rest take whatever the
# image has, unless a scene is asked to be honest, that is to let colour tell the material.
_TINTS: dict[Material, tuple[tuple[int, int, int], ...]] = {
    Material.SKIN: ((224, 172, 140), (198, 134, 96), (141, 85, 54), (240, 200, 175), (95, 58, 38)),
    Material.PLANT: ((70, 110, 40), (40, 80, 35), (120, 150, 60), (60, 95, 60)),
    Material.SOIL: ((130, 100, 70), (160, 140, 110), (95, 75, 55), (190, 170, 135)),
    Material.WATER: ((60, 100, 130), (40, 75, 90), (90, 130, 150)),
    Material.METAL: ((150, 152, 155), (95, 97, 100), (190, 190, 192)),
    Material.CONCRETE: ((170, 165, 158), (120, 118, 115), (205, 198, 188)),
    Material.WOOD: ((150, 105, 65), (105, 70, 42), (190, 150, 105)),
    Material.PLASTIC: ((60, 80, 190), (235, 235, 235), (120, 40, 150), (30, 30, 35)),
    Material.FABRIC: ((40, 50, 90), (150, 35, 40), (225, 225, 220), (35, 35, 35), (60, 110, 170)),
}
_TELLING = (Material.SKIN, Material.PLANT, Material.SOIL, Material.WATER, Material.METAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """An image (h, w, 3) repeated every `span_m` of texture coordinate, mirrored so that no seam shows."""

    image: npt.NDArray[np.uint8]
    span_m: float
    offset: tuple[float, float]

    def at(self, u: Floats, v: Floats) -> Floats:
        """(n, 3) colours for coordinates (n,)."""
        rows = _mirrored(v / self.span_m + self.offset[0], self.image.shape[0])
        cols = _mirrored(u / self.span_m + self.offset[1], self.image.shape[1])
        return self.image[rows, cols].astype(np.float32)


def _mirrored(turns: Floats, size: int) -> npt.NDArray[np.intp]:
    folded = np.abs((turns % 2) - 1) if turns.size and (turns.min() < 0 or turns.max() >= 1) else turns
    return np.minimum((folded * size).astype(np.intp), size - 1)


def paint(
    rng: np.random.Generator, material: Material, library: Library, *, span_m: float, honest: bool = False
) -> Texture:
    """A texture for that material: half noise, half a piece of an image, tinted where colour tells the material."""
    image = _piece(rng, library) if rng.random() < 0.5 else noise_image(rng, (96, 96))
    if honest or material in _TELLING:
        tints = _TINTS[material]
        grey = image.mean(2, keepdims=True)
        contrast = rng.uniform(0.1, 0.35) if material is Material.SKIN else rng.uniform(0.2, 0.8)
        tint = np.asarray(tints[rng.integers(len(tints))]) * rng.uniform(0.75, 1.2)
        image = np.clip(tint * (1 + contrast * (grey - grey.mean()) / (grey.std() + 8)), 0, 255).astype(np.uint8)
    elif rng.random() < 0.3:
        # Plain boards and walls must not always look far away.
        image = np.clip(image.mean((0, 1)) + 0.08 * (image - image.mean((0, 1))), 0, 255).astype(np.uint8)
    return Texture(image=image, span_m=span_m, offset=(float(rng.random()), float(rng.random())))


def _piece(rng: np.random.Generator, library: Library) -> npt.NDArray[np.uint8]:
    photo = library.photos[int(rng.integers(len(library.photos)))]
    side = int(rng.integers(48, 160))
    top, left = rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)
    return np.asarray(photo[top : top + side, left : left + side], np.uint8)


def backdrop(
    rng: np.random.Generator, hw: tuple[int, int], library: Library, *, outdoor: bool, honest: bool = False
) -> tuple[Floats, npt.NDArray[np.uint8], Floats]:
    """Colour (h, w, 3), material (h, w) and sunlit share (h, w) of what is infinitely far: a sky or a photograph."""
    if rng.random() < (0.6 if honest and outdoor else 0.1 if honest else 0.4):
        return _sky(rng, hw, any_weather=honest)
    photo = library.photos[rng.integers(len(library.photos))]
    crop = rng.uniform(0.5, 1.0)
    height, width = int(photo.shape[0] * crop), int(photo.shape[1] * crop)
    top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
    piece = cv2.resize(photo[top : top + height, left : left + width], hw[::-1], interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        piece = cv2.GaussianBlur(piece, (0, 0), rng.uniform(0.5, 4))
    colour = np.asarray(piece[:, ::-1] if rng.random() < 0.5 else piece, np.float32)
    # Nothing else says where the sun falls in a photograph.
    lit = cv2.GaussianBlur(colour.mean(2) / 255, (0, 0), 3) * (0.5 if honest else outdoor)
    return colour, _photo_material(colour), np.asarray(lit, np.float32)


def _photo_material(colour: Floats) -> npt.NDArray[np.uint8]:
    """Sky where a photograph is smooth, bright and bluish from its top down, plants where green, else backdrop."""
    smooth = cv2.GaussianBlur(colour, (0, 0), 2)
    red, green, blue = (smooth[..., channel] for channel in range(3))
    grey = colour.mean(2)
    rough = np.sqrt(np.maximum(cv2.blur(grey * grey, (7, 7)) - cv2.blur(grey, (7, 7)) ** 2, 0))
    material = np.full(colour.shape[:2], Material.BACKDROP, np.uint8)
    material[green > 1.08 * np.maximum(red, blue)] = Material.PLANT
    # Violet is no sky, and neither is a blue thing that the sky's edge does not reach.
    bluish = (blue > 1.03 * red) & (blue > 0.98 * green) & (green > 0.97 * red) & (blue > 110) & (rough < 14)
    _, pieces = cv2.connectedComponents(bluish.astype(np.uint8))
    material[bluish & np.isin(pieces, pieces[:3])] = Material.SKY
    return material


def _sky(
    rng: np.random.Generator, hw: tuple[int, int], *, any_weather: bool
) -> tuple[Floats, npt.NDArray[np.uint8], Floats]:
    """A vertical gradient from blue or grey towards white, with clouds of noise in half of the skies.

    In any weather a third of them is overcast, dusk or night.
    """
    zenith = np.array([rng.uniform(60, 200), rng.uniform(110, 205), rng.uniform(170, 240)])
    horizon = zenith + (255 - zenith) * rng.uniform(0.2, 0.9)
    if any_weather and rng.random() < 0.35:
        overcast = np.full(3, rng.uniform(120, 235)) + rng.normal(0, 5, 3)
        dusk = np.array([rng.uniform(170, 255), rng.uniform(110, 200), rng.uniform(70, 170)])
        night = np.array([rng.uniform(5, 40), rng.uniform(10, 50), rng.uniform(30, 90)])
        zenith = (overcast, dusk, night)[rng.choice(3, p=[0.5, 0.3, 0.2])]
        horizon = zenith * rng.uniform(0.8, 1.15) + rng.uniform(0, 20)
    down = np.linspace(0, 1, hw[0])[:, None, None]
    colour = np.broadcast_to(zenith * (1 - down) + horizon * down, (*hw, 3)).astype(np.float32)
    if rng.random() < 0.5:
        cloud = noise_image(rng, hw).mean(2, keepdims=True) / 255 * rng.uniform(0.2, 1)
        colour = colour * (1 - cloud) + 245 * cloud
    sky = np.ascontiguousarray(colour.clip(0, 255), np.float32)
    return sky, np.full(hw, Material.SKY, np.uint8), np.zeros(hw, np.float32)
