"""Hides parts of images and of a stored video: boxes show a few smooth cells in place of what was there."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
import numpy.typing as npt

from vidal.errors import ClipError
from vidal.media import child
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options
from vidal.media.limits import Limits

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
"""255 where an image is hidden and 0 elsewhere, ``(height, width)``."""
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""

CELLS = 6
"""Cells along an image's shorter side: what is hidden keeps one colour per cell, faded into the next."""
_IN, _MASKS, _OUT = "shown.mp4", "hide.ivf", "hidden.mp4"


def mask_of(boxes: Iterable[Box], height: int, width: int, margin: float) -> Mask:
    """Return the mask of boxes, each larger by ``margin`` times its sides on every side."""
    mask = np.zeros((height, width), np.uint8)
    for left, top, across, down in boxes:
        # Boxes may lie beyond the image's edges, where a slice with a negative start would be empty.
        x, y = max(0, int(left - margin * across)), max(0, int(top - margin * down))
        right, bottom = left + across * (1 + margin), top + down * (1 + margin)
        mask[y : max(0, int(np.ceil(bottom))), x : max(0, int(np.ceil(right)))] = 255
    return mask


def hide(image: Pixels, mask: Mask) -> Pixels:
    """Return an RGB image with what is under the mask hidden."""
    small = cv2.resize(image, _cells(*image.shape[:2]), interpolation=cv2.INTER_AREA)
    smooth = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(mask[:, :, None] > 0, smooth, image).astype(np.uint8)


def hide_in_jpeg(data: bytes, mask: Mask) -> bytes:
    """Return a JPEG with what is under the mask hidden, coded with the quantisation and subsampling that it had."""
    from PIL import Image, JpegImagePlugin

    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        tables, sampling = image.quantization, JpegImagePlugin.get_sampling(image)
        hidden = Image.fromarray(hide(np.asarray(image.convert("RGB")), mask))
    stream = io.BytesIO()
    hidden.save(stream, "JPEG", qtables=tables, subsampling=sampling)
    return stream.getvalue()


def hide_in_video(
    mp4: bytes, masks: Iterable[Mask], size: tuple[int, int], ticks: Sequence[int], time_base: Fraction,
    folder: Path, limits: Limits, *, crf: int, preset: str,
) -> bytes:  # fmt: skip
    """Return a stored video with each frame's mask applied, its times unchanged and its audio copied.

    ``size`` is width and height in pixels, ``ticks`` are the frames' times in units of ``time_base``. Raises
    `ClipError` if FFmpeg fails.
    """
    width, height = size
    try:
        (folder / _IN).write_bytes(mp4)
        _write_masks(folder / _MASKS, masks, size, ticks, time_base)
        media = ffmpeg.input(f"file:{_IN}", **input_options(limits))
        parts = media["v:0"].split()
        flags = {"flags": "accurate_rnd+bitexact"}
        smooth = parts[1].filter("scale", *_cells(height, width), flags="area+accurate_rnd+bitexact")
        smooth = smooth.filter("scale", width, height, flags="bilinear+accurate_rnd+bitexact")
        # The mask travels with times of its own, those of the frames: FFmpeg pairs the two by them.
        mask = ffmpeg.input(f"file:{_MASKS}", f="ivf", threads="1")["v:0"].filter("scale", **flags)
        smooth = ffmpeg.filter([smooth.filter("format", "yuva420p"), mask.filter("format", "gray")], "alphamerge")
        shown = ffmpeg.overlay(parts[0], smooth, format="yuv420").filter("format", "yuv420p")
        coding: dict[str, Any] = {
            "c:v": "libx264", "crf": crf, "preset": preset, "threads:v": 1, "g": 30,
            "force_key_frames": "expr:gte(t,n_forced)", "fps_mode": "passthrough", "enc_time_base:v": "demux",
            "c:a": "copy", "movflags": "+faststart", "f": "mp4", "flags": "+bitexact", "fflags": "+bitexact",
            "map_metadata": "-1", "map_chapters": "-1",
        }  # fmt: skip
        output = ffmpeg.output(shown, media["a?"], f"file:{_OUT}", **coding)
        finished = child.run([str(find_ffmpeg()), *global_options(limits), *output.get_args()], folder, limits)
        if finished.returncode != 0:
            raise ClipError("not_hidden", finished.first_error)
        return (folder / _OUT).read_bytes()
    finally:
        for name in (_IN, _MASKS, _OUT):
            (folder / name).unlink(missing_ok=True)


def _cells(height: int, width: int) -> tuple[int, int]:
    """Return the number of cells across and down, of about square cells."""
    side = min(height, width) / CELLS
    return max(1, round(width / side)), max(1, round(height / side))


def _write_masks(
    path: Path, masks: Iterable[Mask], size: tuple[int, int], ticks: Sequence[int], time_base: Fraction
) -> None:
    """Write the masks as a video of PNG images with exact times: IVF is a header, and a size and time per image."""
    base = time_base.denominator, time_base.numerator
    with path.open("wb") as file:
        file.write(struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, b"MPNG", *size, *base, len(ticks), 0))
        for mask, tick in zip(masks, ticks, strict=True):
            data = cv2.imencode(".png", mask)[1].tobytes()
            file.write(struct.pack("<IQ", len(data), tick) + data)
