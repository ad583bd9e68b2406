"""Hides faces, or whatever else a detector of the user's finds, in the stored frames and the stored video."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr, field_validator

from vidal.clip import Clip
from vidal.errors import ClipError, ModelError
from vidal.media.ffmpeg import ffmpeg_identity
from vidal.media.hide import Box, hide_in_jpeg, hide_in_video, mask_of
from vidal.media.limits import Limits
from vidal.media.stored_video import video_frames
from vidal.media.tracks import survey
from vidal.models.dotted import is_dotted, load_function
from vidal.models.locate import identity
from vidal.record import Column
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage
from vidal.work import Member

Detector = Callable[[list[npt.NDArray[np.uint8]]], Sequence[Any]]

_BATCH_FRAMES = 32
_HOLD_FRAMES = 2
"""A face that is missed in a frame of the video is hidden where it was found so many frames before or after."""
# Frames a second: with more than any video has, each frame begins an interval of its own.
_EVERY_FRAME = 1e6


class BlurFaces(ModelStage):
    """Hides the faces that a detector of yours finds: six cells of colour along a frame's shorter side remain.

    It stands behind ``media`` and before global decisions and all stages that make layers, which then see what is
    stored. What reads frames before it (``fingerprints``, for ``hash_list``) sees them as they were, and a clip that is
    rejected there has a thumbnail as it was. The layer ``source``, which has the original file, loses its members.
    A face that the detector misses stays visible. Texts and audio stay as they are.
    """

    reads = ("video",)
    columns: ClassVar[Mapping[str, Column]] = {
        "face_count": Column(int, "largest number of faces found in one stored frame or frame of the video"),
        "blurred_share": Column(float, "mean share of the stored frames' area that is blurred"),
    }
    layers = ("video",)
    rewrites = ("video",)
    imports = ("ffmpeg", "huggingface_hub", "torch")
    default_resources: ClassVar[Resources] = Resources(timeout_s=2000)

    detector: str
    """``package.module:load``, a function of yours: ``load(device=...)`` returns a function from a list of RGB frames
    ``(height, width, 3)``, of equal size, to a list of boxes for each, as left, top, width and height in pixels."""
    video: Literal["blur", "drop"] = "blur"
    """``blur`` runs the detector on every frame of the stored video and codes it anew; ``drop`` stores no video beside
    the frames."""
    margin: float = Field(0.25, ge=0, le=2)
    """How much is hidden around a box on each side, in widths and heights of the box."""
    crf: int = Field(23, ge=0, le=51)
    """Quality of a video that is coded anew, as `media.crf`."""
    preset: str = Field("veryfast", pattern="^[a-z]+$")
    """x264's preset."""
    limits: Limits = Limits()
    """Limits of the FFmpeg process that codes the video."""

    _detect: Detector | None = PrivateAttr(default=None)

    @field_validator("detector")
    @classmethod
    def _is_dotted(cls, detector: str) -> str:
        if not is_dotted(detector):
            raise ValueError("name a function of yours that loads a detector, as package.module:load")
        return detector

    def model_identities(self) -> dict[str, str]:
        return {"detector": identity(self.detector), "ffmpeg": ffmpeg_identity()}

    def setup(self) -> None:
        ffmpeg_identity()
        self._detect = load_function(self.detector)(device=self.chosen_device())
        try:
            # What does not fit is found here rather than in every clip.
            self._boxes([np.zeros((256, 144, 3), np.uint8)])
        except ClipError as error:
            raise ModelError(f"model {self.detector}: {error.detail}") from None

    def process(self, clip: Clip) -> None:
        work = clip.work
        frames, decoded = work.frame_members(), work.frames()
        boxes = [found for part in _batches(decoded) for found in self._boxes(part)]
        masks = [
            mask_of(found, frame.shape[0], frame.shape[1], self.margin)
            for frame, found in zip(decoded, boxes, strict=True)
        ]
        mp4, most = work.member("video", "mp4"), max(map(len, boxes), default=0)
        if mp4 is not None and self.video == "blur":
            hidden, in_video = self._hidden(mp4.data, work.folder)
            most = max(most, in_video)
            work.put(Member(layer="video", suffix="mp4", data=hidden))
        # The original file and what came with it show what the frames do not.
        dropped = {("video", "mp4")} if self.video == "drop" else set()
        work.members = [m for m in work.members if m.layer != "source" and (m.layer, m.suffix) not in dropped]
        for frame, mask in zip(frames, masks, strict=True):
            if mask.any():
                data = hide_in_jpeg(frame.data, mask)
                work.put(Member(layer="video", suffix=frame.suffix, data=data, time_s=frame.time_s))
        work.forget_decoded()
        clip["face_count"] = most
        clip["blurred_share"] = round(float(np.mean([mask.mean() / 255 for mask in masks])), 5) if masks else None

    def _hidden(self, mp4: bytes, folder: Path | None) -> tuple[bytes, int]:
        """Return the video with the faces in its frames hidden, and the largest number of them in one frame."""
        if folder is None:
            raise ValueError("blur_faces needs a private folder for the clip")
        boxes: list[list[Box]] = []
        shape = (0, 0)
        for part in _batches(frame for _, frame in video_frames(mp4, _EVERY_FRAME)):
            shape = part[0].shape[0], part[0].shape[1]
            boxes += self._boxes(part)
        most = max(map(len, boxes), default=0)
        # Without a face the video is not coded again; where no frame was decoded nobody has looked, an error below.
        if boxes and not most:
            return mp4, 0
        path = folder / "stored.mp4"
        path.write_bytes(mp4)
        track = survey(path, folder, self.limits).of("video")[0]
        path.unlink()
        ticks = sorted(tick for tick, _ in track.packets)
        if len(ticks) != len(boxes):
            raise ClipError("not_hidden", f"{len(boxes)} frames of the video were decoded, and it has {len(ticks)}")
        held = [itertools.chain(*boxes[max(0, n - _HOLD_FRAMES) : n + _HOLD_FRAMES + 1]) for n in range(len(boxes))]
        # One after the other: those of a long clip would fill the memory.
        masks = (mask_of(found, shape[0], shape[1], self.margin) for found in held)
        hidden = hide_in_video(
            mp4, masks, shape[::-1], ticks, track.time_base, folder, self.limits, crf=self.crf, preset=self.preset
        )
        return hidden, most

    def _boxes(self, frames: list[npt.NDArray[np.uint8]]) -> list[list[Box]]:
        """Return the boxes in each frame; raises `ClipError` for an answer that is none."""
        assert self._detect is not None
        found = list(self._detect(frames))
        if len(found) != len(frames):
            raise ClipError("bad_boxes", f"the detector gave boxes of {len(found)} frames for {len(frames)}")
        arrays = [np.asarray(boxes, np.float64) for boxes in found]
        for boxes in arrays:
            if boxes.size and not (boxes.shape[1:] == (4,) and np.isfinite(boxes).all() and (boxes[:, 2:] >= 0).all()):
                raise ClipError("bad_boxes", "a box of the detector is not left, top, width and height in pixels")
        return [[(left, top, across, down) for left, top, across, down in boxes.tolist()] for boxes in arrays]


def _batches(frames: Iterable[npt.NDArray[np.uint8]]) -> Iterable[list[npt.NDArray[np.uint8]]]:
    iterator = iter(frames)
    return iter(lambda: list(itertools.islice(iterator, _BATCH_FRAMES)), [])
