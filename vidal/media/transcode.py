"""Turn one source into the clip's members, its frames' true times and its measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from vidal.errors import ClipError
from vidal.media import child, damage, graph
from vidal.media.damage import PictureDamage
from vidal.media.fate import AudioFate, cancelled_channel, corrupt_share
from vidal.media.ffmpeg import source_name
from vidal.media.graph import Audio, Plan, Target
from vidal.media.limits import Limits
from vidal.media.log_lines import CUT_SHORT, says
from vidal.media.measures import PictureMeasures, SoundMeasures, read_fingerprint, read_picture, read_sound
from vidal.media.probe import Probe
from vidal.media.timing import centre_frames, decimate, keeps_every_frame, seconds, stretch, target_size

_AUDIO_CHANGES = re.compile(r"^\[\S+ @ \S+\] \[error\] Changing audio frame properties on the fly", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcoded:
    """What a clip became; times in seconds after the picture's start."""

    video: bytes | None
    """None, as all that is of the picture, for a source of audio alone."""
    frames: list[bytes]
    frame_times: list[float]
    size: tuple[int, int] | None
    sound: bytes | None
    audio_fingerprint: list[int]
    picture_measures: PictureMeasures | None
    sound_measures: SoundMeasures | None
    audio: AudioFate
    picture_damage: PictureDamage | None
    peak_rss_bytes: int

    @property
    def damage(self) -> set[str]:
        """The words of the record's ``damage``."""
        picture = self.picture_damage
        found = {
            "corrupt_frames": picture is not None and picture.corrupt_frames > 0,
            "frame_size_changes": picture is not None and picture.frame_size_changes > 0,
            "corrupt_audio": bool(self.audio.corrupt_share),
            "silent_audio": self.sound_measures is not None and self.sound_measures.lost_in_mono,
        }
        return {word for word, holds in found.items() if holds}


def transcode(source: Path, probe: Probe, folder: Path, target: Target, limits: Limits) -> Transcoded:
    """Run the one FFmpeg process of the clip, in ``folder``, and read what it wrote."""
    try:
        return _transcode(source, probe, folder, target, limits)
    finally:
        for path in folder.glob("out.*"):
            path.unlink()
        for path in (*folder.glob("*.times"), *folder.glob("*.measures")):
            path.unlink()


def _transcode(source: Path, probe: Probe, folder: Path, target: Target, limits: Limits) -> Transcoded:
    job = _Job(source, folder, target, limits)
    plan, done, fate = job.run_with_what_audio_there_is(make_plan(probe, probe.times_s, target))
    decoded, found = _times(folder / graph.VIDEO_TIMES), None
    if probe.video_codec is not None:
        _check_length(plan, decoded)
        found = damage.read_damage(done, probe, len(decoded))
    elif fate.status == "left_out":
        raise ClipError("undecodable", f"{fate.corrupt_share:.0%} of the audio cannot be decoded")
    better = plan
    if fate.status == "left_out":
        better = replace(plan, audio=None)
    elif plan.audio is not None and (channel := cancelled_channel(folder)) is not None:
        better = replace(plan, audio=replace(plan.audio, channel=channel))
    if not job.frames_are_of(plan):
        # Containers without presentation times (AVI, MPEG-PS) and damaged clips: the first pass has measured them.
        better = replace(make_plan(probe, decoded, target), audio=better.audio)
    if better != plan:
        plan, done = better, job.run(better)
        if not job.frames_are_of(plan):
            raise ClipError("undecodable", "frame times differ from one decoding to the next")
    return _collect(folder, plan, target, fate, found, done.peak_rss_bytes)


