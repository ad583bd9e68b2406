"""Lines of several frames become one text, and boxes of one frame rows."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from vidal.clip import OcrLine
from vidal.models.ocr import joined, rows_of
from vidal.stages.text.ocr import area_share, each_line_once, overlapped


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("the mayor opens the nev", "nayor opens the new bridge", "the mayor opens the new bridge"),
        ("add the flour now", "the flour is mixed", None),
        ("wait", "wait for it", None),
        ("OPEN THE GATE", "the gate of the town", "OPEN THE GATE of the town"),
    ],
)
def test_parts_of_a_moving_line_overlap(one: str, other: str, both: str | None) -> None:
    assert overlapped(one, other) == both


def line(text: str, score: float = 0.9, number: int = 0, y: float = 0.5) -> OcrLine:
    return OcrLine(frame=number, text=text, score=score, box=[0.1, y, 0.9, y + 0.1])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line("A"), line("B"), line("A")], ["A", "B"]),
        ([line("HELLO WORLD"), line("HELLOWORLD", 0.99)], ["HELLO WORLD"]),
        ([line("Hello warld", 0.99), line("Hello world"), line("Hello world")], ["Hello world"]),
        ([line("PART 1"), line("PART 2")], ["PART 1", "PART 2"]),
        ([line("Wait"), line("Wait for it")], ["Wait for it"]),
        ([line("cat", y=0.1), line("my cat sleeps", y=0.8)], ["cat", "my cat sleeps"]),
        ([line("竜の街"), line("竜の街")], ["竜の街"]),
        ([], []),
        # a moving line, cut at both ends
        (
            [line("the mayor opens the nev"), line("nayor opens the new bridge", number=1), line("w bridge", number=2)],
            ["the mayor opens the new bridge"],
        ),
        # seen together
        ([line("this is the same end"), line("the same end of it")], ["this is the same end", "the same end of it"]),
        # the second line was hidden in the first frame
        (
            [line("FIRST"), line("THIRD"), *(line(text, number=1) for text in ("FIRST", "SECOND", "THIRD"))],
            ["FIRST", "SECOND", "THIRD"],
        ),
    ],
)
def test_each_line_stands_once(lines: list[OcrLine], expected: list[str]) -> None:
    assert each_line_once([list(frame) for _, frame in groupby(lines, key=lambda line: line.frame)]) == expected


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float32)


def test_rows_run_from_top_to_bottom_and_left_to_right() -> None:
    a, b, c = box(0, 0, 40, 20), box(200, 3, 260, 23), box(0, 50, 80, 70)
    ordered = [quad.tolist() for row in rows_of([c, b, a]) for quad in row]
    assert ordered == [a.tolist(), b.tolist(), c.tolist()]


@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [
        (box(0, 0, 40, 20), box(50, 0, 90, 20), 1),  # a space apart
        (box(0, 0, 40, 20), box(30, 0, 90, 20), 1),  # overlapping
        (box(0, 0, 40, 20), box(80, 0, 120, 20), 2),  # columns
        (box(0, 0, 40, 20), box(50, 0, 90, 60), 2),  # another size of letter
    ],
)
def test_neighbours_of_one_line_are_read_as_one(left: np.ndarray, right: np.ndarray, lines: int) -> None:
    assert len(joined([left, right])) == lines


@pytest.mark.parametrize(
    ("boxes", "share"),
    [([], 0.0), ([[0, 0, 1, 0.5]], 0.5), ([[0, 0, 1, 0.5], [0, 0, 0.5, 0.5]], 0.5), ([[0, 0, 1, 1]] * 2, 1.0)],
)
def test_overlapping_boxes_count_once(boxes: list[list[float]], share: float) -> None:
    assert area_share(boxes) == pytest.approx(share)
