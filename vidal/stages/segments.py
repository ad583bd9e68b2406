"""Divides long videos at their cuts, for a build of one clip per segment."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pydantic import Field, PrivateAttr, model_validator

from vidal.clip import Clip
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts
from vidal.media.scenes import FindCuts, Frame, cuts_s, segment_bounds
from vidal.models.dotted import is_dotted, load_function
from vidal.models.locate import identity
from vidal.record import Column
from vidal.stage import Resources, Stage

_THRESHOLDS = {"content": 27.0, "adaptive": 3.0}
"""PySceneDetect's own."""


def content_cuts(frames: Iterator[Frame], *, kind: str, threshold: float) -> list[int]:
    """Find cuts by changes of hue, saturation and brightness: PySceneDetect's ``content`` or ``adaptive``."""
    from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode

    # Any length: short scenes are joined afterwards, by time and not by frames.
    detector = (
        ContentDetector(threshold=threshold, min_scene_len=1)
        if kind == "content"
        else AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1)
    )
    cuts: list[FrameTimecode] = []
    # Numbered, not timed: frames of a variable rate have the indices of `frames`.
    for index, frame in enumerate(frames):
        # PySceneDetect takes frames as OpenCV reads them, blue first.
        cuts += detector.process_frame(FrameTimecode(index, 25.0), frame[..., ::-1])
        last = index
    cuts += detector.post_process(FrameTimecode(last, 25.0))
    return sorted({cut.frame_num for cut in cuts})


class Segments(Stage):
    """Writes where a clip is to be divided: at its cuts, into segments of ``min_s`` to ``max_s``.

    A scene of more than ``max_s`` is divided evenly; a segment of less than ``min_s`` is joined to the shorter
    neighbour where both fit into ``max_s``. A clip of at most ``max_s`` stays whole, and is not decoded. Nothing is cut
    here: a second recipe reads the dataset as ``source: {segments: DIR}``.
    """

    reads: ClassVar[tuple[str, ...]] = ("source_file", "source_facts", "duration_s")
    columns: ClassVar[Mapping[str, Column]] = {
        "segment_bounds_s": Column(
            list[float], "where segments begin and the last one ends, in seconds after the first frame", "media"
        ),
        "scene_cuts_s": Column(
            list[float], "first frame of each scene but the first, in seconds after the first frame", "media"
        ),
    }
    imports: ClassVar[tuple[str, ...]] = ("ffmpeg", "huggingface_hub", "scenedetect")
    default_resources: ClassVar[Resources] = Resources(timeout_s=2000)

    max_s: float = Field(20.0, gt=0)
    """Longest segment, and the longest clip that stays whole."""
    min_s: float = Field(3.0, ge=0)
    """Segments are joined up to this length, where ``max_s`` allows it."""
    detector: str = "content"
    """``content`` or ``adaptive``: PySceneDetect's, by change of colour, or by change beside that of the frames around.

    Or ``package.module:load``, a function of yours, such as one that loads TransNetV2: ``load()`` returns a function
    from an iterator of RGB frames ``(height, width, 3)``, of at most 256 pixels, to the indices of the first frames of
    scenes.
    """
    threshold: float | None = Field(None, gt=0)
    """PySceneDetect's threshold: 27 for ``content``, 3 for ``adaptive`` by default."""
    limits: Limits = Limits(max_duration_s=3600.0)
    """Limits of the FFmpeg process that decodes the clip."""

    _find: FindCuts | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _is_consistent(self) -> Segments:
        if self.min_s > self.max_s / 2:
            raise ValueError("min_s may be half of max_s at most, or parts of an even division would be joined again")
        if self.detector not in _THRESHOLDS and not is_dotted(self.detector):
            raise ValueError(f"detector is {', '.join(_THRESHOLDS)} or package.module:load, not {self.detector!r}")
        return self

    def model_identities(self) -> dict[str, str]:
        return {"scenes": identity(self.detector)} if is_dotted(self.detector) else {}

    def setup(self) -> None:
        if is_dotted(self.detector):
            self._find = load_function(self.detector)()
        else:
            threshold = self.threshold or _THRESHOLDS[self.detector]
            self._find = functools.partial(content_cuts, kind=self.detector, threshold=threshold)

    def process(self, clip: Clip) -> None:
        facts, folder = clip.work.probe, clip.work.folder
        if not isinstance(facts, SourceFacts) or folder is None or self._find is None:
            raise ValueError("segments needs the facts of probe")
        cuts: list[float] = []
        if facts.video_codec is not None and facts.duration_s > self.max_s:
            cuts = [round(cut, 6) for cut in cuts_s(facts, folder, self.limits, self._find)]
            bounds = segment_bounds(facts.times_s, cuts, facts.duration_s, max_s=self.max_s, min_s=self.min_s)
        else:
            bounds = [0.0, facts.duration_s]
        clip["scene_cuts_s"], clip["segment_bounds_s"] = cuts, [round(bound, 6) for bound in bounds]
