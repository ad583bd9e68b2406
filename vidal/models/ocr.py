"""Text recognition in images with PP-OCR's detector and recognisers; rapidocr turns the detector's output into boxes.

reader = load_reader(detector, [recogniser], is_legible=lambda reading: reading.unread < 0.05)
lines = reader.read(frame_rgb)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.locate import model_file

Frame = npt.NDArray[np.uint8]
Corners = npt.NDArray[np.float32]
"""A quadrangle ``(4, 2)``: x and y of each corner in pixels, clockwise from the top left."""

# The detector was trained on images up to this size.
_MAX_DETECTOR_SIDE = 1600
# Of each grey level, as rapidocr computes it for every pixel: in 64 bits, which took a tenth of a frame's time.
DETECTOR_VALUES = ((np.arange(256, dtype=np.float32) * (1 / 255) - np.float64(0.5)) / 0.5).astype(np.float32)
# The recogniser was trained on lines of this height and of these widths, in pixels.
_LINE_PX = 48
_MIN_LINE_PX, _MAX_LINE_PX = 320, 3200
_BATCH = 6


@dataclass(slots=True, frozen=True, kw_only=True)
class TextLine:
    """One line of text; ``score`` is in [0, 1], ``box`` is x0, y0, x1, y1 as shares of the image's sides.

    ``unread`` is near 0 where every letter is in the recogniser's alphabet, and up to 1 where one is not (`Reading`).
    """

    text: str
    score: float
    unread: float = 0.0
    box: tuple[float, float, float, float]


@dataclass(slots=True, frozen=True, kw_only=True)
class Reader:
    """Reads the text of an image.

    ``detector_scale`` and ``reading_scale`` enlarge the image before detection and before recognition. Only the
    ``max_lines`` largest lines are recognised. Of several recognisers' readings, the most confident one for which
    ``is_legible`` is true is returned; where it is true for none, the most confident one.
    """

    detector: Detector
    recognisers: Sequence[Recogniser]
    is_legible: Callable[[Reading], bool]
    detector_scale: float = 1.5
    reading_scale: float = 3.0
    max_lines: int = 24

    def read(self, frame: Frame) -> list[TextLine]:
        """Return the lines of an RGB image ``(height, width, 3)`` in reading order, whatever their score."""
        # The models take images as OpenCV reads them, blue first.
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        large = cv2.resize(bgr, None, fx=self.reading_scale, fy=self.reading_scale, interpolation=cv2.INTER_CUBIC)
        # The corners come out in pixels of the enlarged image, from which the lines are cut.
        height, width = large.shape[:2]
        rows = rows_of(self.detector.quads(bgr, self.detector_scale, (height, width)))
        quads = [quad for row in rows for quad in joined(row)]
        # A page of small print would cost more than the rest of the clip, and large text matters most.
        areas = [float(cv2.contourArea(quad.astype(np.float32))) for quad in quads]
        largest = sorted(range(len(quads)), key=lambda place: (-areas[place], place))[: self.max_lines]
        quads = [quads[place] for place in sorted(largest)]
        parts = [_straightened(large, quad) for quad in quads]
        readings = zip(*(recogniser.read(parts) for recogniser in self.recognisers), strict=True)
        size = np.array([width, height] * 2, dtype=np.float64)
        lines = []
        for quad, of_line in zip(quads, readings, strict=True):
            corners = np.clip(np.concatenate([quad.min(axis=0), quad.max(axis=0)]) / size, 0, 1)
            x0, y0, x1, y1 = (round(float(share), 4) for share in corners)
            # A recogniser is sure of the look-alikes that it sees in letters which it lacks.
            best = max(of_line, key=lambda reading: (self.is_legible(reading), reading.score))
            lines.append(TextLine(text=best.text.strip(), score=best.score, unread=best.unread, box=(x0, y0, x1, y1)))
        return lines


class Detector:
    """Finds lines of text: a PP-OCR detector, which was trained on images with values in -1 to 1."""

    def __init__(self, session: Any) -> None:
        from rapidocr.ch_ppocr_det.utils import DBPostProcess

        self._session = session
        self._boxes = DBPostProcess(thresh=0.3, box_thresh=0.5, max_candidates=200, unclip_ratio=2.0, use_dilation=True)

    def quads(self, bgr: Frame, scale: float, size: tuple[int, int]) -> list[Corners]:
        """Return the corners of each line, in pixels of the image enlarged to ``size`` (height, width)."""
        from rapidocr.ch_ppocr_det.utils import DetPreProcess

        short, long = sorted(bgr.shape[:2])
        scale = min(scale, max(1.0, _MAX_DETECTOR_SIDE / long))
        resized: Any = DetPreProcess(round(short * scale), "min").resize(bgr)
        image = np.ascontiguousarray(cv2.LUT(resized, DETECTOR_VALUES).transpose(2, 0, 1))
        (likelihood,) = self._session.run(None, {self._session.get_inputs()[0].name: image[None]})
        return list(self._boxes(likelihood, size)[0])


@dataclass(slots=True, frozen=True, kw_only=True)
class Reading:
    """What a recogniser reads in the image of a line; ``score`` is the mean probability of its characters.

    A recogniser skips letters that are not in its alphabet, where several of its own are a little probable at once.
    ``unread`` is the highest sum of such probabilities at a place between two characters.
    """

    text: str
    score: float
    unread: float


class Recogniser:
    """Reads lines: a PP-OCR recogniser whose file holds its alphabet under ``character``, as rapidocr's files do."""

    def __init__(self, session: Any) -> None:
        self._session = session
        # Class 0 is CTC's blank, and the last one a space.
        self._alphabet = ["", *session.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]

    def read(self, parts: Sequence[Frame]) -> list[Reading]:
        """Read images of one line each, ``(height, width, 3)`` with blue first."""
        readings: dict[int, Reading] = {}
        # Images of a batch are padded to the width of its widest.
        by_width = sorted(range(len(parts)), key=lambda place: parts[place].shape[1] / parts[place].shape[0])
        for start in range(0, len(parts), _BATCH):
            batch = by_width[start : start + _BATCH]
            for place, probabilities in zip(batch, self._probabilities([parts[k] for k in batch]), strict=True):
                readings[place] = _decoded(probabilities, self._alphabet)
        return [readings[place] for place in range(len(parts))]

    def _probabilities(self, parts: Sequence[Frame]) -> npt.NDArray[np.float32]:
        widths = [min(max(1, math.ceil(_LINE_PX * part.shape[1] / part.shape[0])), _MAX_LINE_PX) for part in parts]
        images = np.zeros((len(parts), 3, _LINE_PX, max(_MIN_LINE_PX, *widths)), dtype=np.float32)
        for image, part, width in zip(images, parts, widths, strict=True):
            image[:, :, :width] = cv2.resize(part, (width, _LINE_PX)).transpose(2, 0, 1) / 127.5 - 1
        (probabilities,) = self._session.run(None, {self._session.get_inputs()[0].name: images})
        return probabilities  # type: ignore[no-any-return]


