"""The FFmpeg command of one clip: decoded once, everything written in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ffmpeg
from pydantic import BaseModel, ConfigDict, Field

from vidal.media.colour import to_bt709
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options
from vidal.media.limits import Limits
from vidal.media.probe import Probe
from vidal.media.timing import decimate_expression, pick_expression
from vidal.work import SAMPLE_RATE

# Names in the clip's private folder, in which FFmpeg runs: no path of ours or of the source reaches the graph.
VIDEO, SOUND, FINGERPRINT = "out.mp4", "out.flac", "out.chromaprint"
FRAME = "out.%d.jpg"
VIDEO_TIMES, FRAME_TIMES = "video.times", "frame.times"
PICTURE_MEASURES, FRAME_MEASURES, SOUND_MEASURES = "picture.measures", "frame.measures", "sound.measures"
CHANNEL_MEASURES, MONO_MEASURES = "channel.measures", "mono.measures"
STEADY_AUDIO = "out.steady.mka"

VIDEO_SOUND_RATE = 48_000

_EXACT = {"map_metadata": "-1", "map_chapters": "-1", "fflags": "+bitexact"}


class Target(BaseModel):
    """What a clip is turned into."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_side: int = Field(256, ge=64)
    frames: int = Field(8, ge=1, le=64)
    max_fps: float = Field(30.0, gt=0)
    crf: int = Field(23, ge=0, le=51)
    preset: str = Field("veryfast", pattern="^[a-z]+$")
    jpeg_quality: int = Field(2, ge=1, le=31)
    """FFmpeg's quantiser for the stored frames; lower is better."""
    measure_fps: float = Field(5.0, gt=0)
    max_corrupt_audio_share: float = Field(0.5, ge=0, le=1)
    """Audio of which more could not be decoded is left out; the clip stays, without audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """How the source's audio is read; a clip without one of these is written without audio."""

    is_steady: bool = False
    """Read from `STEADY_AUDIO`, which `steady_audio_command` has made, instead of from the source."""
    channel: int | None = None
    """The channel that becomes the mono audio, where the mix of all of them cancels out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the graph needs beyond the settings; times in seconds after the picture's start."""

    probe: Probe
    size: tuple[int, int]
    times_s: Sequence[float]
    """Times of the frames that pass the limit on frames per second."""
    chosen: Sequence[int]
    """Which of them are stored."""
    keeps_every_frame: bool
    audio: Audio | None


def command(source: str, plan: Plan, target: Target, limits: Limits) -> list[str]:
    """The argument list; ``source`` is what `source_name` gives."""
    media = ffmpeg.input(source, reinit_filter=0, **input_options(limits))
    sound, *aside = (None,) if plan.audio is None else _sounds(_audio(media, plan), plan.audio, plan)
    if plan.probe.video_codec is None:
        return _ffmpeg(limits, ffmpeg.output(_measured(sound), "-", f="null"), *_sound_outputs(*aside))
    picture = _picture(media[f"v:{plan.probe.video_track}"], plan, target).split()
    outputs = [
        _video(picture[0], sound, target),
        _frames(picture[1], plan, target),
        _measures(picture[2], target),
        *(_sound_outputs(*aside) if aside else ()),
    ]
    return _ffmpeg(limits, *outputs)


def steady_audio_command(source: str, plan: Plan, limits: Limits) -> list[str]:
    """Audio that changes its rate or channels on the way, as mono PCM of one rate, on the picture's clock.

    A filter graph cannot take such a change, so FFmpeg builds a new one, which would lose the state of all others.
    """
    stream = ffmpeg.input(source, **input_options(limits))[_audio_track(plan)]
    steps = (
        f"asetpts=PTS-({plan.probe.start_s:.9f}/TB)",
        f"atrim=start=0:end={plan.probe.duration_s:.6f}",
        f"aresample={VIDEO_SOUND_RATE}",
        "aformat=sample_fmts=s16:channel_layouts=mono",
    )
    steady = ffmpeg.output(stream, f"file:{STEADY_AUDIO}", af=",".join(steps), f="matroska",
                           **{"c:a": "pcm_s16le", "flags": "+bitexact", **_EXACT})  # fmt: skip
    return _ffmpeg(limits, steady)


def _ffmpeg(limits: Limits, *outputs: Any) -> list[str]:
    """A decoder's errors do not fail the run: they are counted, and what they spoil is decided on afterwards."""
    arguments = ffmpeg.merge_outputs(*outputs).get_args()
    return [str(find_ffmpeg()), *global_options(limits), "-max_error_rate", "1", *arguments]


def _audio(media: Any, plan: Plan) -> Any:
    """The audio as it is decoded, on the picture's clock."""
    assert plan.audio is not None
    if plan.audio.is_steady:
        return ffmpeg.input(f"file:{STEADY_AUDIO}")["a:0"]
    return media[_audio_track(plan)].filter("asetpts", f"PTS-({plan.probe.start_s:.9f}/TB)")


def _audio_track(plan: Plan) -> str:
    return f"a:{plan.probe.audio_track}"


def _picture(stream: Any, plan: Plan, target: Target) -> Any:
    """From the decoder to 8-bit pictures of the final size, times counted from the first frame."""
    probe = plan.probe
    stream = stream.filter("setpts", f"PTS-({probe.frame_ticks[0]})")
    if probe.is_interlaced:
        stream = stream.filter("bwdif", mode="send_frame", deint="interlaced")
    if not plan.keeps_every_frame:
        stream = stream.filter("select", decimate_expression(target.max_fps))
    return to_bt709(stream, probe, plan.size).filter("setsar", "1")


