"""A detector of squares of one colour, for what hides what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from vidal.clip import Clip
from vidal.record import Column
from vidal.stage import Stage
from vidal.work import Member

Pixels = npt.NDArray[np.uint8]


def magenta(frame: Pixels) -> npt.NDArray[np.bool_]:
    """Where a frame is of the square's colour, or nearly."""
    red, green, blue = (frame[:, :, k].astype(int) for k in range(3))
    return np.asarray((red > 150) & (blue > 150) & (green < 110))


def load(device: str) -> Callable[[list[Pixels]], list[list[tuple[int, int, int, int]]]]:
    assert device == "cpu"

    def boxes(frames: list[Pixels]) -> list[list[tuple[int, int, int, int]]]:
        found: list[list[tuple[int, int, int, int]]] = []
        for frame in frames:
            rows, columns = np.nonzero(magenta(frame))
            left, top = (int(min(places, default=0)) for places in (columns, rows))
            size = (int(max(places, default=0)) + 1 for places in (columns, rows))
            right, bottom = size
            found.append([(left, top, right - left, bottom - top)] if len(rows) > 20 else [])
        return found

    return boxes


def load_of_corners(device: str) -> Callable[[list[Pixels]], list[list[tuple[int, int]]]]:
    return lambda frames: [[(1, 2)] for _ in frames]


def load_of_one(device: str) -> Callable[[list[Pixels]], list[list[tuple[int, int]]]]:
    return lambda frames: []


class Seen(Stage):
    """What a stage behind the blur sees of the colour: the layer of a toy depth, and how many pixels of it there are."""

    reads = ("video",)
    layers = ("depth",)
    columns: ClassVar[Mapping[str, Column]] = {"seen": Column(int, "pixels of the square's colour in the frames")}

    def process(self, clip: Clip) -> None:
        clip["seen"] = sum(int(magenta(frame).sum()) for frame in clip.work.frames())
        for k, (frame, member) in enumerate(zip(clip.work.frames(), clip.work.frame_members(), strict=True)):
            data = cv2.imencode(".png", frame[:, :, 0].astype(np.uint16))[1].tobytes()
            clip.work.put(Member(layer="depth", suffix=f"depth.{k}.png", data=data, time_s=member.time_s))
