"""Converts a source to the clip's video, frames and audio, and measures it, in one FFmpeg process."""

from __future__ import annotations

from typing import ClassVar, Literal

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.media.ffmpeg import ffmpeg_identity
from vidal.media.graph import Target
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts
from vidal.media.transcode import transcode
from vidal.stage import Resources, Stage, digest
from vidal.work import Member


class Media(Stage, Target):
    """Writes the ``video`` and ``audio`` layers; stored frames have the exact times of the source's frames.

    ``damage`` lists the defects of a kept clip: ``corrupt_frames``, ``corrupt_audio``, ``silent_audio`` (audible in the
    source, but not in the mono audio) and ``frame_size_changes`` (all frames are scaled to the size of the first, so
    that those of another aspect ratio are distorted). The filter ``damaged`` rejects clips by these values.
    """

    version: ClassVar[int] = 4
    default_resources: ClassVar[Resources] = Resources(timeout_s=2000)
    reads: ClassVar[tuple[str, ...]] = ("source_file", "source_facts", "duration_s")
    writes: ClassVar[tuple[str, ...]] = (
        "video", "audio", "frame_times", "frame_width", "frame_height", "has_audio", "motion", "spatial_information",
        "scene_changes", "freeze_share", "black_share", "luma_mean", "blur", "corrupt_frames", "loudness_lufs",
        "silence_share", "audio_rms_db", "audio_status", "audio_reason", "corrupt_audio_share", "damage",
        "audio_fingerprint", "media_model",
    )  # fmt: skip
    imports: ClassVar[tuple[str, ...]] = ("ffmpeg",)
    layers: ClassVar[tuple[str, ...]] = ("video", "audio")

    limits: Limits = Limits()
    """Limits of the source and of the FFmpeg process that converts it."""
    takes: Literal["video", "any"] = "video"
    """``any`` turns an audio-only source into a clip with just the ``audio`` layer; ``video`` fails it."""

    # An FFmpeg that is missing or too old ends the run before its first clip.
    def setup(self) -> None:
        ffmpeg_identity()

    def model_identities(self) -> dict[str, str]:
        return {"ffmpeg": ffmpeg_identity()}

    def process(self, clip: Clip) -> None:
        work = clip.work
        if work.source_path is None or work.folder is None or not isinstance(work.probe, SourceFacts):
            raise ValueError("media needs the source file of fetch and the facts of probe")
        if work.probe.video_codec is None and self.takes == "video":
            raise ClipError("no_video", "audio alone, and `takes` is video")
        made = transcode(work.probe.path, work.probe, work.folder, self, self.limits)
        if made.video is not None:
            work.put(Member(layer="video", suffix="mp4", data=made.video))
        for k, (data, time_s) in enumerate(zip(made.frames, made.frame_times, strict=True)):
            work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=data, time_s=time_s))
        if made.audio is not None:
            work.put(Member(layer="audio", suffix="flac", data=made.audio))
        clip.frame_times = made.frame_times
        clip.frame_width, clip.frame_height = made.size or (None, None)
        clip.has_audio = made.audio is not None
        clip.audio_status, clip.audio_reason = made.audio_status.status, made.audio_status.reason
        clip.corrupt_audio_share = made.audio_status.corrupt_share
        clip.damage = sorted({*clip.damage, *made.damage})
        clip.corrupt_frames = made.video_damage.corrupt_frames if made.video_damage is not None else None
        clip.audio_fingerprint = made.audio_fingerprint
        for measures in (made.video_measures, made.audio_measures):
            for name in measures.__dataclass_fields__ if measures is not None else ():
                setattr(clip, name, getattr(measures, name))
        clip.media_model = f"{ffmpeg_identity()} settings {digest(self.model_dump(include=set(Target.model_fields)))}"
        # A set, as the two are one file unless a clock that jumps was spliced into a copy.
        for path in {work.source_path, work.probe.path}:
            path.unlink()
        # Stages of another machine get no source either: after this one a clip consists of its members.
        work.source_path = None
