"""`kill -9` at any moment, then the same command: the bytes of a run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.processes import descendants, start_vidal, still_alive, vidal
from tests.runs import FEW_LETTERS, LETTERS, PAINT, ROOT, SAME_TITLE, SHADE, digests, run, write_list, write_recipe
from vidal.dataset.lock import run_under_way
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine

COST_S = 0.02
LOCAL = ["--engine", "local", "--workers", "2"]
RAY = ["--engine", "ray", "--workers", "2", "--set", "engine.object_store_bytes=104857600"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe of two phases, and what a run made of it that nobody disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    titles = [f"title {n % 30}" for n in range(40)]
    recipe = write_recipe(folder, [{PAINT: {"cost_s": COST_S}}, SAME_TITLE, SHADE], titles)
    run(recipe, folder / "out", InProcessEngine())
    return folder


def files_in(out: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(out))


def killed_after(process: subprocess.Popen[str], out: Path, files: int) -> list[psutil.Process]:
    """Kill the driver once so many files are there (or it has ended); gives the processes that it leaves."""
    while process.poll() is None and files_in(out) < files:
        time.sleep(0.005)
    left = descendants(process.pid)
    process.kill()
    process.communicate()
    return left


def kill_until_done(reference: Path, out: Path, engine: list[str], kills: int, seed: int) -> None:
    """Kill the driver at seeded moments, resume, finish in this process, and hold what comes out against the reference."""
    moments = random.Random(seed)
    command = ["build", reference / "toys.yaml", "--out", out, *engine]
    wanted = files_in(reference / "out")
    for _ in range(kills):
        left = killed_after(start_vidal(*command), out, files_in(out) + moments.randint(0, wanted // kills + 2))
        if engine is LOCAL:
            assert still_alive(left) == []
    run(reference / "toys.yaml", out, InProcessEngine())
    assert digests(out) == digests(reference / "out")


def test_a_driver_killed_three_times_leaves_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    kill_until_done(reference, tmp_path / "out", LOCAL, kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_a_driver_killed_many_times_leaves_the_same_bytes(reference: Path, tmp_path: Path, seed: int) -> None:
    kill_until_done(reference, tmp_path / "out", LOCAL, kills=5, seed=1 + seed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_driver_killed_on_ray_leaves_the_same_bytes_and_the_next_start_ends_what_it_left(
    reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["build", reference / "toys.yaml", "--out", out, *RAY]
    left = killed_after(start_vidal(*command), out, 12)
    done = vidal(*command, timeout=280)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(reference / "out")
    assert still_alive(left) == []


@pytest.mark.parametrize("engine", [LOCAL, RAY], ids=["local", "ray"])
def test_ctrl_c_ends_every_process_and_leaves_what_is_committed(
    engine: list[str], reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start_vidal("build", reference / "toys.yaml", "--out", out, *engine)
    try:
        while process.poll() is None and files_in(out / "phases" / "1" / "manifest") < 2:
            time.sleep(0.005)
        children = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (130, ""), stderr
    *progress, last = stderr.strip().splitlines()
    assert last == "vidal: interrupted; committed shards are kept, and the same command resumes from them"
    assert [line for line in progress if not line.startswith(("phase ", "planning "))] == []
    assert len(children) >= 2
    assert still_alive(children) == []
    committed = {name: digest for name, digest in digests(out / "phases" / "1").items() if "manifest/" in name}
    assert len(committed) >= 1
    assert run_under_way(Storage(str(out))) is None
    run(reference / "toys.yaml", out, InProcessEngine())
    assert digests(out) == digests(reference / "out")


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_driver_that_dies_at_any_write_sync_or_rename_leaves_a_run_that_can_be_finished(
    stride: int, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, [PAINT, SAME_TITLE, SHADE], ["one", "two"], shards={"size": 1})
    assert die_at_every_step("build", recipe, tmp_path, stride) > 60


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_quota_per_uploader_that_dies_at_any_write_sync_or_rename_can_be_finished(
    stride: int, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("url,title,uploader\na.mp4,one,ann\nb.mp4,two,ann\n")
    stages, source = [PAINT, {"per_uploader": {"max_clips": 1}}, SHADE], {"list": str(tmp_path / "list.csv")}
    recipe = write_recipe(tmp_path, stages, source=source, shards={"size": 1})
    assert die_at_every_step("build", recipe, tmp_path, stride) > 60


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("act", "least"), [("add", 60), ("grow", 60), ("refilter", 15)])
def test_a_revision_that_dies_at_any_write_sync_or_rename_is_seen_whole_or_not_at_all(
    act: str, least: int, stride: int, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], ["one", "two"], shards={"size": 1})
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"stages": [SAME_TITLE, SHADE]}))
    write_list(tmp_path, ["one", "two", "three"], "longer.csv")
    (tmp_path / "thresholds.txt").write_text(f"{FEW_LETTERS}.min=4")
    assert die_at_every_step(act, recipe, tmp_path, stride) > least


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_that_the_disk_fails_at_any_write_sync_or_rename_ends_in_one_line_and_can_be_finished(
    stride: int, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, [PAINT, SAME_TITLE, SHADE], ["one", "two"], shards={"size": 1})
    assert die_at_every_step("build", recipe, tmp_path, stride, "fails") > 60


def die_at_every_step(act: str, recipe: Path, folder: Path, stride: int, how: str = "dies") -> int:
    """How many steps on the disk there are, at each of which the run died once and no reader saw anything torn."""
    script = Path(__file__).with_name("die_at_every_step.py")
    (folder / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, str(script), act, str(recipe), str(folder), str(stride), how],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # What other processes leave in the common one would be swept, and so be steps.
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        timeout=290,
    )
    assert (done.returncode, done.stderr) == (0, "")
    steps, torn = map(int, done.stdout.split())
    assert torn == 0
    return steps
