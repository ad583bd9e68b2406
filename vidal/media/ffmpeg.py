"""Which FFmpeg binary runs, and the options without which it never touches a file that came from outside."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from vidal.errors import ToolError
from vidal.media.limits import Limits

VERSION_FLOOR = (8, 1, 3)
"""First release without CVE-2026-107695 and CVE-2026-107697."""

_NEEDED = {
    "-encoders": ("libx264", "flac", "aac", "mjpeg"),
    "-muxers": ("chromaprint", "framecrc", "mp4"),
    "-filters": (
        "scdet", "siti", "freezedetect", "blackdetect", "blurdetect", "signalstats", "ebur128", "bwdif", "zscale",
        "tonemap",
    ),
}  # fmt: skip

# Containers that hold media and nothing else: no playlist, script, image or raw stream, which can name other files.
FORMATS = "mov,matroska,webm,avi,mpegts,flv,mpeg,ogg,asf,mp3,wav,flac,aac,gif,apng,webp_anim"

VIDEO_CODECS = ",".join(
    (
        "h264,hevc,vp8,vp9,libdav1d,mpeg4,msmpeg4,msmpeg4v2,mpeg1video,mpeg2video,h263,flv,vp6,vp6f,theora",
        "wmv1,wmv2,wmv3,vc1,mjpeg,prores,dnxhd,ffv1,gif,apng,webp,webp_anim",
    )
)
AUDIO_CODECS = ",".join(
    (
        "aac,aac_latm,mp3,mp3float,mp2,mp2float,ac3,eac3,opus,vorbis,flac,alac,wmav1,wmav2,amrnb,amrwb",
        "pcm_s16le,pcm_s16be,pcm_u8,pcm_s8,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_mulaw,pcm_alaw",
        "adpcm_ms,adpcm_ima_wav,adpcm_swf",
    )
)
CODECS = f"{VIDEO_CODECS},{AUDIO_CODECS}"

# What a codec is called in a file, where its decoder is called otherwise.
_DECODERS = {"av1": "libdav1d", "flv1": "flv", "msmpeg4v3": "msmpeg4", "amr_nb": "amrnb", "amr_wb": "amrwb"}


def is_decodable(codec: str) -> bool:
    """Whether a codec, as FFmpeg's muxers name it, has a decoder among `CODECS`."""
    return _DECODERS.get(codec, codec) in CODECS.split(",")


def find_ffmpeg() -> Path:
    """The binary that ``VIDAL_FFMPEG`` names, else the system's if it is fit, else the imageio-ffmpeg wheel's."""
    return _find(os.environ.get("VIDAL_FFMPEG", ""))


def ffmpeg_identity() -> str:
    """The version of the binary in use, such as ``ffmpeg n9.0.2-17-g2a571b6068``."""
    return f"ffmpeg {_version_text(find_ffmpeg())}"


@functools.lru_cache(maxsize=8)
def _find(named: str) -> Path:
    if named:
        return _demand(Path(named), "VIDAL_FFMPEG")
    system = shutil.which("ffmpeg")
    if system is not None and _unfit(Path(system)) is None:
        return Path(system)
    return _demand(_wheel_binary(), "the imageio-ffmpeg wheel")


def _wheel_binary() -> Path:
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise ToolError(
            f"no usable FFmpeg: the system has none from {_dotted(VERSION_FLOOR)} on and the imageio-ffmpeg wheel "
            f"gives none ({error}); run `pip install imageio-ffmpeg` or set VIDAL_FFMPEG to a binary"
        ) from error


def _demand(binary: Path, whence: str) -> Path:
    fault = _unfit(binary)
    if fault is not None:
        raise ToolError(
            f"FFmpeg {binary} (from {whence}) {fault}; set VIDAL_FFMPEG to a build from "
            f"{_dotted(VERSION_FLOOR)} on with libx264 and chromaprint, or unset it to use the imageio-ffmpeg wheel"
        )
    return binary


def _unfit(binary: Path) -> str | None:
    """Why the binary cannot be used, or None."""
    text = _version_text(binary)
    if text is None:
        return "cannot be run"
    match = re.match(r"n?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None or tuple(int(part or 0) for part in match.groups()) < VERSION_FLOOR:
        return f"is version {text}, below {_dotted(VERSION_FLOOR)}, and has known security holes"
    missing = [name for option, names in _NEEDED.items() for name in _absent(binary, option, names)]
    return f"lacks {', '.join(missing)}" if missing else None


def _absent(binary: Path, option: str, names: tuple[str, ...]) -> list[str]:
    listed = set(_ask(binary, option).split())
    return [name for name in names if name not in listed]


@functools.lru_cache(maxsize=8)
def _version_text(binary: Path) -> str | None:
    match = re.match(r"ffmpeg version (\S+)", _ask(binary, "-version"))
    return match[1] if match else None


def _ask(binary: Path, option: str) -> str:
    try:
        done = subprocess.run(
            [str(binary), "-hide_banner", option] if option != "-version" else [str(binary), option],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=60, env={"LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def global_options(limits: Limits) -> list[str]:
    """Options of every FFmpeg run: no questions, machine-readable log, one thread in each filter graph.

    ``-copyts`` keeps the clip's own clock, so that two passes agree on it.
    """
    return ["-hide_banner", "-nostdin", "-nostats", "-y", "-copyts", "-loglevel", "repeat+level+verbose",
            "-filter_threads", "1", "-filter_complex_threads", "1", "-max_alloc", str(limits.alloc_bytes)]  # fmt: skip


def input_options(limits: Limits) -> dict[str, str]:
    """Options before every ``-i``."""
    return {
        "protocol_whitelist": "file,pipe",
        "format_whitelist": FORMATS,
        "codec_whitelist": CODECS,
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(limits.max_streams),
        "threads": "1",
    }


def source_name(path: Path, folder: Path) -> str:
    """How an FFmpeg that runs in ``folder`` is told of a file: never an option, a protocol or a pattern."""
    return f"file:{path.name if path.parent == folder else path.absolute()}"
