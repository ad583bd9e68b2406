"""Every benchmark runs: with ``--quick`` it goes through the same code at toy size."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.forks import Fork
from tools.browser import chromium

RUN_ELSEWHERE = {"train", "language_model"}
"""By `tests/unit/benchmarks/test_train_benchmark.py`, which looks at its figures, and below, as it needs a dataset."""
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if "__main__" in path.read_text() and path.stem not in RUN_ELSEWHERE
)
HAS_CHROMIUM = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")
COMMANDS = [
    *([path] for path in SCRIPTS),
    [ROOT / "benchmarks" / "loader.py", "--store", "slow-s3"],
    pytest.param([ROOT / "benchmarks" / "view.py", "--browser"], marks=HAS_CHROMIUM, id="view-browser"),
]


def numbers(figures: Any) -> Iterator[float]:
    """Every number in a JSON value."""
    if isinstance(figures, dict | list):
        for value in figures.values() if isinstance(figures, dict) else figures:
            yield from numbers(value)
    elif isinstance(figures, int | float) and not isinstance(figures, bool):
        yield figures


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join([command[0].stem, *command[2:]]))
def test_a_benchmark_runs_at_toy_size_and_prints_its_figures(command: list[str | Path], tmp_path: Path) -> None:
    done = Fork(*command, "--quick", "--json", cwd=tmp_path).ended()
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert {"cores", "load"} < figures.keys()
    assert sum(number > 0 for number in numbers(figures)) > 3, figures
    assert list(tmp_path.iterdir()) == [], "nothing is left where it was started"


@pytest.mark.slow
def test_a_language_model_in_16_bits_replies_as_in_32(sample_dataset: Path) -> None:
    script = ROOT / "benchmarks" / "language_model.py"
    done = Fork(script, sample_dataset, "--quick", "--json", cwd=ROOT).ended()
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["clips"], figures["differing"]) == (2, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_ablation_finds_that_planted_noise_costs_and_that_its_filter_pays(tmp_path: Path) -> None:
    command = ["nice", sys.executable, ROOT / "benchmarks" / "ablation.py", "--json", "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    found = ("oracle", "clean", "filtered", "filtered-no-copies")
    assert {name: figures[name]["low"] > 0 for name in found} == dict.fromkeys(found, True)
    assert figures["filtered-no-copies against as few at random"]["mean"] > 0 and figures["CPU s"] < 1200


def test_the_benchmark_of_a_gpu_says_in_one_line_that_none_is_here() -> None:
    script = ROOT / "benchmarks" / "gpu.py"
    done = Fork(script, "--json", cwd=ROOT, env={"CUDA_VISIBLE_DEVICES": ""}).ended()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no GPU is here; `--quick --device cpu` runs the same code at toy size\n"
