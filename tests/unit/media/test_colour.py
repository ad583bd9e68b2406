"""Stored frames and video show the colours that the source's own tags say, by the standards' matrices.

The right values are computed here, in floating point, from the source's code values: matrix, range and depth give R'G'B',
the transfer curve gives linear light as a display shows it (BT.1886, sRGB), chromaticities give BT.709, and what lies
outside is clipped channel by channel.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.unit.media.numbered import ffmpeg, process
from vidal.media.limits import Limits
from vidal.media.probe import probe

Floats = npt.NDArray[np.float64]

WIDTH, HEIGHT = 320, 192
PATCHES = np.array(
    [
        [191, 0, 0],
        [0, 191, 0],
        [0, 0, 191],
        [128, 128, 128],
        [200, 150, 120],
        [255, 255, 255],
        [0, 0, 0],
        [40, 130, 150],
    ]
)
"""What the patches show in BT.709, as far as the source's own bits can say it."""

_WHITE = (0.3127, 0.3290)
CHROMATICITIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
}
LUMA = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt470bg": (0.299, 0.114), "fcc": (0.30, 0.11),
        "smpte240m": (0.212, 0.087), "bt2020nc": (0.2627, 0.0593)}  # fmt: skip
GAMMA = {"linear": 1.0}
SHOWN_AS_THEY_ARE = ("bt470bg", "smpte170m", "bt470m", "")


@dataclass(frozen=True)
class Source:
    """A file of flat patches; an empty word is a tag that is left out."""

    name: str
    primaries: str = ""
    transfer: str = ""
    matrix: str = ""
    full_range: bool = False
    pixels: str = "yuv420p"
    codec: str = "-c:v libx264 -preset ultrafast -qp 0"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    read_as: tuple[str, str] = ("", "")
    """Primaries and matrix that a player takes for missing or impossible tags."""

    @property
    def true_primaries(self) -> str:
        return self.read_as[0] or self.primaries or "bt709"

    @property
    def true_matrix(self) -> str:
        return self.read_as[1] or self.matrix

    @property
    def bits(self) -> int:
        return int(self.pixels.removesuffix("le")[-2:]) if self.pixels.endswith("le") else 8


X265 = "-c:v libx265 -preset ultrafast -x265-params lossless=1:log-level=error"
VP9 = "-c:v libvpx-vp9 -lossless 1 -deadline realtime -cpu-used 8"
SOURCES = [
    Source("p3.mp4", "smpte432", "bt709", "bt709"),
    Source("p3-444.mp4", "smpte432", "bt709", "bt709", pixels="yuv444p"),
    Source("p3-srgb-full.mp4", "smpte432", "iec61966-2-1", "bt709", True),
    Source("p3-10-bit-hevc.mp4", "smpte432", "bt709", "bt709", pixels="yuv420p10le", codec=X265),
    Source("p3-601-matrix.mp4", "smpte432", "iec61966-2-1", "smpte170m", True, pixels="yuv420p"),
    Source("p3-curve-unstated.mkv", "smpte432", "", "bt709"),
    Source("p3-matrix-unstated.mkv", "smpte432", "bt709", "", read_as=("", "smpte170m")),
    Source("dci.mkv", "smpte431", "bt709", "bt709", codec="-c:v ffv1"),
    Source("bt2020.mp4", "bt2020", "bt2020-10", "bt2020nc", pixels="yuv420p10le"),
    Source("bt2020-8-bit.mp4", "bt2020", "bt709", "bt2020nc"),
    Source("bt2020-12-bit-hevc.mp4", "bt2020", "bt2020-12", "bt2020nc", pixels="yuv422p12le", codec=X265),
    Source("bt2020-full.mp4", "bt2020", "bt2020-10", "bt2020nc", True, pixels="yuv420p10le"),
    Source("bt2020-vp9.webm", "bt2020", "bt2020-10", "bt2020nc", pixels="yuv420p10le", codec=f"{VP9} -profile:v 2"),
    Source("bt2020-prores.mov", "bt2020", "bt709", "bt2020nc", pixels="yuv422p10le",
           codec="-c:v prores_ks -profile:v 3 -qscale:v 1"),
    Source("bt2020-matrix-unstated.mkv", "bt2020", "bt709", "", read_as=("", "bt2020nc")),
    Source("bt2020-primaries-unstated.mkv", "", "bt709", "bt2020nc", read_as=("bt2020", "")),
    Source("p3-linear-16-bit.mkv", "smpte432", "linear", "bt709", pixels="yuv444p16le", codec="-c:v ffv1"),
    Source("ntsc-1953.mkv", "bt470m", "bt470m", "fcc"),
    Source("ycgco.mkv", "bt709", "bt709", "ycgco", codec="-c:v ffv1"),
    Source("rgb.mkv", "bt709", "iec61966-2-1", "gbr", True, pixels="gbrp", codec="-c:v ffv1"),
    Source("rgb-p3.mkv", "smpte432", "iec61966-2-1", "gbr", True, pixels="gbrp", codec="-c:v ffv1"),
    Source("rgb-tag-on-yuv.mkv", "smpte432", "bt709", "gbr", read_as=("", "smpte170m")),
    Source("bt709.mp4", "bt709", "bt709", "bt709"),
    Source("bt709-full-10-bit.mp4", "bt709", "bt709", "bt709", True, pixels="yuv420p10le"),
    Source("pal.mp4", "bt470bg", "bt470bg", "bt470bg"),
    Source("ntsc.mpg", "smpte170m", "smpte170m", "smpte170m", codec="-c:v mpeg2video -q:v 1"),
    Source("motion-jpeg.avi", "", "", "smpte170m", True, pixels="yuvj420p", codec="-c:v mjpeg -q:v 1"),
    Source("untagged.mp4", read_as=("", "smpte170m")),
    Source("untagged-vp8.webm", codec="-c:v libvpx -deadline realtime -b:v 20M -qmax 4", read_as=("", "smpte170m")),
    Source("untagged-pal-1024x576.mp4", size=(1024, 576), read_as=("", "smpte170m")),
    Source("untagged-hd-1280x544.mp4", size=(1280, 544), read_as=("", "bt709")),
    Source("untagged-portrait-608x1080.mp4", size=(608, 1080), read_as=("", "bt709")),
    Source("untagged-portrait-720x1280.mp4", size=(720, 1280), read_as=("", "bt709")),
]  # fmt: skip


