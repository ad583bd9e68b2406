"""Shared code of stages that compute one image per colour frame: batching, members, temporal stability."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.models.frame_batch import FrameBatch
from vidal.stages.frame_change import mean_of_channels
from vidal.work import Member, Work

Image = npt.NDArray[np.uint8]

_STILL_LEVELS = 8.0
"""A pixel is still if its colour changes by less than this, in levels of 255."""
_MIN_STILL_SHARE = 0.01
_THREADS = 4
"""Threads of a worker that finish clips beside a GPU."""
_FORMATS = {".png": "PNG", ".jpg": "JPEG"}


def for_each_frame(
    works: Sequence[Work],
    compute: Callable[[FrameBatch], list[Any]],
    *,
    batch_frames: int,
    mix_clips: bool,
) -> Iterator[list[Any]]:
    """Yield, clip by clip, the result of ``compute`` for each stored frame; it gets batches of frames of equal size.

    A clip's results come as soon as they are there, before the next batch is computed.

    Results depend on the batch size in their last bits. Unless ``mix_clips`` is true, no batch contains frames of two
    clips, so that the output for a clip does not depend on other clips.
    """
    groups: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for clip, work in enumerate(works):
        for number, frame in enumerate(work.frames()):
            groups.setdefault((None if mix_clips else clip, frame.shape), []).append((clip, number))
    results: list[list[Any]] = [[None] * len(work.frames()) for work in works]
    missing = [len(work.frames()) for work in works]
    following = 0
    for places in groups.values():
        for first in range(0, len(places), batch_frames):
            batch = places[first : first + batch_frames]
            computed = compute(FrameBatch((works[clip], number) for clip, number in batch))
            for (clip, number), result in zip(batch, computed, strict=True):
                results[clip][number] = result
                missing[clip] -= 1
            while following < len(works) and not missing[following]:
                yield results[following]
                following += 1


@contextmanager
def finishing(*, in_threads: bool) -> Iterator[Callable[..., None]]:
    """Give a function that calls its first argument with the others, for what follows the model, such as encoding.

    With ``in_threads`` it calls in threads, so that a GPU computes meanwhile; on a CPU a worker has one thread. Where
    the context ends, all calls have ended; the error of the first that failed is raised.
    """

    def call(function: Callable[..., None], *arguments: Any) -> None:
        if not in_threads:
            function(*arguments)
        else:
            calls.append(pool.submit(function, *arguments))

    calls: list[Future[None]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        yield call
    for ended in calls:
        ended.result()


def put_images(clip: Clip, layer: str, images: Sequence[npt.NDArray[Any]], ending: str, options: list[int]) -> None:
    """Add an image for each stored frame, with its number and time, to a synthetic ``layer`` of the clip.

    ``ending`` is ``.png`` or ``.jpg``, ``options`` are those of OpenCV's encoder. Raises `ClipError` if it fails.
    """
    import cv2

    for frame, image in zip(clip.work.frame_members(), images, strict=True):
        is_encoded, data = cv2.imencode(ending, image, options)
        if not is_encoded:
            detail = f"an image of shape {image.shape} cannot be encoded as {_FORMATS[ending]}"
            raise ClipError(f"bad_{layer}", detail)
        suffix = frame.suffix.replace("frame.", f"{layer}.").rsplit(".", 1)[0] + ending
        clip.work.put(Member(layer=layer, suffix=suffix, data=data.tobytes(), time_s=frame.time_s))
    if layer not in clip.synthetic_layers:
        clip.synthetic_layers = [*clip.synthetic_layers, layer]


def steadied(colour: Sequence[Image], images: Sequence[Image]) -> list[Image]:
    """Average each image, pixel by pixel, over the frames of its clip whose colours around the pixel are the same.

    What has not moved has kept its temperature. Another frame counts in full up to a difference of `_STILL_LEVELS`, and
    from twice that not at all.
    """
    import cv2

    sums = [image.astype(np.float32) for image in images]
    weights = [np.ones(image.shape, np.float32) for image in images]
    for i, j in itertools.combinations(range(len(images)), 2):
        change = mean_of_channels(cv2.blur(cv2.absdiff(colour[i], colour[j]), (3, 3)), np.float32)
        alike = np.clip(2 - change / _STILL_LEVELS, 0, 1)
        for one, other in ((i, j), (j, i)):
            sums[one] += alike * images[other]
            weights[one] += alike
    return [np.rint(total / weight).astype(np.uint8) for total, weight in zip(sums, weights, strict=True)]


def flicker(colour: Sequence[Image], images: Sequence[npt.NDArray[Any]], full_range: float) -> float | None:
    """Return the mean change of ``images`` between frames where the colour is still, as a share of ``full_range``.

    None if less than 1 % of the pixels are still.
    """
    import cv2

    changed = pixels = total = 0.0
    for frame, following, a, b in zip(colour, colour[1:], images, images[1:], strict=False):
        still = mean_of_channels(cv2.absdiff(frame, following)) < _STILL_LEVELS
        changed += float(np.abs(a[still].astype(np.float64) - b[still].astype(np.float64)).sum())
        pixels += int(still.sum())
        total += still.size
    if total == 0 or pixels / total < _MIN_STILL_SHARE:
        return None
    return round(changed / pixels / full_range, 5)
