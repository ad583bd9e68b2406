"""The training benchmark runs at toy size, compares like with like, and divides by the ceilings of the facts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.train_gpu import ROWS, ceiling
from tests.conftest import ROOT
from tests.forks import Fork
from vidal.train.towers.settings import VisionSettings

LARGE = VisionSettings(
    hidden_size=1024, layers=24, heads=16, patch_size=14, projection_dim=768, frames=8, patch_dropout=0.5
)


def figures_of(*arguments: str) -> dict[str, Any]:
    """What the benchmark prints, as a command: it starts workers by fork, and this process has used its threads."""
    done = Fork(ROOT / "benchmarks" / "train.py", "--quick", "--json", *arguments, cwd=ROOT).ended()
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def test_both_trainers_take_the_same_steps() -> None:
    figures = figures_of()
    losses = figures["warm_up_losses"]
    assert {"cores", "load"} < figures.keys()
    assert losses["vidal"] == pytest.approx(losses["open_clip"], rel=1e-4)
    assert losses["vidal"][-1] < losses["vidal"][0]


def test_the_rows_of_the_gpu_s_table_run_on_the_cpu_at_toy_size() -> None:
    rows = ["full", "full, tars", "full, text tower in the step", "lora", "open_clip, full"]
    found = figures_of("--gpu", "--device", "cpu", "--rows", *rows)
    assert (found["batch"], found["device"]) == (8, "cpu") and set(rows) <= set(ROWS)
    assert all(found[row]["clips_per_s"] > 0 for row in rows)
    # The text cache holds what the tower gives.
    assert found["full, text tower in the step"]["loss"] == found["full"]["loss"]


def test_the_costs_of_a_step_are_counted() -> None:
    found = figures_of("--costs")
    video, pixels = found["bytes to the device, a clip"]["video"], 8 * 3 * 224 * 224
    assert pixels < video["now"] < pixels + 1300 and 4 * pixels < video["in float32"] < 4 * pixels + 1300
    assert found["waits for the device, a step"]["texts cached"] == 1
    tokenising = found["tokenising in the training process, s a step"]
    assert tokenising["texts cached"] == tokenising["text tower in the step"] == 0
    assert tokenising["1,024 captions, if it did"] > 0


@pytest.mark.parametrize(("tune", "is_cached", "clips_per_s"), [
    ("full", False, 412), ("full", True, 309), ("lora", False, 618), ("lora", True, 412),
])  # fmt: skip
def test_ceilings_are_those_of_790_tflops(tune: str, is_cached: bool, clips_per_s: int) -> None:
    assert ceiling(LARGE, tune, is_cached=is_cached) == pytest.approx(clips_per_s, rel=0.003)