def decode(curve: str, value: Floats) -> Floats:
    if curve == "iec61966-2-1":
        return np.where(value <= 0.04045, value / 12.92, ((np.maximum(value, 0) + 0.055) / 1.055) ** 2.4)
    return np.sign(value) * np.abs(value) ** GAMMA.get(curve, 2.4)


def encode(curve: str, light: Floats) -> Floats:
    if curve == "iec61966-2-1":
        return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.sign(light) * np.abs(light) ** (1 / GAMMA.get(curve, 2.4))


def to_xyz(primaries: str) -> Floats:
    """Linear RGB to XYZ, by the chromaticities of red, green and blue and of white (D65)."""
    *columns, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in (*CHROMATICITIES[primaries], _WHITE))
    corners = np.stack(columns, axis=1)
    return corners @ np.diag(np.linalg.solve(corners, white))


def to_ycc(matrix: str) -> Floats:
    if matrix == "gbr":
        return np.eye(3)[[1, 2, 0]]
    if matrix == "ycgco":
        return np.array([[1, 2, 1], [-1, 2, -1], [2, 0, -2]]) / 4
    red, blue = LUMA[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])


def scale_of(source: Source) -> tuple[Floats, Floats]:
    """Code values of Y'CbCr 0, and of a step of 1."""
    unit = 2 ** (source.bits - 8)
    if source.true_matrix == "gbr":
        return np.zeros(3), np.full(3, 255.0)
    if source.full_range:
        return np.array([0, 128 * unit, 128 * unit]), np.full(3, 2.0**source.bits - 1)
    return np.array([16, 128, 128]) * unit, np.array([219.0, 224, 224]) * unit


def codes_of(source: Source) -> npt.NDArray[np.int64]:
    """The patches in the source's own code values."""
    signal = PATCHES / 255
    if source.true_primaries not in ("bt709", *SHOWN_AS_THEY_ARE):
        curve = source.transfer if source.transfer != "linear" else "bt709"
        light = decode(curve, signal) @ (np.linalg.inv(to_xyz(source.true_primaries)) @ to_xyz("bt709")).T
        signal = encode(source.transfer, np.clip(light, 0, 1))
    zero, step = scale_of(source)
    codes = np.rint(signal @ to_ycc(source.true_matrix).T * step + zero)
    return np.clip(codes, 0, 2**source.bits - 1).astype(np.int64)


