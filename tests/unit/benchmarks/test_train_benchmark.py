"""The training benchmark runs at toy size, compares like with like, and divides by the ceilings of the facts."""

from __future__ import annotations

import pytest
import torch

from benchmarks.train import beside_open_clip, ceiling, on_gpu
from vidal.train.towers.settings import VisionSettings

LARGE = VisionSettings(
    hidden_size=1024, layers=24, heads=16, patch_size=14, projection_dim=768, frames=8, patch_dropout=0.5
)


def test_both_trainers_take_the_same_steps() -> None:
    found = beside_open_clip(1, torch.get_num_threads(), tiny=True)
    losses = found["warm_up_losses"]
    assert isinstance(losses, dict)
    assert losses["vidal"] == pytest.approx(losses["open_clip"], rel=1e-4)
    assert losses["vidal"][-1] < losses["vidal"][0]


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_the_gpu_path_runs_on_the_cpu_at_toy_size(tune: str) -> None:
    found = on_gpu(tune, torch.device("cpu"), tiny=True, rows=1024, chunk=64, compile=False, steps=1)
    assert (found["batch"], found["chunk"], found["data"]) == (8, 3, "synthetic")
    assert isinstance(found["clips_per_s"], float) and found["clips_per_s"] > 0


@pytest.mark.parametrize(("tune", "is_cached", "clips_per_s"), [
    ("full", False, 412), ("full", True, 309), ("lora", False, 618), ("lora", True, 412),
])  # fmt: skip
def test_ceilings_are_those_of_790_tflops(tune: str, is_cached: bool, clips_per_s: int) -> None:
    assert ceiling(LARGE, tune, is_cached=is_cached) == pytest.approx(clips_per_s, rel=0.003)
