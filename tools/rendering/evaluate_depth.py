"""Score a depth checkpoint as a recipe runs it: through the depth stage, one pass per image, at the stage's own size.

    python -m tools.rendering.evaluate_depth --json

Every figure is the Spearman correlation of the stored depth with reference inverse depth, image by image. `row` is the
rule that lower rows are nearer, which a network has to beat to be worth running. `bar` says which of the figures asked
of the shipped checkpoint are reached. Pip and apt fetch the images the first time (about 500 MB).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from transformers import PreTrainedModel

from tools.rendering.depth_references import Reference, references
from tools.rendering.frames import REPORTING_SEEDS, held_out_frames, held_out_library
from tools.rendering.scenes import Frame
from tools.rendering.textures import noise_library
from vidal.clip import Clip
from vidal.models.small_depth import processor
from vidal.stages.modalities.depth import Depth
from vidal.work import Member

CHECKPOINT = Path(str(files("vidal"))) / "models" / "checkpoints" / "depth-small"
FRAME_PX = 256
"""Short side of the frames that a recipe stores by default."""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Predict = Callable[[Bytes], Floats]
"""From an rgb image (h, w, 3) to relative inverse depth (h, w)."""


def by_network(model: PreTrainedModel) -> Predict:
    """The network and its own processor, without a stage around them: what training chooses a checkpoint with."""
    prepare = processor()

    @torch.inference_mode()
    def predict(rgb: Bytes) -> Floats:
        outputs = model(**prepare(images=rgb, return_tensors="pt"))
        (depth,) = prepare.post_process_depth_estimation(outputs, target_sizes=[rgb.shape[:2]])
        return np.asarray(depth["predicted_depth"], np.float32)

    return predict


def by_stage(checkpoint: Path) -> Predict:
    """What the depth stage stores for a clip of that one frame."""
    stage = Depth(model=str(checkpoint))
    stage.setup()

    def predict(rgb: Bytes) -> Floats:
        _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        clip = Clip(clip_id="reference")
        clip.work.put(Member(layer="video", suffix="frame.0.jpg", data=encoded.tobytes(), time_s=0.0))
        stage.process_batch([clip])
        stored = clip.work.member("depth", "depth.0.png")
        assert stored is not None
        millimetres = cv2.imdecode(np.frombuffer(stored.data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert millimetres is not None
        return np.asarray(1 / millimetres.astype(np.float32), np.float32)

    return predict


def score(predict: Predict, rgb: Bytes, inverse_depth: Floats) -> dict[str, float]:
    """Spearman of the prediction, of the row rule, and their difference; NaN pixels of the reference do not count."""
    guess, known = predict(rgb), np.isfinite(inverse_depth)
    rows = np.broadcast_to(np.arange(len(rgb))[:, None], known.shape)
    network, row = (float(spearmanr(x[known], inverse_depth[known]).statistic) for x in (guess, rows))
    return {"spearman": network, "row": row, "gain": network - row}


def score_image(predict: Predict, rgb: Bytes, inverse_depth: Floats) -> dict[str, float]:
    """An image brought to the size of a stored frame, and its reference with it."""
    scale = FRAME_PX / min(rgb.shape[:2])
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    return score(
        predict, small, np.asarray(cv2.resize(inverse_depth, size, interpolation=cv2.INTER_NEAREST), np.float32)
    )


def score_renders(predict: Predict, frames: Sequence[Frame]) -> dict[str, float]:
    """Means over rendered frames, and the standard error of the mean gain."""
    scores = [score(predict, frame.rgb, np.float32(1) / frame.depth) for frame in frames]
    error = float(np.std([one["gain"] for one in scores]) / np.sqrt(len(scores)))
    return {**_means(scores), "gain_standard_error": error, "frames": len(frames)}


def _means(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in scores])) for name in ("spearman", "row", "gain")}


def report(predict: Predict, images: Sequence[Reference], frames: Sequence[Frame]) -> dict[str, Any]:
    """Every figure of the bar: images, the means of their groups, renders, and which figures are reached."""
    scored = {one.name: score_image(predict, one.rgb, one.inverse_depth) for one in images}
    groups = {
        group: _means([scored[one.name] for one in images if one.group == group])
        for group in ("eight", "extra", "stereo")
    }
    renders = score_renders(predict, frames)
    extras = [scored[one.name]["gain"] for one in images if one.group == "extra"]
    bar = {
        "eight: gain >= .12": groups["eight"]["gain"] >= 0.12,
        "motorcycle: gain >= .05": scored["motorcycle"]["gain"] >= 0.05,
        "aloe: gain >= .05": scored["aloe"]["gain"] >= 0.05,
        "extra: no gain < 0": min(extras) >= 0,
        "stereo: spearman >= .3": groups["stereo"]["spearman"] >= 0.3,
        "renders: spearman >= .85": renders["spearman"] >= 0.85,
    }
    return {"bar": bar, "groups": groups, "renders": renders, "images": scored}


def measured(folder: Path) -> tuple[Bytes, Floats]:
    """left.jpg and disparity.png (uint16, 1/64 px, 0 = unknown) of a stereo image with structured-light truth."""
    left = cv2.imread(str(folder / "left.jpg"), cv2.IMREAD_COLOR_RGB)
    disparity = cv2.imread(str(folder / "disparity.png"), cv2.IMREAD_UNCHANGED)
    if left is None or disparity is None:
        raise FileNotFoundError(f"{folder} needs left.jpg and disparity.png")
    return np.asarray(left, np.uint8), np.where(disparity > 0, disparity / np.float32(64), np.nan).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--references", type=Path, default=Path("build/depth-references"), help="packages and images")
    parser.add_argument("--textures", type=Path, help="where train_depth kept its images; without it, noise only")
    parser.add_argument("--frames", type=int, default=64, help="held-out renders")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    args = parser.parse_args()
    library = held_out_library(args.textures) if args.textures else noise_library(REPORTING_SEEDS)
    frames = held_out_frames(library, first=REPORTING_SEEDS, count=args.frames)
    scores = report(by_stage(args.checkpoint), list(references(args.references)), frames)
    if args.json:
        print(json.dumps(scores, indent=2))
        return
    for name, one in {**scores["images"], **scores["groups"], "renders": scores["renders"]}.items():
        print(f"{name:20}", *(f"{key} {value:.3f}" for key, value in one.items()))
    for name, reached in scores["bar"].items():
        print("reached" if reached else "missed ", name)


if __name__ == "__main__":
    main()