def _decoded(probabilities: npt.NDArray[np.float32], alphabet: Sequence[str]) -> Reading:
    """Decode CTC probabilities ``(steps, classes)`` greedily."""
    best = probabilities.argmax(axis=1)
    is_character = (best != 0) & np.r_[True, best[1:] != best[:-1]]
    places = np.flatnonzero(is_character)
    if not len(places):
        return Reading(text="", score=0.0, unread=0.0)
    steps = np.arange(places[0], places[-1])[best[places[0] : places[-1]] == 0]
    between = probabilities[steps]
    # A character may be wide, and a lost space is no lost letter.
    after = np.searchsorted(places, steps)
    rows = np.arange(len(steps))
    for expected in (0, len(alphabet) - 1, best[places[after - 1]], best[places[after]]):
        between[rows, expected] = 0
    return Reading(
        text="".join(alphabet[k] for k in best[places]),
        score=float(probabilities[places, best[places]].mean()),
        unread=float(between.sum(axis=1).max(initial=0.0)),
    )


def load_reader(
    detector: str, recognisers: Sequence[str], *, is_legible: Callable[[Reading], bool], **settings: float
) -> Reader:
    """Load a reader from PP-OCR's ONNX files, each run on one thread; raises `ModelError`."""
    import onnxruntime

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Errors are raised: printed by onnxruntime, they would be there twice.
    options.log_severity_level = 4
    files = [str(model_file(name, "ocr: model", "a PP-OCR .onnx file")) for name in (detector, *recognisers)]
    try:
        first, *others = [onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"]) for file in files]
        readers = [Recogniser(other) for other in others]
        return Reader(detector=Detector(first), recognisers=readers, is_legible=is_legible, **settings)  # type: ignore[arg-type]
    except Exception as error:
        raise ModelError(
            f"ocr: {detector} with {', '.join(recognisers)} cannot be loaded ({error}); name the ONNX files of a "
            "PP-OCR detector and of recognisers that hold their alphabet"
        ) from error


def rows_of(quads: list[Corners]) -> list[list[Corners]]:
    """Group lines into rows from top to bottom, each from left to right.

    A line belongs to a row if its vertical centre lies within the height of the row's first line.
    """
    rows: list[list[Corners]] = []
    for quad in sorted(quads, key=lambda q: (float(q[:, 1].mean()), float(q[:, 0].min()))):
        first = rows[-1][0] if rows else None
        if first is not None and first[:, 1].min() < quad[:, 1].mean() < first[:, 1].max():
            rows[-1].append(quad)
        else:
            rows.append([quad])
    return [sorted(row, key=lambda q: float(q[:, 0].min())) for row in rows]


def joined(row: list[Corners]) -> list[Corners]:
    """Merge neighbours of a row that form one line, so that the words of a caption are read together.

    The detector splits large letters between words in one frame but not in the next, and the parts overlap. Two
    neighbours merge if both are level, of similar height and less than a letter's height apart.
    """
    lines: list[Corners] = []
    for quad in row:
        if lines:
            (_, top, end, bottom), (start, other_top, _, other_bottom) = _bounds(lines[-1]), _bounds(quad)
            low, high = sorted((bottom - top, other_bottom - other_top))
            are_level = all(abs(each[0, 1] - each[1, 1]) < 0.2 * low for each in (lines[-1], quad))
            if are_level and high < 1.6 * low and start - end < low:
                x0, y0, x1, y1 = _bounds(np.concatenate([lines[-1], quad]))
                lines[-1] = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float32)
                continue
        lines.append(quad)
    return lines


def _bounds(corners: Corners) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _straightened(image: Any, quad: Corners) -> Any:
    """Warp the part of the image within four corners to an upright rectangle; a column is turned on its side."""
    width = max(1, round(float(max(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[2] - quad[3])))))
    height = max(1, round(float(max(np.linalg.norm(quad[0] - quad[3]), np.linalg.norm(quad[1] - quad[2])))))
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), upright)
    part = cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.rot90(part) if height >= 1.5 * width else part
