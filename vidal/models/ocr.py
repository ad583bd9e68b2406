"""Reading text in pictures with the PP-OCR detector and recogniser, through rapidocr's pre- and post-processing.

reader = load_reader(detector, recogniser)
lines = reader.read(frame_rgb)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.locate import locate
from vidal.models.packages import how_to_install

Picture = npt.NDArray[np.uint8]
Corners = npt.NDArray[np.float32]

# The detector was made for pictures up to this size; a panorama is not worth more.
_MAX_DETECTOR_SIDE = 1600
_UNCLIP_RATIO = 2.0


@dataclass(slots=True, frozen=True, kw_only=True)
class TextLine:
    """One line; ``box`` is x0, y0, x1, y1 as shares of the picture."""

    text: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(slots=True, frozen=True, kw_only=True)
class Reader:
    """``detector_scale`` and ``reading_scale`` enlarge the picture before text is found and before it is read."""

    detector: Any
    recogniser: Any
    detector_scale: float = 1.5
    reading_scale: float = 3.0
    max_lines: int = 24

    def read(self, frame: Picture) -> list[TextLine]:
        """The lines of an RGB picture ``(height, width, 3)`` in reading order, every score included."""
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        large = cv2.resize(bgr, None, fx=self.reading_scale, fy=self.reading_scale, interpolation=cv2.INTER_CUBIC)
        rows = rows_of(self._find(bgr, large.shape[0], large.shape[1]))
        quads = self._largest([quad for row in rows for quad in joined(row)])
        if not quads:
            return []
        found, _ = self.recogniser([_straightened(large, quad) for quad in quads])
        size = np.array([large.shape[1], large.shape[0]] * 2, dtype=np.float64)
        return [
            TextLine(text=str(text).strip(), score=float(score), box=_shares(quad, size))
            for quad, (text, score) in zip(quads, found, strict=True)
        ]

    def _find(self, bgr: Any, height: int, width: int) -> list[Corners]:
        """Corners of every line, clockwise from the top left, in pixels of a ``height`` x ``width`` picture."""
        from rapidocr_onnxruntime.ch_ppocr_det.utils import DetPreProcess

        sides = sorted(bgr.shape[:2])
        scale = min(self.detector_scale, max(1.0, _MAX_DETECTOR_SIDE / sides[1]))
        prepare = DetPreProcess(round(sides[0] * scale), "min", self.detector.mean, self.detector.std)
        (likelihood,) = self.detector.infer(prepare(bgr))
        quads, _ = self.detector.postprocess_op(likelihood, (height, width))
        return list(self.detector.filter_tag_det_res(quads, (height, width)))

    def _largest(self, quads: list[Corners]) -> list[Corners]:
        # A page of small print would cost more than all the rest of the clip; what is written large matters most.
        kept = sorted(range(len(quads)), key=lambda place: (-_area(quads[place]), place))[: self.max_lines]
        return [quads[place] for place in sorted(kept)]


def load_reader(detector: str, recogniser: str, **settings: float) -> Reader:
    """A reader of PP-OCR ONNX files, one thread each."""
    try:
        from rapidocr_onnxruntime.ch_ppocr_det import TextDetector
        from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer
    except ModuleNotFoundError as error:
        raise ModelError(f"ocr: {how_to_install('rapidocr_onnxruntime')}") from error
    cv2.setNumThreads(1)
    try:
        found = TextDetector(
            {
                **_session(detector),
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "thresh": 0.3,
                "box_thresh": 0.5,
                "max_candidates": 200,
                "unclip_ratio": _UNCLIP_RATIO,
                "use_dilation": True,
            }
        )
        read = TextRecognizer({**_session(recogniser), "rec_batch_num": 6, "rec_img_shape": [3, 48, 320]})
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"ocr: {detector} with {recogniser} cannot be loaded ({error}); name the ONNX files of a PP-OCR detector "
            "and recogniser"
        ) from error
    return Reader(detector=found, recogniser=read, **settings)  # type: ignore[arg-type]


def _session(reference: str) -> dict[str, Any]:
    path = locate(reference).path
    if path is None or not path.is_file():
        raise ModelError(f"ocr: there is no model file {reference}; name a PP-OCR .onnx file")
    return {
        "model_path": str(Path(path)),
        "use_cuda": False,
        "use_dml": False,
        "intra_op_num_threads": 1,
        "inter_op_num_threads": 1,
    }


def rows_of(quads: list[Corners]) -> list[list[Corners]]:
    """Rows from top to bottom, each from left to right; one row where a middle lies within the first's height."""
    rows: list[list[Corners]] = []
    for quad in sorted(quads, key=lambda q: (float(q[:, 1].mean()), float(q[:, 0].min()))):
        first = rows[-1][0] if rows else None
        if first is not None and first[:, 1].min() < quad[:, 1].mean() < first[:, 1].max():
            rows[-1].append(quad)
        else:
            rows.append([quad])
    return [sorted(row, key=lambda q: float(q[:, 0].min())) for row in rows]


def joined(row: list[Corners]) -> list[Corners]:
    """The row with neighbours that make one line put together, so that the words of a caption are read as one.

    The detector parts large letters between words in one frame and not in the next, and the parts overlap.
    """
    lines: list[Corners] = []
    for quad in row:
        if lines and _make_one_line(lines[-1], quad):
            lines[-1] = _upright_around(np.concatenate([lines[-1], quad]))
        else:
            lines.append(quad)
    return lines


def _make_one_line(left: Corners, right: Corners) -> bool:
    (_, top, end, bottom), (start, other_top, _, other_bottom) = _bounds(left), _bounds(right)
    heights = sorted((bottom - top, other_bottom - other_top))
    are_level = all(abs(quad[0, 1] - quad[1, 1]) < 0.2 * heights[0] for quad in (left, right))
    return bool(are_level and heights[1] < 1.6 * heights[0] and start - end < heights[0])


def _upright_around(corners: Corners) -> Corners:
    x0, y0, x1, y1 = _bounds(corners)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float32)


def _bounds(quad: Corners) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _straightened(picture: Any, quad: Corners) -> Any:
    """The part of the picture within four corners as an upright rectangle; a column is laid on its side."""
    width = max(1, round(float(max(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[2] - quad[3])))))
    height = max(1, round(float(max(np.linalg.norm(quad[0] - quad[3]), np.linalg.norm(quad[1] - quad[2])))))
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), upright)
    part = cv2.warpPerspective(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_CUBIC)
    return np.rot90(part) if height >= 1.5 * width else part


def _area(quad: Corners) -> float:
    return float(cv2.contourArea(quad.astype(np.float32)))


def _shares(quad: Corners, size: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    corners = np.concatenate([quad.min(axis=0), quad.max(axis=0)]) / size
    x0, y0, x1, y1 = (round(float(share), 4) for share in np.clip(corners, 0, 1))
    return x0, y0, x1, y1
