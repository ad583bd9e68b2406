"""Builds the FFmpeg command of one clip, which decodes the source once and writes every output in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ffmpeg
from pydantic import BaseModel, ConfigDict, Field

from vidal.media.colour import to_bt709
from vidal.media.ffmpeg import find_ffmpeg, global_options, input_options
from vidal.media.limits import Limits
from vidal.media.probe import SourceFacts
from vidal.media.timing import decimate_expression, pick_expression
from vidal.work import SAMPLE_RATE

# Names in the clip's private folder, FFmpeg's working directory, so that no other path reaches the filter graph.
VIDEO, AUDIO, FINGERPRINT = "out.mp4", "out.flac", "out.chromaprint"
FRAME = "out.%d.jpg"
VIDEO_TIMES, FRAME_TIMES = "video.times", "frame.times"
VIDEO_MEASURES, FRAME_MEASURES, AUDIO_MEASURES = "video.measures", "frame.measures", "audio.measures"
CHANNEL_MEASURES, MONO_MEASURES = "channel.measures", "mono.measures"
STEADY_AUDIO = "out.steady.mka"

VIDEO_SAMPLE_RATE = 48_000

# Neither the source's metadata nor FFmpeg's version and times: equal input gives equal bytes.
_EXACT = {"map_metadata": "-1", "map_chapters": "-1", "fflags": "+bitexact"}


STRICT_DECODERS = {"vp9": {"c": "libvpx-vp9"}, "av1": {"strict": "strict"}}
"""Options by codec with which a decoder refuses frames that do not end where their packet does.

Their arithmetic codes have no invalid symbols, so the end is all that tells damage. After a refusal, nothing is decoded
up to the next key frame: for images to keep, the lenient decoders are better.
"""


class Target(BaseModel):
    """Format of the stored video, frames and audio."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_side: int = Field(256, ge=64)
    """Shorter side of stored video and frames, in pixels."""
    frames: int = Field(8, ge=1, le=64)
    """Frames that are stored as images, spread over the clip."""
    max_fps: float = Field(30.0, gt=0)
    """Frames per second of the stored video; a faster source loses frames."""
    crf: int = Field(23, ge=0, le=51)
    """Quality of the stored video: x264's constant rate factor, 0 is lossless."""
    preset: str = Field("veryfast", pattern="^[a-z]+$")
    """x264's preset."""
    jpeg_quality: int = Field(2, ge=1, le=31)
    """FFmpeg's quantiser scale (``-q:v``) for the stored frames, 1 (best) to 31."""
    measure_fps: float = Field(5.0, gt=0)
    """Frames per second at which motion, cuts, freezes and brightness are measured."""
    max_corrupt_audio_share: float = Field(0.5, ge=0, le=1)
    """If a larger share of the audio packets cannot be decoded, the clip is stored without audio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInput:
    """How the audio of a clip is read."""

    is_steady: bool = False
    """Whether to read `STEADY_AUDIO`, written by `steady_audio_command`, instead of the source."""
    channel: int | None = None
    """Index of the channel to use as the mono audio, if the channels cancel out when mixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPlan:
    """The frames, size and audio of one clip; times are in seconds after the first frame."""

    probe: SourceFacts
    size: tuple[int, int]
    times_s: Sequence[float]
    """Times of the frames of the stored video, after the limit on frames per second."""
    chosen: Sequence[int]
    """Indices into `times_s` of the frames that are stored as images."""
    keeps_every_frame: bool
    audio: AudioInput | None
    """None for a clip that is stored without audio."""
    is_strict: bool = True
    """Whether to apply `STRICT_DECODERS`."""


def command(source: str, plan: GraphPlan, target: Target, limits: Limits) -> list[str]:
    """Return the command that writes all outputs of a clip; ``source`` is the result of `source_name`."""
    # A frame of another size would rebuild the graph and lose the state of its filters; it is scaled, and the message
    # about it is counted (`damage`).
    media = ffmpeg.input(source, reinit_filter=0, **input_options(limits), **_decoder_options(plan))
    audio, audio_outputs = (None, []) if plan.audio is None else _audio(media, plan, plan.audio)
    if plan.probe.video_codec is None:
        return _ffmpeg(limits, ffmpeg.output(audio, "-", f="null"), *audio_outputs)
    return _ffmpeg(limits, *_video_outputs(media[f"v:{plan.probe.video_track}"], audio, plan, target), *audio_outputs)


