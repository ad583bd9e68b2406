"""A writer that dies at any call, a disk that fills, files that are torn: a whole checkpoint is always found."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vidal.errors import StorageError, VidalWarning
from vidal.train import checkpoint as module
from vidal.train.checkpoint import Checkpoints

SMALL = {"w": torch.arange(6.0)}
FILES = ("model.safetensors", "optimiser.safetensors", "sums.json")


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "run", keep_last=2)
    for step in (10, 20):
        checkpoints.save(step, SMALL, SMALL)
    return checkpoints


@pytest.mark.parametrize("name", FILES)
def test_torn_at_any_length_and_flipped_at_any_byte_the_earlier_one_is_loaded(name: str, two: Checkpoints) -> None:
    path = two.folder / "000020" / name
    whole = path.read_bytes()
    places = range(0, len(whole), max(1, len(whole) // 40))
    torn = [whole[:n] for n in places] + [whole[:n] + bytes([whole[n] ^ 0x11]) + whole[n + 1 :] for n in places]
    for harmed in [*torn, whole[:-1], whole + b"\n" if name != "sums.json" else b"{}", bytes(len(whole))]:
        path.write_bytes(harmed)
        with pytest.warns(VidalWarning, match="000020: .*; skipped in favour of an earlier checkpoint"):
            latest = two.latest()
        assert latest is not None and latest.step == 10
    path.write_bytes(whole)
    latest = two.latest()
    assert latest is not None and latest.step == 20


@pytest.mark.parametrize("step", [20, 30])
def test_killed_before_any_call_of_a_save_there_is_a_whole_one(
    step: int, two: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`step` 20 is there already, and is written again."""
    backup = two.folder.parent.with_name("backup")
    shutil.copytree(two.folder.parent, backup)
    kills = 0
    while True:
        shutil.rmtree(two.folder.parent)
        shutil.copytree(backup, two.folder.parent)
        child = os.fork()
        if child == 0:
            left = [kills]

            def dying(real, left=left):  # type: ignore[no-untyped-def]
                def call(*arguments, **keys):  # type: ignore[no-untyped-def]
                    if left[0] == 0:
                        os._exit(9)
                    left[0] -= 1
                    return real(*arguments, **keys)

                return call

            monkeypatch.setattr(module.os, "fsync", dying(os.fsync))
            monkeypatch.setattr(module.os, "replace", dying(os.replace))
            monkeypatch.setattr(module.shutil, "rmtree", dying(shutil.rmtree))
            two.save(step, {"w": SMALL["w"] + 1}, SMALL)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        latest = two.latest()
        assert latest is not None and latest.step in (10, 20, step), kills
        assert torch.equal(latest.optimiser()["w"], SMALL["w"])
        two.save(40, SMALL, SMALL)
        assert not [name for name in names(two) if name.startswith(".")], kills
        if code == 0:
            break
        kills += 1
    assert kills >= 7


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("which", ["model", "optimiser"])
def test_a_full_disk_is_one_line_and_the_earlier_one_is_whole(which: str, small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk, keep_last=2)
    checkpoints.save(10, SMALL, SMALL)
    large = {"w": torch.zeros(60_000)}
    with pytest.raises(StorageError, match=r"checkpoints/000020: the disk is full[^\n]*$"):
        checkpoints.save(20, large if which == "model" else SMALL, large if which == "optimiser" else SMALL)
    assert names(checkpoints) == ["000010"]
    latest = checkpoints.latest()
    assert latest is not None and torch.equal(latest.model()["w"], SMALL["w"])
    checkpoints.save(20, SMALL, SMALL)
    assert names(checkpoints) == ["000010", "000020"]


def test_what_was_just_written_is_not_dropped_for_damaged_ones_of_later_steps(two: Checkpoints) -> None:
    for step in (30, 40):
        two.save(step, SMALL, SMALL)
    for step in (30, 40):
        (two.folder / f"{step:06d}" / "sums.json").write_text("torn")
    two.save(25, SMALL, SMALL)
    with pytest.warns(VidalWarning, match="skipped in favour"):
        latest = two.latest()
    assert latest is not None and latest.step == 25


def test_a_millionth_step_is_newer_than_the_one_before(two: Checkpoints) -> None:
    for step in (999_998, 999_999, 1_000_000):
        two.save(step, SMALL, SMALL)
    latest = two.latest()
    assert latest is not None and latest.step == 1_000_000
    assert names(two) == ["1000000", "999999"]


def test_a_file_that_cannot_be_read_is_named(two: Checkpoints) -> None:
    model = two.folder / "000020" / "model.safetensors"
    model.unlink()
    model.mkdir()
    with pytest.warns(VidalWarning, match=r"000020: model.safetensors cannot be read \(Is a directory\)"):
        latest = two.latest()
    assert latest is not None and latest.step == 10
