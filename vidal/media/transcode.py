"""Converts a source to the clip's video, frames and audio, and measures them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from vidal.errors import ClipError
from vidal.media import child, damage, graph
from vidal.media.audio_status import AudioStatus, cancelled_channel, corrupt_share
from vidal.media.damage import VideoDamage
from vidal.media.ffmpeg import source_name
from vidal.media.graph import AudioInput, GraphPlan, Target
from vidal.media.limits import Limits
from vidal.media.log_lines import CUT_SHORT, find_error
from vidal.media.measures import (
    AudioMeasures,
    VideoMeasures,
    read_audio_measures,
    read_fingerprint,
    read_video_measures,
)
from vidal.media.probe import SourceFacts
from vidal.media.timing import centre_frames, decimate, keeps_every_frame, seconds, stretch, target_size

# A filter graph refuses audio whose format changes midway, and FFmpeg ends with this line.
_AUDIO_CHANGES = re.compile(r"^\[\S+ @ \S+\] \[error\] Changing audio frame properties on the fly", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcoded:
    """The stored form of a clip. Everything about video is None or empty for an audio-only source, and vice versa."""

    video: bytes | None
    """MP4 file, with audio if the clip has any."""
    frames: list[bytes]
    """JPEG files, ``Target.frames`` of them."""
    frame_times: list[float]
    """Time of each stored frame in seconds after the first frame of the source."""
    size: tuple[int, int] | None
    """Width and height of video and frames in pixels."""
    audio: bytes | None
    """FLAC file, mono, at `vidal.work.SAMPLE_RATE`."""
    audio_fingerprint: list[int]
    video_measures: VideoMeasures | None
    audio_measures: AudioMeasures | None
    video_damage: VideoDamage | None
    audio_status: AudioStatus

    @property
    def damage(self) -> set[str]:
        """Values for the column ``damage``."""
        video, audio = self.video_damage, self.audio_measures
        flags = {
            "corrupt_frames": video is not None and video.corrupt_frames > 0,
            "frame_size_changes": video is not None and video.frame_size_changes > 0,
            "corrupt_audio": bool(self.audio_status.corrupt_share),
            "silent_audio": audio is not None and audio.is_lost_in_mono,
        }
        return {name for name, is_set in flags.items() if is_set}


def transcode(source: Path, probe: SourceFacts, folder: Path, target: Target, limits: Limits) -> Transcoded:
    """Decode ``source`` with FFmpeg, in the clip's private ``folder``, and return what was written.

    Usually one FFmpeg process; up to six if the probe's frame times are inexact or the source is damaged. Raises
    `ClipError` if the clip cannot be decoded or exceeds ``limits``.
    """
    try:
        return _transcode(_Job(source_name(source, folder), folder, target, limits), probe)
    finally:
        # Also after a failure: the folder lives until the clip's window ends, and outputs are large.
        for pattern in ("out.*", "*.times", "*.measures"):
            for path in folder.glob(pattern):
                path.unlink()


def _transcode(job: _Job, probe: SourceFacts) -> Transcoded:
    folder, target = job.folder, job.target
    plan, finished, audio_status, refused = job.run_judged(make_plan(probe, probe.times_s, target))
    decoded, video_damage = _times(folder / graph.VIDEO_TIMES), None
    if probe.video_codec is not None:
        if not decoded:
            raise ClipError("undecodable", "no frame could be decoded")
        missing_s = plan.times_s[-1] - decoded[-1]
        if missing_s > max(0.5, 2 / probe.fps):
            raise ClipError("truncated", f"the last decoded frame is {missing_s:.2f} s before the last packet")
        damage.check_decoded(finished)
        video_damage = damage.read_damage(finished, probe, len(decoded))
        # The lenient decoder shows frames that the strict one refused: they are damaged nevertheless.
        video_damage = replace(video_damage, corrupt_frames=max(refused, video_damage.corrupt_frames))
    elif audio_status.status == "left_out":
        raise ClipError("undecodable", f"{audio_status.corrupt_share:.0%} of the audio cannot be decoded")
    # A second pass with what the first has shown: other audio, or the true times of the frames.
    better = plan
    if audio_status.status == "left_out":
        better = replace(plan, audio=None)
    elif plan.audio is not None and (channel := cancelled_channel(folder)) is not None:
        better = replace(plan, audio=replace(plan.audio, channel=channel))
    if not job.frames_are_of(plan):
        # Containers without presentation times (AVI, MPEG-PS) and damaged clips: use the times of the first pass.
        better = replace(make_plan(probe, decoded, target), audio=better.audio, is_strict=plan.is_strict)
    if better != plan:
        plan = better
        job.run(plan)
        if not job.frames_are_of(plan):
            raise ClipError("undecodable", "frame times differ between two decoding passes")
    return _collect(folder, plan, target, audio_status, video_damage)


def make_plan(probe: SourceFacts, times_s: Sequence[float], target: Target) -> GraphPlan:
    """Return the plan for a source with frames at ``times_s``, in seconds after the first frame."""
    whole = keeps_every_frame(probe.times_s, probe.duration_s, target.max_fps)
    kept = list(times_s) if whole else decimate(times_s, target.max_fps)
    return GraphPlan(
        probe=probe,
        size=target_size(probe.width, probe.height, target.short_side) if probe.video_codec else (0, 0),
        times_s=kept,
        chosen=centre_frames(kept, probe.duration_s, target.frames),
        keeps_every_frame=whole,
        audio=AudioInput() if probe.audio_codec else None,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """Runs of FFmpeg over one source."""

    source: str
    """The result of `source_name`."""
    folder: Path
    target: Target
    limits: Limits

    def run_judged(self, plan: GraphPlan) -> tuple[GraphPlan, child.Finished, AudioStatus, int]:
        """Return the result of `run_with_usable_audio` and the number of frames that a strict decoder refused.

        If there are any, the result is that of the lenient decoder.
        """
        lenient = replace(plan, is_strict=False)
        if plan.probe.video_codec not in graph.STRICT_DECODERS:
            return *self.run_with_usable_audio(lenient), 0
        try:
            plan, finished, audio_status = self.run_with_usable_audio(plan)
            written = len(_times(self.folder / graph.VIDEO_TIMES))
            refused = damage.read_damage(finished, plan.probe, written).corrupt_frames
        except ClipError as error:
            if error.reason != "undecodable":
                raise
            refused = len(plan.probe.frame_ticks)
        if refused:
            return *self.run_with_usable_audio(lenient), refused
        return plan, finished, audio_status, 0

    def run_with_usable_audio(self, plan: GraphPlan) -> tuple[GraphPlan, child.Finished, AudioStatus]:
        """Return the first successful run: with the audio, with audio of one format throughout, or without audio."""
        if plan.audio is None:
            return plan, self.run(plan), AudioStatus(status="none")
        finished = audio_run = self._try(plan)
        if finished.returncode != 0 and _AUDIO_CHANGES.search(finished.log):
            # From here on only this run reads the source's audio, so its log has the damaged packets.
            audio_run = self._start(graph.steady_audio_command(self.source, plan, self.limits))
            plan = replace(plan, audio=AudioInput(is_steady=True))
            finished = self._try(plan)
        if finished.returncode == 0:
            max_share = self.target.max_corrupt_audio_share
            return plan, finished, AudioStatus.of_decoded(corrupt_share(audio_run.log), max_share)
        is_unknown = find_error(finished.log, r"Codec \(\w+\) not on whitelist")
        reason = "unsupported_codec" if is_unknown else "undecodable"
        if plan.probe.video_codec is None:
            raise ClipError(reason, finished.first_error)
        # If the video is at fault, this run fails too, and raises.
        plan = replace(plan, audio=None)
        return plan, self.run(plan), AudioStatus(status="left_out", reason=reason)

    def run(self, plan: GraphPlan) -> child.Finished:
        """Run ``plan``; raises `ClipError` if FFmpeg fails."""
        finished = self._try(plan)
        if finished.returncode != 0:
            raise ClipError("undecodable", finished.first_error)
        return finished

    def frames_are_of(self, plan: GraphPlan) -> bool:
        """Whether the stored frames have the times that ``plan`` asks for."""
        return _times(self.folder / graph.FRAME_TIMES) == [plan.times_s[i] for i in plan.chosen]

    def _try(self, plan: GraphPlan) -> child.Finished:
        return self._start(graph.command(self.source, plan, self.target, self.limits))

    def _start(self, command: Sequence[str]) -> child.Finished:
        finished = child.run(command, self.folder, self.limits, marks=(*damage.MARKS, *CUT_SHORT))
        if any(finished.counts[mark] for mark in CUT_SHORT):
            raise ClipError("truncated", "the file ends before its index or sizes say it should")
        return finished


def _times(path: Path) -> list[float]:
    """Read the frame times that FFmpeg wrote for an output, in seconds after the first frame."""
    # An audio-only clip has no such file.
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [seconds(int(ticks), Fraction(base)) for ticks, base in map(str.split, lines)]


def _collect(
    folder: Path, plan: GraphPlan, target: Target, audio_status: AudioStatus, video_damage: VideoDamage | None
) -> Transcoded:
    stored = [(folder / (graph.FRAME % (k + 1))).read_bytes() for k in range(len(plan.chosen))]
    repeats = stretch(plan.chosen, target.frames if plan.chosen else 0)
    length_s, has_video, has_audio = plan.probe.duration_s, plan.probe.video_codec is not None, plan.audio is not None
    video_measures = audio_measures = None
    if has_video:
        video_measures = read_video_measures(folder / graph.VIDEO_MEASURES, folder / graph.FRAME_MEASURES, length_s)
    if has_audio:
        audio_measures = read_audio_measures(folder / graph.AUDIO_MEASURES, folder / graph.MONO_MEASURES, length_s)
    return Transcoded(
        video=(folder / graph.VIDEO).read_bytes() if has_video else None,
        frames=[stored[k] for k in repeats],
        frame_times=[plan.times_s[plan.chosen[k]] for k in repeats],
        size=plan.size if has_video else None,
        audio=(folder / graph.AUDIO).read_bytes() if has_audio else None,
        audio_fingerprint=read_fingerprint(folder / graph.FINGERPRINT) if has_audio else [],
        video_measures=video_measures,
        audio_measures=audio_measures,
        video_damage=video_damage,
        audio_status=audio_status,
    )