def _decoder_options(plan: GraphPlan) -> dict[str, str]:
    if plan.probe.video_codec is None:
        return {}
    # A few HEVC and FFV1 encoders store a checksum of each frame.
    options = {"err_detect": "+crccheck"}
    if plan.is_strict:
        options |= STRICT_DECODERS.get(plan.probe.video_codec, {})
    return {f"{name}:v:{plan.probe.video_track}": value for name, value in options.items()}


def steady_audio_command(source: str, plan: GraphPlan, limits: Limits) -> list[str]:
    """Return a command that converts audio whose sample rate or channels change midway to mono PCM of one rate.

    A filter graph cannot handle such a change: FFmpeg would rebuild it and lose the state of every filter. Timestamps
    are relative to the first frame.
    """
    stream = ffmpeg.input(source, **input_options(limits))[f"a:{plan.probe.audio_track}"]
    steps = (
        f"asetpts=PTS-({plan.probe.start_s:.9f}/TB)",
        f"atrim=start=0:end={plan.probe.duration_s:.6f}",
        f"aresample={VIDEO_SAMPLE_RATE}",
        "aformat=sample_fmts=s16:channel_layouts=mono",
    )
    steady = ffmpeg.output(stream, f"file:{STEADY_AUDIO}", af=",".join(steps), f="matroska",
                           **{"c:a": "pcm_s16le", "flags": "+bitexact", **_EXACT})  # fmt: skip
    return _ffmpeg(limits, steady)


def _ffmpeg(limits: Limits, *outputs: Any) -> list[str]:
    # Decoding errors do not fail the run: they are counted and assessed afterwards.
    arguments = ffmpeg.merge_outputs(*outputs).get_args()
    return [str(find_ffmpeg()), *global_options(limits), "-max_error_rate", "1", *arguments]


def _audio(media: Any, plan: GraphPlan, audio: AudioInput) -> tuple[Any, list[Any]]:
    """Return the measured audio stream for the mp4, and the outputs of the FLAC, the fingerprint and the levels.

    Audio that starts late is preceded by silence; audio before the first and after the last frame is dropped.
    """
    if audio.is_steady:
        stream = ffmpeg.input(f"file:{STEADY_AUDIO}")["a:0"]
    else:
        stream = media[f"a:{plan.probe.audio_track}"].filter("asetpts", f"PTS-({plan.probe.start_s:.9f}/TB)")
    end_s = f"{plan.probe.duration_s:.6f}"
    samples = max(1, round(plan.probe.duration_s * SAMPLE_RATE))
    # `async` fills gaps with silence, `first_pts` the time before audio that starts late.
    fill = {"async": 1, "first_pts": 0, "min_hard_comp": 0.02}
    parts = stream.asplit()
    full = parts[0].filter("aresample", VIDEO_SAMPLE_RATE, **fill).filter("aformat", channel_layouts="mono|stereo")
    full = full.filter("apad", whole_dur=end_s).filter("atrim", end=end_s)
    # ebur128 splits the audio into new frames and drops metadata set before it, so it comes first.
    full = full.filter("ebur128", metadata=1, framelog="quiet").filter("silencedetect", noise="-50dB", duration=0.2)
    mono = parts[1]
    if audio.channel is not None:
        mono = mono.filter("channelmap", map=audio.channel, channel_layout="mono")
    mono = mono.filter("aresample", SAMPLE_RATE, **fill)
    mono = mono.filter("aformat", sample_fmts="s16", channel_layouts="mono").filter("apad", whole_len=samples)
    mono = _levels(mono.filter("atrim", end_sample=samples), MONO_MEASURES).asplit()
    channels = _levels(parts[2].filter("atrim", start=0, end=end_s), CHANNEL_MEASURES)
    return full.filter("ametadata", "print", file=AUDIO_MEASURES), [
        ffmpeg.output(mono[0], f"file:{AUDIO}", f="flac", **{"c:a": "flac", "flags": "+bitexact", **_EXACT}),
        ffmpeg.output(mono[1], f"file:{FINGERPRINT}", f="chromaprint", fp_format="raw"),
        ffmpeg.output(channels, "-", f="null"),
    ]


