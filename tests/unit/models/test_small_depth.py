"""The shipped depth checkpoint: loads as any depth model of transformers does, and is worth running."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModelForDepthEstimation, PreTrainedModel

import vidal.models.small_depth  # noqa: F401  (registers the network)
from tests.conftest import ROOT
from tools.rendering.evaluate_depth import CHECKPOINT, by_network, by_stage, measured, score_image, score_renders
from tools.rendering.frames import REPORTING_SEEDS, held_out_frames
from tools.rendering.textures import noise_library

MOTORCYCLE = ROOT / "tests" / "parity" / "fixtures" / "motorcycle"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.set_num_threads(1)
    return AutoModelForDepthEstimation.from_pretrained(CHECKPOINT, local_files_only=True).eval()


def test_renders_never_seen_are_ranked_far_better_than_by_row(model: PreTrainedModel) -> None:
    frames = held_out_frames(noise_library(REPORTING_SEEDS), first=REPORTING_SEEDS, count=12)
    assert score_renders(by_network(model), frames)["gain"] >= 0.2


def test_the_stage_ranks_a_photograph_with_measured_depth_better_than_by_row() -> None:
    score = score_image(by_stage(CHECKPOINT), *measured(MOTORCYCLE))
    assert 0.6 < score["row"] < 0.7, "the reference is read wrongly"
    assert score["gain"] >= 0.05


@pytest.mark.parametrize("hw", [(256, 455), (455, 256), (90, 61)])
def test_depth_has_the_size_of_the_image(model: PreTrainedModel, hw: tuple[int, int]) -> None:
    prepare = AutoImageProcessor.from_pretrained(CHECKPOINT, local_files_only=True)
    rgb = np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)
    with torch.inference_mode():
        outputs = model(**prepare(images=[rgb, rgb], return_tensors="pt"))
    both = prepare.post_process_depth_estimation(outputs, target_sizes=[hw, hw])
    assert [tuple(depth["predicted_depth"].shape) for depth in both] == [hw, hw]
    torch.testing.assert_close(both[0]["predicted_depth"], both[1]["predicted_depth"], atol=1e-4, rtol=0)


def test_weights_are_stored_in_half_and_used_in_single_precision(model: PreTrainedModel) -> None:
    path = CHECKPOINT / "model.safetensors"
    assert path.stat().st_size < 8_000_000
    with safe_open(path, "pt") as stored:
        kinds = {stored.get_tensor(name).dtype for name in stored.keys()}  # noqa: SIM118  (not a mapping)
    assert kinds == {torch.float16, torch.int64}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
