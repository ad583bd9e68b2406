"""Decodes frames of the video that a clip stores, for stages that need more than its stored frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt


def video_frames(mp4: bytes, per_s: float) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Yield ``per_s`` frames per second, each as its time in seconds and uint8 RGB ``(height, width, 3)``.

    The bytes must be those of the media stage: its limits hold for them, and none are set here.
    """
    # OpenCV decodes files only.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(mp4)
        file.flush()
        video = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        interval = -1
        while video.grab():
            time_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # The first frame of each interval; the times are rounded.
            if int(time_s * per_s + 1e-6) > interval:
                interval = int(time_s * per_s + 1e-6)
                yield time_s, np.asarray(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB), dtype=np.uint8)
        video.release()
