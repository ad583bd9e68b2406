"""How a source's colours are read, and turned into those of every dataset: 8-bit SDR video with BT.709 primaries.

What a source states holds. What it leaves open is read as players read it (mpv, and libplacebo under it): a video
stored 1280 pixels wide or more, or taller than 576, has the BT.709 matrix, a smaller one that of BT.601; a BT.2020
matrix implies BT.2020 primaries and the other way round. Primaries of BT.601, PAL's and NTSC's, are left as they are,
as most players do; so are those of 1953 and of film, whose tags stand on video that never had them. P3 has the white of
video: the greenish one of cinemas is in no file made for screens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidal.media.probe import Probe

_UNSTATED = ("", "unknown", "reserved")
_STORED_AS_THEY_ARE = ("bt709", "bt470bg", "smpte170m", "smpte240m", "jedec-p22", "bt470m", "film", *_UNSTATED)
_BT2020_MATRICES = ("bt2020nc", "bt2020c")

# Matrices that FFmpeg's own scaler undoes; zscale knows more, and tags what it has made of RGB.
_PLAIN_MATRICES = ("bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc")

# Transfer curves that are decoded and encoded again as they are, so that greys keep their values.
_GAMMA_CURVES = (
    "bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "iec61966-2-4", "iec61966-2-1", "bt2020-10", "bt2020-12",
)  # fmt: skip
_LINEAR_AND_LOG = ("linear", "log100", "log316")


@dataclass(frozen=True, slots=True)
class Colour:
    """The colour of a source, nothing left open."""

    primaries: str
    transfer: str
    matrix: str


def colour_of(probe: Probe) -> Colour:
    """What the source states, completed as players complete it."""
    primaries, matrix = probe.colour_primaries, probe.colour_space
    if probe.is_rgb:
        matrix = "gbr"
    elif matrix in (*_UNSTATED, "gbr"):
        matrix = "bt2020nc" if primaries == "bt2020" or probe.is_hdr else _matrix_by_size(probe)
    if primaries in _UNSTATED:
        primaries = "bt2020" if matrix in _BT2020_MATRICES or probe.is_hdr else "bt709"
    if primaries == "smpte431":
        primaries = "smpte432"
    return Colour(primaries, probe.colour_transfer, matrix)


def _matrix_by_size(probe: Probe) -> str:
    width, height = probe.width, probe.height
    if probe.rotation_deg % 180 == 90:
        width, height = height, width
    return "bt709" if width >= 1280 or height > 576 else "smpte170m"


def to_bt709(stream: Any, probe: Probe, size: tuple[int, int]) -> Any:
    """The frames in ``size`` and in 8 bits, whatever range, matrix, primaries and depth they come in."""
    colour = colour_of(probe)
    if probe.is_hdr:
        stream = _tone_map(_tagged(stream, probe, colour), size)
    elif colour.primaries in _STORED_AS_THEY_ARE and colour.matrix in _PLAIN_MATRICES:
        if colour.matrix != probe.colour_space:
            stream = stream.filter("setparams", colorspace=colour.matrix)
        stream = stream.filter("scale", *size, flags="bicubic+accurate_rnd+bitexact", out_range="tv")
    else:
        stream = _convert_primaries(_tagged(stream, probe, colour), colour, size)
    return stream.filter("format", "yuv420p")


def _tagged(stream: Any, probe: Probe, colour: Colour) -> Any:
    """Frames that say what the source leaves open: zscale refuses those that do not."""
    if (colour.primaries, colour.matrix) == (probe.colour_primaries, probe.colour_space):
        return stream
    return stream.filter("setparams", color_primaries=colour.primaries, colorspace=colour.matrix)


def _convert_primaries(stream: Any, colour: Colour, size: tuple[int, int]) -> Any:
    """In linear light, as a display shows it (BT.1886); colours outside BT.709 are clipped channel by channel."""
    read_as = colour.transfer if colour.transfer in (*_GAMMA_CURVES, *_LINEAR_AND_LOG) else "bt709"
    written_as = read_as if read_as in _GAMMA_CURVES else "bt709"
    curves = {"tin": read_as, "t": written_as}
    stream = stream.filter("zscale", *size, f="bicubic", p="bt709", m="gbr", r="pc", **curves)
    # Clipped as RGB: a YCbCr value out of range would be clipped in brightness alone, and change its hue.
    stream = stream.filter("format", "gbrp16le")
    # The matrix of JPEG, so that rounding takes from the stored frames once and not twice.
    return stream.filter("zscale", m="smpte170m", r="tv")


def _tone_map(stream: Any, size: tuple[int, int]) -> Any:
    stream = stream.filter("zscale", w=size[0], h=size[1], t="linear", npl=100)
    stream = stream.filter("format", "gbrpf32le").filter("zscale", p="bt709")
    stream = stream.filter("tonemap", "hable", desat=0)
    return stream.filter("zscale", t="bt709", m="bt709", r="tv")
