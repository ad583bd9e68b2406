"""Text recognition in images with the PP-OCR detector and recogniser, and rapidocr's pre- and post-processing.

reader = load_reader(detector, recogniser)
lines = reader.read(frame_rgb)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.locate import model_file
from vidal.models.packages import how_to_install

Frame = npt.NDArray[np.uint8]
Corners = npt.NDArray[np.float32]
"""A quadrangle ``(4, 2)``: x and y of each corner in pixels, clockwise from the top left."""

# The detector was trained on images up to this size.
_MAX_DETECTOR_SIDE = 1600


@dataclass(slots=True, frozen=True, kw_only=True)
class TextLine:
    """One line of text; ``score`` is in [0, 1], ``box`` is x0, y0, x1, y1 as shares of the image's sides."""

    text: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(slots=True, frozen=True, kw_only=True)
class Reader:
    """Reads the text of an image.

    ``detector_scale`` and ``reading_scale`` enlarge the image before detection and before recognition. Only the
    ``max_lines`` largest lines are recognised.
    """

    detector: Any
    recogniser: Any
    detector_scale: float = 1.5
    reading_scale: float = 3.0
    max_lines: int = 24

    def read(self, frame: Frame) -> list[TextLine]:
        """Return the lines of an RGB image ``(height, width, 3)`` in reading order, whatever their score."""
        from rapidocr_onnxruntime.ch_ppocr_det.utils import DetPreProcess

        # rapidocr takes images as OpenCV reads them, blue first.
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        large = cv2.resize(bgr, None, fx=self.reading_scale, fy=self.reading_scale, interpolation=cv2.INTER_CUBIC)
        sides = sorted(bgr.shape[:2])
        scale = min(self.detector_scale, max(1.0, _MAX_DETECTOR_SIDE / sides[1]))
        prepare = DetPreProcess(round(sides[0] * scale), "min", self.detector.mean, self.detector.std)
        (likelihood,) = self.detector.infer(prepare(bgr))
        # The corners come out in pixels of the enlarged image, from which the lines are cut.
        found, _ = self.detector.postprocess_op(likelihood, large.shape[:2])
        rows = rows_of(list(self.detector.filter_tag_det_res(found, large.shape[:2])))
        quads = [quad for row in rows for quad in joined(row)]
        # A page of small print would cost more than the rest of the clip, and large text matters most.
        areas = [float(cv2.contourArea(quad.astype(np.float32))) for quad in quads]
        largest = sorted(range(len(quads)), key=lambda place: (-areas[place], place))[: self.max_lines]
        quads = [quads[place] for place in sorted(largest)]
        if not quads:
            return []
        recognised, _ = self.recogniser([_straightened(large, quad) for quad in quads])
        size = np.array([large.shape[1], large.shape[0]] * 2, dtype=np.float64)
        lines = []
        for quad, (text, score) in zip(quads, recognised, strict=True):
            corners = np.clip(np.concatenate([quad.min(axis=0), quad.max(axis=0)]) / size, 0, 1)
            x0, y0, x1, y1 = (round(float(share), 4) for share in corners)
            lines.append(TextLine(text=str(text).strip(), score=float(score), box=(x0, y0, x1, y1)))
        return lines


def load_reader(detector: str, recogniser: str, **settings: float) -> Reader:
    """Load a reader from two PP-OCR ONNX files, each run on one thread; raises `ModelError`."""
    try:
        from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
        from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer
    except ModuleNotFoundError as error:
        raise ModelError(f"ocr: {how_to_install('rapidocr_onnxruntime')}") from error
    cv2.setNumThreads(1)
    session = {"use_cuda": False, "use_dml": False, "intra_op_num_threads": 1, "inter_op_num_threads": 1}
    detection = {
        "mean": [0.5] * 3, "std": [0.5] * 3, "thresh": 0.3, "box_thresh": 0.5, "max_candidates": 200,
        "unclip_ratio": 2.0, "use_dilation": True,
    }  # fmt: skip
    recognition = {"rec_batch_num": 6, "rec_img_shape": [3, 48, 320]}
    files = [str(model_file(name, "ocr: model", "a PP-OCR .onnx file")) for name in (detector, recogniser)]
    try:
        text_detector = TextDetector({"model_path": files[0], **session, **detection})
        recognizer = TextRecognizer({"model_path": files[1], **session, **recognition})
    except Exception as error:
        raise ModelError(
            f"ocr: {detector} with {recogniser} cannot be loaded ({error}); name the ONNX files of a PP-OCR detector "
            "and recogniser"
        ) from error
    return Reader(detector=text_detector, recogniser=recognizer, **settings)  # type: ignore[arg-type]


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
