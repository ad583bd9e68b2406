from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip, OcrLine
from vidal.models.locate import identity
from vidal.stage import Resources, Stage
from vidal.stages.frame_change import mean_of_channels

if TYPE_CHECKING:
    from vidal.models.ocr import Reading, TextLine

Image = npt.NDArray[np.uint8]

_BLOCK_PX = 8
"""Side of the blocks in which frames are compared: a changed word fills a block, sensor noise averages out."""
_SAME_LINE_SHARE = 0.85
_MIN_OVERLAP = 8
"""Characters that two readings of a moving line must share; at its ends up to `_CUT` more are cut by the frame."""
_CUT = 2
_SAME_EDGE = 0.05


class Ocr(Stage):
    """Recognises text in the stored frames.

    The shorter side of stored frames has 256 pixels by default; letters of at least 11 pixels are legible after
    enlargement by ``detector_scale`` to detect lines and by ``reading_scale`` to read them. A frame that is equal to
    the last frame read gets the same lines. ``ocr_text`` contains each line once, in reading order, also one that
    scrolls. The default recogniser reads Chinese, Japanese and most languages in Latin letters; lines in other scripts
    are dropped, unless a recogniser of ``other_recognisers`` reads them.
    """

    version = 3
    reads = ("video",)
    writes = ("ocr_text", "ocr_lines", "ocr_model", "ocr_area_share")
    imports = ("huggingface_hub", "onnxruntime", "rapidocr")
    default_resources = Resources(timeout_s=120)

    detector: str = "package:rapidocr/models/PP-OCRv6_det_small.onnx"
    """ONNX model that finds lines of text."""
    recogniser: str = "package:rapidocr/models/PP-OCRv6_rec_small.onnx"
    """ONNX model that reads them."""
    other_recognisers: list[str] = Field([])
    """ONNX models for more languages: all read each line, and the surest reading in its own alphabet is kept."""
    frames_per_s: float = Field(0.0, ge=0, le=30)
    """Frames of the stored video that are read too, per second; lines get the number of the nearest stored frame."""
    min_score: float = Field(0.8, ge=0, le=1)
    """Lines of lower confidence are dropped; most lines below 0.7 are textures."""
    max_unread: float = Field(0.05, ge=0, le=1)
    """Lines with a letter that is not in the recogniser's alphabet are dropped: more than this probability is spread
    over other letters between two of the line."""
    min_letters: int = Field(2, ge=1)
    """Lines with fewer letters and digits are dropped; most single characters are textures."""
    max_height: float = Field(0.5, gt=0, le=1)
    """Lines higher than this share of the frame are dropped; shapes of that size pass for digits."""
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
        others = {f"recogniser {k}": identity(name) for k, name in enumerate(self.other_recognisers, 2)}
        return {"detector": identity(self.detector), "recogniser": identity(self.recogniser), **others}

    def setup(self) -> None:
        from vidal.models.ocr import load_reader

        self._reader = load_reader(
            self.detector,
            [self.recogniser, *self.other_recognisers],
            is_legible=self.is_legible,
            detector_scale=self.detector_scale,
            reading_scale=self.reading_scale,
            max_lines=self.max_lines_per_frame,
        )
        self._model = " + ".join(self.model_identities().values())

    def process(self, clip: Clip) -> None:
        if not clip.work.frame_members():
            return
        read: list[list[OcrLine]] = []
        last_read: Image | None = None
        last_lines: list[Any] = []
        for number, frame in self._frames(clip):
            if last_read is None or not is_same_image(last_read, frame, self.same_frame_level):
                last_read, last_lines = frame, self._reader.read(frame)
            lines = [
                OcrLine(frame=number, text=line.text, score=round(line.score, 4), box=list(line.box))
                for line in last_lines
                if self.keeps(line)
            ]
            read.append(lines)
        clip.ocr_lines = [line for lines in read for line in lines]
        clip.ocr_text = "\n".join(each_line_once(read)) or None
        clip.ocr_area_share = max((area_share([line.box for line in lines]) for lines in read if lines), default=0.0)
        clip.ocr_model = self._model

    def keeps(self, line: TextLine) -> bool:
        """Return whether a line is text of a plausible size, sure enough, and in the recogniser's alphabet."""
        return line.score >= self.min_score and line.box[3] - line.box[1] <= self.max_height and self.is_legible(line)

    def is_legible(self, read: Reading | TextLine) -> bool:
        """Return whether what was read has enough letters, and none that the recogniser lacks."""
        return (
            read.unread <= self.max_unread
            and len(_letters(read.text)) >= self.min_letters
            and not mixes_alphabets(read.text)
        )

    def _frames(self, clip: Clip) -> Iterator[tuple[int, Image]]:
        """Yield the frames to read in order of time, each with the number of the nearest stored frame."""
        stored = [(member.time_s or 0.0, number) for number, member in enumerate(clip.work.frame_members())]
        frames = [(*key, image) for key, image in zip(stored, clip.work.frames(), strict=True)]
        video = clip.work.member("video", "mp4")
        if self.frames_per_s and video is not None:
            from vidal.media.stored_video import video_frames

            for time_s, image in video_frames(video.data, self.frames_per_s):
                frames.append((time_s, min(stored, key=lambda each: abs(each[0] - time_s))[1], image))
        # By time and number, as images have no order.
        for _, number, image in sorted(frames, key=lambda frame: frame[:2]):
            yield number, image