def _levels(stream: Any, path: str) -> Any:
    """Write the running RMS level of each channel to ``path``; the last value is that of the whole stream."""
    stream = stream.filter("astats", metadata=1, measure_perchannel="RMS_level", measure_overall="none")
    return stream.filter("ametadata", "print", file=path)


def _video_outputs(stream: Any, audio: Any | None, plan: GraphPlan, target: Target) -> list[Any]:
    """Return the outputs of decoded frames: the mp4, the stored frames and the measures."""
    probe = plan.probe
    stream = stream.filter("setpts", f"PTS-({probe.frame_ticks[0]})")
    if probe.is_interlaced:
        # A frame out for each frame in, so that the times stay the source's; progressive frames pass as they are.
        stream = stream.filter("bwdif", mode="send_frame", deint="interlaced")
    if not plan.keeps_every_frame:
        stream = stream.filter("select", decimate_expression(target.max_fps))
    parts = to_bt709(stream, probe, plan.size).filter("setsar", "1").split()
    # One thread, because x264's output depends on their number, whose default is that of the cores.
    coded: dict[str, Any] = {
        "threads:v": 1, "fps_mode": "passthrough", "enc_time_base:v": "demux", "flags": "+bitexact",
        "stats_enc_pre_fmt:v": "{pts} {tb}", **_EXACT,
    }  # fmt: skip
    video: dict[str, Any] = {
        "c:v": "libx264", "preset": target.preset, "crf": target.crf,
        # At least one key frame per second, also at a low or variable frame rate.
        "force_key_frames": "expr:gte(t,n_forced)", "g": max(1, round(target.max_fps)),
        # The index before the media, so that a player can begin before it has all of the file.
        "stats_enc_pre:v": VIDEO_TIMES, "movflags": "+faststart", "f": "mp4",
        **coded, **({} if audio is None else {"c:a": "aac", "b:a": "96k"}),
    }  # fmt: skip
    stored = parts[1].filter("select", pick_expression(plan.times_s, plan.chosen))
    # Blur is the slowest measure, so only the stored frames are measured.
    stored = stored.filter("blurdetect").filter("metadata", "print", file=FRAME_MEASURES)
    # A JPEG has no colour tags: readers assume full-range BT.601.
    # Bit-exact here and below, as the scaler's faster ways differ from processor to processor.
    stored = stored.filter("scale", out_range="pc", out_color_matrix="bt601", flags="accurate_rnd+bitexact")
    images = {"f": "image2", "c:v": "mjpeg", "q:v": target.jpeg_quality, "stats_enc_pre:v": FRAME_TIMES, **coded}
    # With round="up", each sample is the frame on display at its time, and the shortest clip has one sample.
    measured = parts[2].filter("fps", target.measure_fps, start_time=0, round="up")
    # A quarter of the pixels: siti would take a fifth of the process's time, and would count grain as motion.
    measured = measured.filter("scale", "iw/2", "ih/2", flags="area+accurate_rnd+bitexact").filter("siti")
    measured = measured.filter("scdet", threshold=10).filter("freezedetect", noise="-60dB", duration=0.5)
    measured = measured.filter("blackdetect", d=0.1).filter("signalstats")
    return [
        ffmpeg.output(parts[0], *([] if audio is None else [audio]), f"file:{VIDEO}", **video),
        ffmpeg.output(stored.filter("format", "yuvj420p"), f"file:{FRAME}", **images),
        ffmpeg.output(measured.filter("metadata", "print", file=VIDEO_MEASURES), "-", f="null"),
    ]
