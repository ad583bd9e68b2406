"""What a run has used is written while it runs and however it ends, and read from wherever its runs wrote."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.processes import command
from tests.runs import PAINT, run, write_recipe
from vidal.dataset import usage
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.errors import MachineError, StorageError


def written(storage: Storage) -> list[usage.Counts]:
    return [json.loads(storage.read(f"usage/{name}")) for name in storage.names("usage")]


def test_counts_are_written_while_a_run_is_under_way_as_a_kill_gives_no_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_WRITE_EVERY_S", 0.02)
    storage, counts = Storage(str(tmp_path)), {"a": {"requests": 1.0}}
    with usage.recorded(storage, "fetch", lambda: dict(counts)):
        deadline = time.monotonic() + 20
        while not written(storage) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert written(storage) == [{"a": {"requests": 1}}]
        counts["a"] = {"requests": 2.0}
    assert written(storage) == [{"a": {"requests": 2}}], "one file a run"
    assert [name.rpartition("-")[2] for name in storage.names("usage")] == ["fetch.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MachineError, ValueError])
def test_a_run_that_fails_has_its_counts_written_and_its_own_error_told(
    tmp_path: Path, error: type[BaseException]
) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(error), usage.recorded(storage, "fetch", lambda: {"a": {"requests": 1}}):
        raise error("x")
    assert written(storage) == [{"a": {"requests": 1}}]


def fail() -> usage.Counts:
    raise StorageError("the cache is full")


def test_counts_that_cannot_be_had_end_a_run_but_hide_no_other_error(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(StorageError, match="the cache is full"), usage.recorded(storage, "fetch", fail):
        pass
    with pytest.raises(ValueError, match="first"), usage.recorded(storage, "fetch", fail):
        raise ValueError("first")


def test_a_run_that_used_nothing_writes_nothing(tmp_path: Path) -> None:
    with usage.recorded(Storage(str(tmp_path)), "fetch", dict):
        pass
    run(write_recipe(tmp_path, [PAINT]), tmp_path / "out", InProcessEngine())
    assert not (tmp_path / "usage").exists() and not (tmp_path / "out" / "usage").exists()


def test_a_revision_has_the_counts_of_all_runs_that_led_to_it(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, [PAINT]), tmp_path / "out", InProcessEngine())
    for number in (1, 2):
        (tmp_path / "more.csv").write_text(f"clip_id,url,title\nm{number},m{number}.mp4,more\n")
        how = ["--engine", "local", "--workers", "0", "--source", f"list={tmp_path / 'more.csv'}"]
        assert command("grow", tmp_path / "out", *how).returncode == 0
    places = {"": "built", "revisions/1/grown/": "first", "revisions/2/grown/": "second", "revisions/2/": "added"}
    for folder, name in places.items():
        Storage(str(tmp_path / "out")).write(f"{folder}usage/1.json", json.dumps({name: {}}).encode())
    for number, names in ((0, {"built"}), (1, {"built", "first"}), (2, set(places.values()))):
        dataset = Dataset.open(f"{tmp_path / 'out'}@{number}")
        assert {name for counts in usage.read(dataset) for name in counts} == names