def right_colours(source: Source) -> Floats:
    """What the code values say in BT.709, in 8-bit levels."""
    zero, step = scale_of(source)
    signal = (codes_of(source) - zero) / step @ np.linalg.inv(to_ycc(source.true_matrix)).T
    if source.true_primaries not in ("bt709", *SHOWN_AS_THEY_ARE):
        light = decode(source.transfer, np.clip(signal, 0, 1))
        light = light @ (np.linalg.inv(to_xyz("bt709")) @ to_xyz(source.true_primaries)).T
        curve = source.transfer if source.transfer != "linear" else "bt709"
        signal = encode(curve, np.clip(light, 0, 1))
    return np.clip(signal, 0, 1) * 255


def make(source: Source, folder: Path) -> Path:
    width, height = source.size
    column = np.arange(width) * len(PATCHES) // width
    planes = [codes_of(source)[column, plane] for plane in range(3)]
    across, down = {"420": (2, 2), "422": (2, 1)}.get(source.pixels.lstrip("yuvj")[:3], (1, 1))
    kind = np.uint8 if source.bits == 8 else np.dtype("<u2")
    frame = b"".join(
        np.tile(plane[:: across if k else 1], height // (down if k else 1)).astype(kind).tobytes()
        for k, plane in enumerate(planes)
    )
    tags = {"color_primaries": source.primaries, "color_trc": source.transfer, "colorspace": source.matrix}
    params = [f"{name}={value}" for name, value in tags.items() if value]
    if source.full_range or params:
        params.append(f"range={'pc' if source.full_range else 'tv'}")
    raw = ["-f", "rawvideo", "-pix_fmt", source.pixels, "-s", f"{width}x{height}", "-framerate", "25", "-i", "pipe:0"]
    tagged = ["-vf", f"setparams={':'.join(params)}"] if params else []
    path = folder / source.name
    ffmpeg(*raw, *tagged, *source.codec.split(), "-pix_fmt", source.pixels, path, data=frame * 5)
    return path


def patches_of(image: npt.NDArray[np.uint8]) -> Floats:
    """The colour in the middle of each patch."""
    width = image.shape[1] // len(PATCHES)
    centres = [k * image.shape[1] // len(PATCHES) + width // 2 for k in range(len(PATCHES))]
    middle = image[image.shape[0] // 2 - 4 : image.shape[0] // 2 + 4]
    return np.stack([middle[:, x - 3 : x + 3].mean(axis=(0, 1)) for x in centres])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("colours")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_colours_are_at_most_four_levels_from_right_in_jpeg_and_mp4(source: Source, folder: Path) -> None:
    clip = process(make(source, folder), folder)
    right = right_colours(source)
    jpeg, film = (clip.work.member("video", suffix) for suffix in ("frame.3.jpg", "mp4"))
    assert jpeg is not None and film is not None
    stored = np.asarray(Image.open(io.BytesIO(jpeg.data)).convert("RGB"))
    assert np.abs(patches_of(stored) - right).max() <= 4, np.round(patches_of(stored) - right, 1)
    path = folder / f"stored-{source.name}.mp4"
    path.write_bytes(film.data)
    planes = ffmpeg("-i", path, "-vf", "format=yuv444p", "-frames:v", "1", "-f", "rawvideo", "-")
    codes = np.frombuffer(planes, np.uint8).reshape(3, *stored.shape[:2]).transpose(1, 2, 0)
    facts = probe(path, folder, Limits())
    signal = (patches_of(codes) - [16, 128, 128]) / [219, 224, 224] @ np.linalg.inv(to_ycc(facts.colour_space)).T
    shown = np.clip(signal, 0, 1) * 255
    assert np.abs(shown - right).max() <= 3, np.round(shown - right, 1)
    as_it_was = source.true_primaries in ("bt709", *SHOWN_AS_THEY_ARE)
    assert facts.colour_primaries == ((source.primaries or "unknown") if as_it_was else "bt709")


def test_a_saturated_p3_red_is_what_a_wide_gamut_display_shows(folder: Path) -> None:
    """In 16 bits, where the source's own rounding takes nothing away from the value by the book."""
    source = Source("p3-exact.mkv", "smpte432", "bt709", "bt709", pixels="yuv444p16le", codec="-c:v ffv1")
    assert np.abs(right_colours(source) - PATCHES).max() < 1
    clip = process(make(source, folder), folder)
    assert patches_of(clip.work.frames()[0])[0] == pytest.approx([191, 0, 0], abs=4)