def make_plan(probe: Probe, times_s: Sequence[float], target: Target) -> Plan:
    whole = keeps_every_frame(probe.times_s, probe.duration_s, target.max_fps)
    kept = list(times_s) if whole else decimate(times_s, target.max_fps)
    return Plan(
        probe=probe,
        size=target_size(probe.width, probe.height, target.short_side) if probe.video_codec else (0, 0),
        times_s=kept,
        chosen=centre_frames(kept, probe.duration_s, target.frames),
        keeps_every_frame=whole,
        audio=Audio() if probe.audio_codec else None,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """Runs of FFmpeg over one source."""

    source: Path
    folder: Path
    target: Target
    limits: Limits

    def run_with_what_audio_there_is(self, plan: Plan) -> tuple[Plan, child.Finished, AudioFate]:
        """The first run that succeeds: with the audio as it is, with its changes evened out, without it."""
        if plan.audio is None:
            return plan, self.run(plan), AudioFate.none()
        done = heard = self._try(plan)
        if done.returncode != 0 and _AUDIO_CHANGES.search(done.log):
            heard = self._start(graph.steady_audio_command(self._name, plan, self.limits))
            plan = replace(plan, audio=Audio(is_steady=True))
            done = self._try(plan)
        if done.returncode == 0:
            return plan, done, AudioFate.of(corrupt_share(heard.log), self.target.max_corrupt_audio_share)
        reason = "unsupported_codec" if says(done.log, r"Codec \(\w+\) not on whitelist") else "undecodable"
        if plan.probe.video_codec is None:
            raise ClipError(reason, done.first_error)
        # If the fault is the picture's, this fails as well, and says so.
        plan = replace(plan, audio=None)
        return plan, self.run(plan), AudioFate(status="left_out", reason=reason)

    def run(self, plan: Plan) -> child.Finished:
        done = self._try(plan)
        if done.returncode != 0:
            raise ClipError("undecodable", done.first_error)
        return done

    def frames_are_of(self, plan: Plan) -> bool:
        return _times(self.folder / graph.FRAME_TIMES) == [plan.times_s[i] for i in plan.chosen]

    def _try(self, plan: Plan) -> child.Finished:
        return self._start(graph.command(self._name, plan, self.target, self.limits))

    def _start(self, command: Sequence[str]) -> child.Finished:
        done = child.run(command, self.folder, self.limits, marks=(*damage.MARKS, *CUT_SHORT))
        if any(done.counts[mark] for mark in CUT_SHORT):
            raise ClipError("truncated", "the file ends before its index or its sizes say")
        return done

    @property
    def _name(self) -> str:
        return source_name(self.source, self.folder)


def _times(path: Path) -> list[float]:
    """Times that FFmpeg noted for the frames of an output, in seconds after the picture's start."""
    if not path.exists():
        return []
    stamps = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    return [seconds(int(ticks), Fraction(base)) for ticks, base in stamps]


def _check_length(plan: Plan, decoded: Sequence[float]) -> None:
    """Refuse a picture that stops before its last packet."""
    if not decoded:
        raise ClipError("undecodable", "no frame could be decoded")
    missing_s = plan.times_s[-1] - decoded[-1]
    if missing_s > max(0.5, 2 / plan.probe.fps):
        raise ClipError("truncated", f"the picture stops {missing_s:.2f} s before its last packet")


def _collect(
    folder: Path, plan: Plan, target: Target, fate: AudioFate, found: PictureDamage | None, peak_rss_bytes: int
) -> Transcoded:
    stored = [(folder / (graph.FRAME % (k + 1))).read_bytes() for k in range(len(plan.chosen))]
    repeats = stretch(plan.chosen, target.frames if plan.chosen else 0)
    length_s, has_picture = plan.probe.duration_s, plan.probe.video_codec is not None
    return Transcoded(
        video=(folder / graph.VIDEO).read_bytes() if has_picture else None,
        frames=[stored[k] for k in repeats],
        frame_times=[plan.times_s[plan.chosen[k]] for k in repeats],
        size=plan.size if has_picture else None,
        sound=(folder / graph.SOUND).read_bytes() if plan.audio else None,
        audio_fingerprint=read_fingerprint(folder / graph.FINGERPRINT) if plan.audio else [],
        picture_measures=read_picture(folder / graph.PICTURE_MEASURES, folder / graph.FRAME_MEASURES, length_s)
        if has_picture
        else None,
        sound_measures=read_sound(folder / graph.SOUND_MEASURES, folder / graph.MONO_MEASURES, length_s)
        if plan.audio
        else None,
        audio=fate,
        picture_damage=found,
        peak_rss_bytes=peak_rss_bytes,
    )
