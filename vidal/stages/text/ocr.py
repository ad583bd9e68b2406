from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip, OcrLine
from vidal.models.locate import identity
from vidal.stage import Resources, Stage

Image = npt.NDArray[np.uint8]

_BLOCK_PX = 8
"""Side of the blocks in which frames are compared: a changed word fills a block, sensor noise averages out."""
_SAME_LINE_SHARE = 0.85


class Ocr(Stage):
    """Recognises text in the stored frames.

    The shorter side of stored frames has 256 pixels by default; letters of at least 11 pixels are legible after
    enlargement by ``detector_scale`` to detect lines and by ``reading_scale`` to read them. A frame that is equal to
    the last frame read gets the same lines. ``ocr_text`` contains each line once, in reading order.
    """

    version = 1
    reads = ("video",)
    writes = ("ocr_text", "ocr_lines", "ocr_model", "ocr_area_share")
    imports = ("huggingface_hub",)
    default_resources = Resources(timeout_s=120)

    detector: str = "package:rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
    """ONNX model that finds lines of text."""
    recogniser: str = "package:rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    """ONNX model that reads them."""
    min_score: float = Field(0.8, ge=0, le=1)
    """Lines of lower confidence are dropped; most lines below 0.7 are textures."""
    min_letters: int = Field(2, ge=1)
    """Lines with fewer letters and digits are dropped; most single characters are textures."""
    detector_scale: float = Field(1.5, ge=1, le=4)
    """Enlargement of a frame to detect lines."""
    reading_scale: float = Field(3.0, ge=1, le=6)
    """Enlargement of a line to read it."""
    max_lines_per_frame: int = Field(24, ge=1, le=500)
    """Only the largest lines are read, as each takes about 30 ms."""
    same_frame_level: float = Field(6.0, ge=0, le=255)
    """Largest change of a block of pixels, in grey levels of 255, for which a frame counts as equal."""

    _reader: Any = PrivateAttr(default=None)
    _model: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"detector": identity(self.detector), "recogniser": identity(self.recogniser)}

    def setup(self) -> None:
        from vidal.models.ocr import load_reader

        self._reader = load_reader(
            self.detector,
            self.recogniser,
            detector_scale=self.detector_scale,
            reading_scale=self.reading_scale,
            max_lines=self.max_lines_per_frame,
        )
        self._model = " + ".join(self.model_identities().values())

    def process(self, clip: Clip) -> None:
        if not clip.work.frame_members():
            return
        lines: list[OcrLine] = []
        last_read: Image | None = None
        last_lines: list[Any] = []
        for number, frame in enumerate(clip.work.frames()):
            if last_read is None or not is_same_image(last_read, frame, self.same_frame_level):
                last_read, last_lines = frame, self._reader.read(frame)
            lines += [
                OcrLine(frame=number, text=line.text, score=round(line.score, 4), box=list(line.box))
                for line in last_lines
                if line.score >= self.min_score and len(_letters(line.text)) >= self.min_letters
            ]
        clip.ocr_lines = lines
        clip.ocr_text = "\n".join(each_line_once(lines)) or None
        boxes = ([line.box for line in lines if line.frame == frame] for frame in {line.frame for line in lines})
        clip.ocr_area_share = max(map(area_share, boxes), default=0.0)
        clip.ocr_model = self._model


def is_same_image(one: Image, other: Image, level: float) -> bool:
    """Return whether no block of pixels differs by more than ``level`` grey levels."""
    if one.shape != other.shape:
        return False
    # A difference of uint8 would wrap around.
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16)).mean(axis=2)
    height, width = difference.shape
    padded = np.pad(difference, ((0, -height % _BLOCK_PX), (0, -width % _BLOCK_PX)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // _BLOCK_PX, _BLOCK_PX, -1, _BLOCK_PX).mean(axis=(1, 3))
    return float(blocks.max()) <= level


def each_line_once(lines: Sequence[OcrLine]) -> list[str]:
    """Return each line once, in reading order and in its most frequent reading, then that of the highest score."""
    readings: list[list[OcrLine]] = []
    above: list[OcrLine] | None = None
    frame: int | None = None
    for line in lines:
        if line.frame != frame:
            above, frame = None, line.frame
        same = next((group for group in readings if _same_line(group[0].text, line.text)), None)
        if same is None:
            same = [line]
            # A line that was hidden or garbled in earlier frames is inserted after the line above it.
            place = len(readings) if above is None else readings.index(above) + 1
            readings.insert(place, same)
        else:
            same.append(line)
        above = same
    return [_best_reading(g) for g in readings if not any(_is_part(g[0], o[0]) for o in readings if o is not g)]


def _is_part(line: OcrLine, whole: OcrLine) -> bool:
    """Return whether a line is a part of a longer line at the same position, e.g. of text that appears gradually."""
    middle = (line.box[1] + line.box[3]) / 2
    a, b = _letters(line.text), _letters(whole.text)
    return a != b and a in b and whole.box[1] < middle < whole.box[3]


def _best_reading(group: Sequence[OcrLine]) -> str:
    counts = Counter(line.text for line in group)
    surest = {text: max(line.score for line in group if line.text == text) for text in counts}
    # The recogniser omits spaces far more often than it inserts them.
    return max(counts, key=lambda text: (counts[text], text.count(" "), surest[text], text))


def _same_line(one: str, other: str) -> bool:
    a, b = _letters(one), _letters(other)
    if a == b:
        return True
    # "PART 1" and "PART 2" are different lines despite their similarity, and so are different times or prices.
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return False
    # autojunk would ignore the commonest letters of a line of 200 and more.
    return SequenceMatcher(None, a, b, autojunk=False).ratio() >= _SAME_LINE_SHARE


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def area_share(boxes: Sequence[Sequence[float]]) -> float:
    """Return the share of the frame covered by the boxes (x0, y0, x1, y1 in 0 to 1), on a grid of 200 x 200."""
    covered = np.zeros((200, 200), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        covered[round(y0 * 200) : round(y1 * 200), round(x0 * 200) : round(x1 * 200)] = True
    return float(covered.mean())
