"""A full disk stops the run, is blamed on no clip, and leaves a run that can be finished."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import vidal
from tests.runs import PAINT, SHADE, digests, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.engine.job import Engine
from vidal.engine.local import InProcessEngine, PoolEngine
from vidal.errors import StorageError

SMALL_BYTES = 192 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 192 KiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)


@pytest.mark.parametrize("where", ["this process", "pool"])
def test_a_full_disk_stops_the_run_and_room_lets_it_finish(where: str, small_disk: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, [{PAINT: {"pixels": 64}}, SHADE], 20)
    engine: Engine = PoolEngine(2) if where == "pool" else InProcessEngine()
    run(recipe, tmp_path / "reference", InProcessEngine())
    wanted = digests(tmp_path / "reference")
    assert sum(path.stat().st_size for path in (tmp_path / "reference").rglob("*.tar")) > SMALL_BYTES

    out = small_disk / "out"
    with pytest.raises(StorageError, match=r"the disk is full; free some space and run the same command again"):
        run(recipe, out, engine)
    done = Dataset.open(str(out))
    assert 0 < len(done.committed()) < done.info.shards
    assert {row["status"] for row in done.rows(["status"])} == {"kept"}
    finished = {name: digest for name, digest in digests(out).items() if "manifest/" in name}
    assert finished.items() <= wanted.items()

    grow(small_disk)
    run(recipe, out, engine)
    assert digests(out) == wanted


def test_a_disk_that_is_full_from_the_start_is_one_line(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(SMALL_BYTES - 4096))
    recipe = write_recipe(tmp_path, [PAINT], 3)
    done = vidal("build", recipe, "--out", small_disk / "out", "--engine", "local", "--workers", "0")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "the disk is full; free some space and run the same command again" in done.stderr