def is_same_image(one: Image, other: Image, level: float) -> bool:
    """Return whether no block of pixels differs by more than ``level`` grey levels."""
    if one.shape != other.shape:
        return False
    import cv2

    difference = mean_of_channels(cv2.absdiff(one, other))
    height, width = difference.shape
    padded = np.pad(difference, ((0, -height % _BLOCK_PX), (0, -width % _BLOCK_PX)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // _BLOCK_PX, _BLOCK_PX, -1, _BLOCK_PX).mean(axis=(1, 3))
    return float(blocks.max()) <= level


def each_line_once(frames: Sequence[Sequence[OcrLine]]) -> list[str]:
    """Return each line of the frames once, in reading order and in its most frequent reading, then the surest one."""
    readings: list[_Line] = []
    for number, lines in enumerate(frames):
        above: _Line | None = None
        for line in lines:
            same = next((each for each in readings if _same_line(each.seen[0].text, line.text)), None)
            if same is None:
                same = _Line([], set())
                # A line that was hidden or garbled in earlier frames is inserted after the line above it.
                readings.insert(len(readings) if above is None else readings.index(above) + 1, same)
            same.seen.append(line)
            same.frames.add(number)
            above = same
    whole = [r for r in readings if not any(_is_part(r.seen[0], o.seen[0]) for o in readings if o is not r)]
    told: list[tuple[str, _Line]] = []
    for each in whole:
        text = _best_reading(each.seen)
        for k, (earlier, moving) in enumerate(told):
            if _may_have_moved(moving, each) and (both := overlapped(earlier, text)):
                told[k] = both, _Line(moving.seen + each.seen, moving.frames | each.frames)
                break
        else:
            told.append((text, each))
    return [text for text, _ in told]


@dataclass(slots=True, eq=False)
class _Line:
    """A line as it was seen, in order of time, and the places of the frames in which it was."""

    seen: list[OcrLine]
    frames: set[int]


def _may_have_moved(line: _Line, other: _Line) -> bool:
    """Return whether the lines are never seen together, at one height, and cut at the same edge, as a window would."""
    (x0, y0, x1, y1), (other_x0, other_y0, other_x1, other_y1) = line.seen[-1].box, other.seen[0].box
    is_cut_alike = min(abs(x0 - other_x0), abs(x1 - other_x1)) < _SAME_EDGE
    return line.frames.isdisjoint(other.frames) and y0 < (other_y0 + other_y1) / 2 < y1 and is_cut_alike


def overlapped(one: str, other: str) -> str | None:
    """Join two parts of a line that moves to the left, if the first ends as the second begins; None if it does not.

    overlapped("The mayor opens the nev", "ayor opens the new bridge")  # "The mayor opens the new bridge"
    """
    a, b = [c.casefold() for c in one], [c.casefold() for c in other]
    match = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    end, other_end = match.a + match.size, match.b + match.size
    if match.size < _MIN_OVERLAP or len(a) - end > _CUT or match.b > _CUT:
        return None
    return one[:end] + other[other_end:]


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


def mixes_alphabets(text: str) -> bool:
    """Return whether a word has Greek and Latin letters, as words of another alphabet that has letters of both."""
    alphabets = ({unicodedata.name(c, "").split(" ")[0] for c in word} for word in text.split())
    return any({"GREEK", "LATIN"} <= each for each in alphabets)


def area_share(boxes: Sequence[Sequence[float]]) -> float:
    """Return the share of the frame covered by the boxes (x0, y0, x1, y1 in 0 to 1), on a grid of 200 x 200."""
    covered = np.zeros((200, 200), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        covered[round(y0 * 200) : round(y1 * 200), round(x0 * 200) : round(x1 * 200)] = True
    return float(covered.mean())