def _sounds(stream: Any, audio: Audio, plan: Plan) -> tuple[Any, Any, Any, Any]:
    """Audio for the mp4, the FLAC and the fingerprint, and what is measured of the channels.

    A late start is preceded by silence, what comes before the picture is dropped, the end is the picture's end.
    """
    length_s = plan.probe.duration_s
    samples = max(1, round(length_s * SAMPLE_RATE))
    fill = {"async": 1, "first_pts": 0, "min_hard_comp": 0.02}
    parts = stream.asplit()
    full = parts[0].filter("aresample", VIDEO_SOUND_RATE, **fill).filter("aformat", channel_layouts="mono|stereo")
    full = full.filter("apad", whole_dur=f"{length_s:.6f}")
    mono = (
        parts[1] if audio.channel is None else parts[1].filter("channelmap", map=audio.channel, channel_layout="mono")
    )
    mono = mono.filter("aresample", SAMPLE_RATE, **fill)
    mono = mono.filter("aformat", sample_fmts="s16", channel_layouts="mono").filter("apad", whole_len=samples)
    mono = _levels(mono.filter("atrim", end_sample=samples), MONO_MEASURES).asplit()
    channels = _levels(parts[2].filter("atrim", start=0, end=f"{length_s:.6f}"), CHANNEL_MEASURES)
    return full.filter("atrim", end=f"{length_s:.6f}"), mono[0], mono[1], channels


def _levels(stream: Any, path: str) -> Any:
    """Note the RMS level of each channel up to each frame; the last one is that of the whole."""
    stream = stream.filter("astats", metadata=1, measure_perchannel="RMS_level", measure_overall="none")
    return stream.filter("ametadata", "print", file=path)


def _video(picture: Any, sound: Any | None, target: Target) -> Any:
    options: dict[str, Any] = {
        "c:v": "libx264", "preset": target.preset, "crf": target.crf, "threads:v": 1,
        # At least one key frame a second, whatever the frame rate and however it varies.
        "force_key_frames": "expr:gte(t,n_forced)", "g": max(1, round(target.max_fps)),
        "fps_mode": "passthrough", "enc_time_base:v": "demux", "flags": "+bitexact",
        "stats_enc_pre:v": VIDEO_TIMES, "stats_enc_pre_fmt:v": "{pts} {tb}",
        "movflags": "+faststart", "f": "mp4", **_EXACT,
    }  # fmt: skip
    if sound is None:
        return ffmpeg.output(picture, f"file:{VIDEO}", **options)
    return ffmpeg.output(picture, _measured(sound), f"file:{VIDEO}", **options, **{"c:a": "aac", "b:a": "96k"})


def _measured(sound: Any) -> Any:
    # ebur128 cuts the sound anew and loses marks set before it, so it comes first.
    sound = sound.filter("ebur128", metadata=1, framelog="quiet").filter("silencedetect", noise="-50dB", duration=0.2)
    return sound.filter("ametadata", "print", file=SOUND_MEASURES)


def _frames(picture: Any, plan: Plan, target: Target) -> Any:
    picture = picture.filter("select", pick_expression(plan.times_s, plan.chosen))
    # The dearest measure per frame, and one that says most about the very frames that are stored.
    picture = picture.filter("blurdetect").filter("metadata", "print", file=FRAME_MEASURES)
    # A JPEG has no colour tags: every reader takes it for full-range BT.601.
    picture = picture.filter("scale", out_range="pc", out_color_matrix="bt601", flags="accurate_rnd+bitexact")
    return ffmpeg.output(
        picture.filter("format", "yuvj420p"), f"file:{FRAME}", f="image2",
        **{
            "c:v": "mjpeg", "q:v": target.jpeg_quality, "threads:v": 1, "fps_mode": "passthrough",
            "enc_time_base:v": "demux", "stats_enc_pre:v": FRAME_TIMES, "stats_enc_pre_fmt:v": "{pts} {tb}",
            "flags": "+bitexact", **_EXACT,
        },
    )  # fmt: skip


def _measures(picture: Any, target: Target) -> Any:
    # Rounded up, each sample is the picture on display at its instant, and the shortest clip has one.
    picture = picture.filter("fps", target.measure_fps, start_time=0, round="up")
    # A quarter of the pixels for the rest: siti alone would cost a fifth of the whole process, and grain is no motion.
    picture = picture.filter("scale", "iw/2", "ih/2", flags="area+accurate_rnd+bitexact").filter("siti")
    picture = picture.filter("scdet", threshold=10).filter("freezedetect", noise="-60dB", duration=0.5)
    picture = picture.filter("blackdetect", d=0.1).filter("signalstats")
    return ffmpeg.output(picture.filter("metadata", "print", file=PICTURE_MEASURES), "-", f="null")


def _sound_outputs(flac: Any, fingerprint: Any, channels: Any) -> list[Any]:
    return [
        ffmpeg.output(flac, f"file:{SOUND}", f="flac", **{"c:a": "flac", "flags": "+bitexact", **_EXACT}),
        ffmpeg.output(fingerprint, f"file:{FINGERPRINT}", f="chromaprint", fp_format="raw"),
        ffmpeg.output(channels, "-", f="null"),
    ]
