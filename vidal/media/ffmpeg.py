"""Finds a suitable FFmpeg binary and defines the options that every run on an untrusted file must have."""

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
"""The first release that fixes CVE-2026-107695 and CVE-2026-107697."""
_FLOOR = ".".join(map(str, VERSION_FLOOR))

_REQUIRED = {
    "-encoders": ("libx264", "flac", "aac", "mjpeg"),
    "-decoders": ("libvpx-vp9",),
    "-muxers": ("chromaprint", "framecrc", "mp4"),
    "-filters": (
        "scdet", "siti", "freezedetect", "blackdetect", "blurdetect", "signalstats", "ebur128", "bwdif", "zscale",
        "tonemap",
    ),
}  # fmt: skip

# Containers of media only: playlists and scripts can refer to other files; images and raw streams are no clips.
FORMATS = "mov,matroska,webm,avi,mpegts,flv,mpeg,ogg,asf,mp3,wav,flac,aac,gif,apng,webp_anim"

VIDEO_CODECS = (
    "h264,hevc,vp8,vp9,libdav1d,mpeg4,msmpeg4,msmpeg4v2,mpeg1video,mpeg2video,h263,flv,vp6,vp6f,theora,"
    "wmv1,wmv2,wmv3,vc1,mjpeg,prores,dnxhd,ffv1,gif,apng,webp,webp_anim"
)
AUDIO_CODECS = (
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,ac3,eac3,opus,vorbis,flac,alac,wmav1,wmav2,amrnb,amrwb,"
    "pcm_s16le,pcm_s16be,pcm_u8,pcm_s8,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_mulaw,pcm_alaw,"
    "adpcm_ms,adpcm_ima_wav,adpcm_swf"
)
CODECS = f"{VIDEO_CODECS},libvpx-vp9,{AUDIO_CODECS}"

# Decoder names, for the codecs whose decoder has another name.
_DECODERS = {"av1": "libdav1d", "flv1": "flv", "msmpeg4v3": "msmpeg4", "amr_nb": "amrnb", "amr_wb": "amrwb"}


def is_decodable(codec: str) -> bool:
    """Whether the codec ``codec``, in the naming of FFmpeg's muxers, has a decoder listed in `CODECS`."""
    return _DECODERS.get(codec, codec) in CODECS.split(",")


def find_ffmpeg() -> Path:
    """Return ``VIDAL_FFMPEG`` if set, else the system's binary if it is suitable, else the imageio-ffmpeg wheel's.

    Raises `ToolError` if the binary is missing, is older than `VERSION_FLOOR` or lacks a required component.
    """
    return _find(os.environ.get("VIDAL_FFMPEG", ""))


def ffmpeg_identity() -> str:
    """Return the version of the binary in use, such as ``ffmpeg n9.0.2-17-g2a571b6068``."""
    return f"ffmpeg {_version_text(find_ffmpeg())}"


@functools.lru_cache(maxsize=8)
def _find(named: str) -> Path:
    if named:
        # The user's choice is not silently replaced by another binary.
        binary, origin = Path(named), "VIDAL_FFMPEG"
    elif (system := shutil.which("ffmpeg")) is not None and _unsuitable(Path(system)) is None:
        return Path(system)
    else:
        try:
            import imageio_ffmpeg

            binary, origin = Path(imageio_ffmpeg.get_ffmpeg_exe()), "the imageio-ffmpeg wheel"
        except (ImportError, RuntimeError) as error:
            raise ToolError(
                f"no usable FFmpeg: the system has no version {_FLOOR} or newer and the imageio-ffmpeg wheel "
                f"provides no binary ({error}); run `pip install 'vidal[crawl]'` or set VIDAL_FFMPEG to a binary"
            ) from error
    if (reason := _unsuitable(binary)) is not None:
        raise ToolError(
            f"FFmpeg {binary} (from {origin}) {reason}; set VIDAL_FFMPEG to version {_FLOOR} or newer, built with "
            "libx264, libvpx and chromaprint, or unset it to use the imageio-ffmpeg wheel"
        )
    return binary


def _unsuitable(binary: Path) -> str | None:
    """Return why the binary cannot be used, or None if it can."""
    text = _version_text(binary)
    if text is None:
        return "cannot be run"
    # Builds from FFmpeg's repository write an n before the release.
    match = re.match(r"n?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None or tuple(int(part or 0) for part in match.groups()) < VERSION_FLOOR:
        return f"is version {text}, older than {_FLOOR}, and has known vulnerabilities"
    missing: list[str] = []
    for option, names in _REQUIRED.items():
        available = set(_output(binary, option).split())
        missing += [name for name in names if name not in available]
    return f"lacks {', '.join(missing)}" if missing else None


@functools.lru_cache(maxsize=8)
def _version_text(binary: Path) -> str | None:
    match = re.match(r"ffmpeg version (\S+)", _output(binary, "-version"))
    return match[1] if match else None


def _output(binary: Path, option: str) -> str:
    try:
        # FFmpeg writes lists and version to stdout, and its banner to stderr.
        finished = subprocess.run(
            [str(binary), option], capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
            env={"LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return finished.stdout.decode("utf-8", "replace")


def global_options(limits: Limits) -> list[str]:
    """Return the options of every FFmpeg run: non-interactive, machine-readable log, single-threaded filter graphs.

    ``-copyts`` keeps the timestamps of the source, so that two passes agree on them.
    """
    # Messages are counted, so repeated ones must not be collapsed (`repeat`) and each states its level; only `verbose`
    # has the number of packets and of decode errors.
    return ["-hide_banner", "-nostdin", "-nostats", "-y", "-copyts", "-loglevel", "repeat+level+verbose",
            "-filter_threads", "1", "-filter_complex_threads", "1", "-max_alloc", str(limits.alloc_bytes)]  # fmt: skip


def input_options(limits: Limits) -> dict[str, str]:
    """Return the options of every input: only local files, and only the allowed containers, codecs and sizes."""
    # A stranger's file may name other files and addresses, as playlists do: none may be opened.
    return {
        "protocol_whitelist": "file,pipe",
        "format_whitelist": FORMATS,
        "codec_whitelist": CODECS,
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(limits.max_streams),
        "threads": "1",
    }


def source_name(path: Path, folder: Path) -> str:
    """Return ``path`` as an argument of an FFmpeg run in ``folder``, never read as an option, protocol or pattern."""
    return f"file:{path.name if path.parent == folder else path.absolute()}"
