"""Score a depth checkpoint: Spearman correlation of its output with reference inverse depth, image by image.

    python -m tools.rendering.evaluate_depth --json

`row` is the rule that lower rows are nearer, which a network has to beat to be worth running. Each figure is the mean
over an image and its mirror image, as small differences of left and right would otherwise count as skill.
"""

import argparse
import json
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForDepthEstimation, PreTrainedModel

from tools.rendering.frames import REPORTING_SEEDS, held_out_frames, held_out_library
from tools.rendering.scenes import Frame
from tools.rendering.textures import noise_library
from vidal.models.small_depth import processor

CHECKPOINT = Path(str(files("vidal"))) / "models" / "checkpoints" / "depth-small"
COMPARED_HW = (192, 256)

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@torch.inference_mode()
def predicted(model: PreTrainedModel, rgb: Bytes) -> Floats:
    """(h, w) relative inverse depth of an rgb image (h, w, 3)."""
    prepare = processor()
    outputs = model(**prepare(images=rgb, return_tensors="pt"))
    (depth,) = prepare.post_process_depth_estimation(outputs, target_sizes=[rgb.shape[:2]])
    return np.asarray(depth["predicted_depth"], np.float32)


def against(model: PreTrainedModel, rgb: Bytes, inverse_depth: Floats) -> tuple[float, float]:
    """Spearman of the network and of the row rule; pixels whose reference is NaN do not count."""
    guess = (predicted(model, rgb) + predicted(model, np.ascontiguousarray(rgb[:, ::-1]))[:, ::-1]) / 2
    known = np.isfinite(inverse_depth)
    rows = np.broadcast_to(np.arange(len(rgb))[:, None], known.shape)
    truth = inverse_depth[known]
    return float(spearmanr(guess[known], truth).statistic), float(spearmanr(rows[known], truth).statistic)


def score_renders(model: PreTrainedModel, frames: list[Frame]) -> dict[str, float]:
    """Means over rendered frames: network, row rule, and the gain of one over the other."""
    pairs = np.array([against(model, frame.rgb, np.float32(1) / frame.depth) for frame in frames])
    model_mean, row_mean = pairs.mean(0)
    error = float((pairs[:, 0] - pairs[:, 1]).std() / np.sqrt(len(pairs)))
    return {
        "spearman": float(model_mean),
        "row": float(row_mean),
        "gain": float(model_mean - row_mean),
        "gain_standard_error": error,
        "frames": len(frames),
    }


def score_image(model: PreTrainedModel, rgb: Bytes, inverse_depth: Floats) -> dict[str, float]:
    """One photograph with measured inverse depth or disparity, both brought to 192 x 256."""
    small = cv2.resize(rgb, COMPARED_HW[::-1], interpolation=cv2.INTER_AREA)
    reference = cv2.resize(inverse_depth, COMPARED_HW[::-1], interpolation=cv2.INTER_NEAREST)
    network, row = against(model, np.asarray(small, np.uint8), np.asarray(reference, np.float32))
    return {"spearman": network, "row": row, "gain": network - row}


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
    parser.add_argument("--textures", type=Path, help="where train_depth kept its images; without it, noise only")
    parser.add_argument("--image", type=Path, default=Path("tests/parity/fixtures/motorcycle"))
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForDepthEstimation.from_pretrained(args.checkpoint).eval()
    library = held_out_library(args.textures) if args.textures else noise_library(REPORTING_SEEDS)
    scores = {
        "renders": score_renders(model, held_out_frames(library, first=REPORTING_SEEDS, count=args.frames)),
        args.image.name: score_image(model, *measured(args.image)),
    }
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, score in scores.items():
            print(name, *(f"{key} {value:.3f}" for key, value in score.items()))


if __name__ == "__main__":
    main()
