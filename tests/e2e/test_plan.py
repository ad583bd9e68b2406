"""`vidal profile` and `vidal plan`: from a few clips of a recipe to what a build of many takes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.processes import command
from tests.runs import AUDIO, PAINT, SAME_TITLE, SHADE, TROUBLE, write_recipe

CLUSTER = """
nodes:
  - {kind: spot, count: 4, cpus: 8, price_per_h: 0.2, failures_per_h: 0.1, memory_gb: 0.2}
  - {kind: large, cpus: 64, price_per_h: 2.5}
store: {gbit_s: 20, price_per_gb_month: 0.023}
"""


def test_a_recipe_is_profiled_and_planned(tmp_path: Path) -> None:
    titles = [*(f"clip {n}" for n in range(8)), "reject", "gone", "clip 1"]
    recipe = write_recipe(tmp_path, [{PAINT: {"cost_s": 0.02}}, TROUBLE, SAME_TITLE, AUDIO, SHADE], titles)
    file = tmp_path / "toys.json"

    done = command("profile", recipe, "--clips", 10, "--engine", "local", "--workers", 2, "--out", file, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["candidates"], told["workers"]) == (10, 2)
    stages = {stage["stage"]: stage for stage in told["stages"] if stage["stage"] != "pack"}
    assert list(stages) == ["paint", "trouble", "audio", "shade"]
    assert stages["paint"]["clips"] == 10 and stages["paint"]["s_per_clip"] > 0.015 < stages["paint"]["cpu_s_per_clip"]
    assert stages["trouble"]["clips"] > stages["shade"]["clips"] == told["kept"]
    assert set(told["bytes_out"]) == {"phase 1 video", "phase 1 manifest", "video", "audio", "depth", "manifest"}

    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    planned = command(
        "plan", recipe, "--clips", 100_000, "--cluster", tmp_path / "cluster.yaml", "--profile", file, "--json"
    )
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["wall_s"]["p5"] <= plan["wall_s"]["median"] <= plan["wall_s"]["p95"]
    assert plan["cost"]["median"] > 0 < plan["storage_price_per_month"]
    assert plan["bottleneck"] == "CPU workers" and plan["one_more"]["large"]["saved_s"] > 0
    assert len(plan["shape"]["phase_ends"]) == 2
    assert "spot: 8 workers of the profiled size need" in " ".join(plan["notes"])

    shown = command("plan", recipe, "--clips", 1000, "--cluster", "1xcpu2", "--profile", file)
    assert "bottleneck: CPU workers" in shown.stdout


def test_what_cannot_be_planned_is_told_in_one_line(tmp_path: Path) -> None:
    recipe, file = write_recipe(tmp_path, [PAINT]), tmp_path / "profile.json"
    plan = ["plan", recipe, "--clips", 10, "--cluster", "1xcpu2", "--profile", file]
    absent = command(*plan)
    assert (absent.returncode, absent.stderr.count("\n")) == (2, 1)
    assert "`vidal profile` writes it" in absent.stderr
    file.write_text("{}")
    assert "not a profile of this version" in command(*plan).stderr
    assert command("profile", recipe, "--engine", "local", "--workers", 1, "--out", file).returncode == 0
    other = write_recipe(tmp_path, [PAINT, AUDIO])
    assert f"run `vidal profile {other}`" in command(*plan).stderr
