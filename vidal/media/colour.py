"""Colour conversion of a source to the format of every dataset: 8-bit SDR video with BT.709 primaries.

Colour tags of the source are respected. Missing tags are inferred as mpv and libplacebo infer them: video at least 1280
pixels wide or more than 576 pixels high has the BT.709 matrix, smaller video that of BT.601; a BT.2020 matrix implies
BT.2020 primaries and vice versa. BT.601 primaries (PAL and NTSC) are not converted, as in most players; neither are
those of NTSC 1953 and of film, whose tags are set by mistake on video that never had them. P3 is read with the D65
white point: files made for screens do not use the greenish white of cinema projectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidal.media.probe import SourceFacts

_UNSTATED = ("", "unknown", "reserved")
_STORED_AS_THEY_ARE = ("bt709", "bt470bg", "smpte170m", "smpte240m", "jedec-p22", "bt470m", "film", *_UNSTATED)
_BT2020_MATRICES = ("bt2020nc", "bt2020c")

# Matrices that FFmpeg's own scaler supports; zscale supports more, and tags RGB that it has converted.
_PLAIN_MATRICES = ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc")

# Transfer curves used both to decode and to encode, so that greys keep their values.
_GAMMA_CURVES = (
    "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "iec61966-2-4", "iec61966-2-1", "bt2020-10", "bt2020-12",
)  # fmt: skip
_LINEAR_AND_LOG = ("linear", "log100", "log316")


@dataclass(frozen=True, slots=True)
class Colour:
    """Primaries, transfer curve and matrix of a source, in FFmpeg's names."""

    primaries: str
    transfer: str
    matrix: str


def colour_of(probe: SourceFacts) -> Colour:
    """Return the colour tags of the source, with the missing ones inferred as described in the module docstring."""
    primaries, matrix = probe.colour_primaries, probe.colour_space
    if probe.is_rgb:
        matrix = "gbr"
    elif matrix in (*_UNSTATED, "gbr"):
        width, height = (probe.width, probe.height) if probe.rotation_deg % 180 == 0 else (probe.height, probe.width)
        matrix = "bt709" if width >= 1280 or height > 576 else "smpte170m"
        if primaries == "bt2020" or probe.is_hdr:
            matrix = "bt2020nc"
    if primaries in _UNSTATED:
        primaries = "bt2020" if matrix in _BT2020_MATRICES or probe.is_hdr else "bt709"
    if primaries == "smpte431":
        primaries = "smpte432"
    return Colour(primaries, probe.colour_transfer, matrix)


def to_bt709(stream: Any, probe: SourceFacts, size: tuple[int, int]) -> Any:
    """Return the frames of ``stream`` scaled to ``size`` (width, height), as 8-bit YUV 4:2:0 with BT.709 primaries."""
    colour = colour_of(probe)
    is_plain = colour.primaries in _STORED_AS_THEY_ARE and colour.matrix in _PLAIN_MATRICES
    if is_plain and not probe.is_hdr:
        if colour.matrix != probe.colour_space:
            stream = stream.filter("setparams", colorspace=colour.matrix)
        stream = stream.filter("scale", *size, flags="bicubic+accurate_rnd+bitexact", out_range="tv")
        return stream.filter("format", "yuv420p")
    if (colour.primaries, colour.matrix) != (probe.colour_primaries, probe.colour_space):
        # zscale rejects frames without tags.
        stream = stream.filter("setparams", color_primaries=colour.primaries, colorspace=colour.matrix)
    if probe.is_hdr:
        stream = stream.filter("zscale", w=size[0], h=size[1], t="linear", npl=100)
        stream = stream.filter("format", "gbrpf32le").filter("zscale", p="bt709")
        stream = stream.filter("tonemap", "hable", desat=0)
        return stream.filter("zscale", t="bt709", m="bt709", r="tv").filter("format", "yuv420p")
    # BT.709 primaries are reached in linear light (BT.1886).
    read_as = colour.transfer if colour.transfer in (*_GAMMA_CURVES, *_LINEAR_AND_LOG) else "bt709"
    curves = {"tin": read_as, "t": read_as if read_as in _GAMMA_CURVES else "bt709"}
    stream = stream.filter("zscale", *size, f="bicubic", p="bt709", m="gbr", r="pc", **curves)
    # Clipped as RGB: clipping a YCbCr value would limit its luma only and shift its hue.
    stream = stream.filter("format", "gbrp16le")
    # The matrix of JPEG, so that the stored frames are rounded once and not twice.
    return stream.filter("zscale", m="smpte170m", r="tv").filter("format", "yuv420p")
