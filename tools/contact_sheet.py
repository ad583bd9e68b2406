"""Draws clips with their modalities side by side: ``python -m tools.contact_sheet data/sample sheet.jpg``."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vidal

CLIPS = ("bunny-apple", "bunny-unlucky-bird", "band-guitar", "sintel-snow", "rocket-hold")
TILE = (160, 90)
AUDIO, CAPTION = 130, 250
"""Widths in pixels."""
GAP, HEAD = 4, 20
FRAMES = (1, 4, 7)
MIDDLE = 4


def tile(image: np.ndarray) -> Image.Image:
    """An image of shape (h, w) or (h, w, 3), fitted into a tile and centred."""
    fitted = Image.fromarray(image).convert("RGB")
    fitted.thumbnail(TILE, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", TILE, "#f4f4f4")
    canvas.paste(fitted, ((TILE[0] - fitted.width) // 2, (TILE[1] - fitted.height) // 2))
    return canvas


def coloured(depth: np.ndarray) -> np.ndarray:
    """Depth in colours between its 2nd and 98th percentile, near is warm; (h, w) uint16 to (h, w, 3)."""
    near, far = np.percentile(depth, (2, 98))
    share = np.clip((far - depth.astype(np.float32)) / max(far - near, 1), 0, 1)
    return np.asarray(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])


def waveform(audio: np.ndarray | None) -> Image.Image:
    """Peaks of the audio per pixel column; empty without audio."""
    image = Image.new("RGB", (AUDIO, TILE[1]), "#f4f4f4")
    draw = ImageDraw.Draw(image)
    if audio is None:
        draw.text((8, TILE[1] // 2 - 6), "no audio", fill="#777777", font=ImageFont.load_default(12))
        return image
    peaks = [float(np.abs(part).max(initial=0)) for part in np.array_split(audio, AUDIO)]
    for x, peak in enumerate(peaks):
        half = peak / max(*peaks, 1e-6) * (TILE[1] / 2 - 4)
        draw.line([(x, TILE[1] / 2 - half), (x, TILE[1] / 2 + half)], fill="#2a6f97")
    return image


def strip(sample: dict[str, Any], width: int) -> Image.Image:
    """One clip: three frames, depth, infrared, waveform and caption."""
    image = Image.new("RGB", (width, TILE[1]), "white")
    layers = [*(sample["video"][k] for k in FRAMES), coloured(sample["depth"][MIDDLE]), sample["infrared"][MIDDLE]]
    x = 0
    for part in [*map(tile, layers), waveform(sample.get("audio"))]:
        image.paste(part, (x, 0))
        x += part.width + GAP
    lines = textwrap.wrap(sample["row"]["caption"], 38, max_lines=5, placeholder=" …")
    ImageDraw.Draw(image).multiline_text((x + 4, 2), "\n".join(lines), fill="black", font=ImageFont.load_default(12))
    return image


def contact_sheet(address: str, clips: tuple[str, ...] = CLIPS) -> Image.Image:
    """The named clips of a dataset that has the layers of `pipelines/sample.yaml`, one a row."""
    dataset = vidal.open(address)
    places = {dataset.clip_id(n): n for n in range(len(dataset))}
    width = 5 * (TILE[0] + GAP) + AUDIO + GAP + CAPTION
    sheet = Image.new("RGB", (width, HEAD + len(clips) * (TILE[1] + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    heads = {"video (3 of 8 frames)": 0, "depth (estimated)": 3, "infrared (generated)": 4, "audio": 5}
    for text, column in heads.items():
        draw.text((column * (TILE[0] + GAP), 3), text, fill="#333333", font=font)
    draw.text((width - CAPTION + 4, 3), "language (caption)", fill="#333333", font=font)
    for n, clip in enumerate(clips):
        sheet.paste(strip(dataset[places[clip]], width), (0, HEAD + n * (TILE[1] + GAP)))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true", help="every clip of the dataset")
    options = parser.parse_args()
    dataset = vidal.open(options.dataset)
    clips = tuple(sorted(map(dataset.clip_id, range(len(dataset))))) if options.all else CLIPS
    contact_sheet(options.dataset, clips).save(options.out, quality=80)


if __name__ == "__main__":
    main()
