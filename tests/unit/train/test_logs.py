"""Every step stands once in ``log.jsonl``, as JSON that any reader takes, whatever became of the run before."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vidal.errors import RecipeError, StorageError
from vidal.train.logs import WANDB, RunLog

NUMBERS = {"pair": "text-depth", "loss": 1.5, "samples_per_s": 20.0, "data_share": 0.25, "lr": 1e-4, "mfu": None}


def log(folder: Path, start: int = 0, total: int = 6, **keys: Any) -> RunLog:
    return RunLog(
        folder, keys.pop("console", Console(quiet=True)), total_steps=total, start_step=start, every_steps=1, **keys
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_has_each_step_and_its_events_once(tmp_path: Path) -> None:
    with log(tmp_path) as first:
        for step in range(5):
            first.step({"step": step, **NUMBERS})
            first.event("broken", {"step": step, "clip_id": f"clip {step}"})
    with log(tmp_path, start=3) as second:
        for step in range(3, 6):
            second.step({"step": step, **NUMBERS})
    assert [line["step"] for line in lines(tmp_path) if line["event"] == "step"] == list(range(6))
    assert [line["step"] for line in lines(tmp_path) if line["event"] == "broken"] == [0, 1, 2]


def test_a_step_of_several_pairs_is_told_and_plotted_pair_by_pair(tmp_path: Path) -> None:
    losses, scales = {"text-depth": 1.0, "depth-audio": 0.5}, {"text-depth": 14.0, "depth-audio": 15.0}
    console = Console(file=io.StringIO(), width=200)
    with log(tmp_path, total=1, console=console, tensorboard=True) as run:
        run.step({"step": 0, **NUMBERS, "pair": "text-depth+depth-audio", "losses": losses, "scales": scales})
    assert "step 1/1 text-depth 1.0000 depth-audio 0.5000 loss 1.5000" in console.file.getvalue()  # type: ignore[attr-defined]
    assert lines(tmp_path)[0]["losses"] == losses
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name, value in {"loss": 1.5, **{f"loss/{p}": x for p, x in losses.items()},
                        **{f"scale/{p}": x for p, x in scales.items()}}.items():  # fmt: skip
        assert [point.value for point in events.Scalars(name)] == [value]


@pytest.mark.parametrize("torn", [b'{"event": "step", "st', b"\xff\xfe\x00", b"[1]", b'{"step": null}', b"7", b""])
def test_a_line_that_was_not_finished_is_dropped(torn: bytes, tmp_path: Path) -> None:
    with log(tmp_path) as first:
        first.step({"step": 0, **NUMBERS})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(torn)
    with log(tmp_path, start=1) as second:
        second.step({"step": 1, **NUMBERS})
    assert [line["step"] for line in lines(tmp_path)] == [0, 1]


@pytest.mark.parametrize(("value", "wanted"), [
    (float("nan"), None), (float("inf"), None), (np.float32("nan"), None), (torch.tensor(-float("inf")), None),
    (np.float32(0.5), 0.5), (torch.tensor(3), 3), (np.bool_(True), True), ([float("nan"), 1.0], [None, 1.0]),
    ({"a": float("inf")}, {"a": None}), ("text", "text"),
])  # fmt: skip
def test_numbers_that_are_none_stand_as_null_and_the_event_stays(value: Any, wanted: Any, tmp_path: Path) -> None:
    with log(tmp_path) as one:
        one.event("not_finite", {"step": 0, "loss": value})
    assert lines(tmp_path) == [{"event": "not_finite", "step": 0, "loss": wanted}]


def test_a_line_is_on_disk_as_soon_as_its_step_is_done(tmp_path: Path) -> None:
    with log(tmp_path) as one:
        one.step({"step": 0, **NUMBERS})
        assert [line["step"] for line in lines(tmp_path)] == [0]


@pytest.mark.parametrize(
    ("quiet", "is_terminal", "said"), [(False, False, True), (False, True, True), (True, True, False)]
)
def test_it_speaks_where_it_may(quiet: bool, is_terminal: bool, said: bool, tmp_path: Path) -> None:
    heard = io.StringIO()
    with log(tmp_path, total=1, quiet=quiet, console=Console(file=heard, force_terminal=is_terminal, width=160)) as one:
        one.step({"step": 0, **NUMBERS, "mfu": 0.37})
    for word in ("step 1/1", "loss 1.5000", "20.0 samples/s", "data 25%", "lr 1.00e-04", "MFU 37.0%"):
        assert (word in heard.getvalue()) is said, word


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path: Path) -> None:
    for start, last in ((0, 5), (3, 6)):
        with log(tmp_path, start=start, tensorboard=True) as one:
            for step in range(start, last):
                one.step({"step": step, **NUMBERS, "loss": float(10 * start + step)})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(0, 0), (1, 1), (2, 2), (3, 33), (4, 34), (5, 35)]


def test_wandb_that_is_wanted_and_missing_is_one_line_and_cuts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log(tmp_path) as one:
        one.step({"step": 0, **NUMBERS})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        RecipeError, match=r"^log.wandb: package wandb is not installed; run `pip install wandb`[^\n]*$"
    ):
        log(tmp_path, wandb="project")
    assert [line["step"] for line in lines(tmp_path)] == [0]


def test_a_resumed_run_goes_on_in_its_run_at_wandb_with_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package, which writes to the disk what it would send."""
    wandb = pytest.importorskip("wandb", reason="a package of the caller's own")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for start, lr in ((0, 1.0), (1, 0.5)):
        with log(tmp_path, start=start, wandb="project", recipe={"batch_size": 8, "optimiser": {"lr": lr}}) as one:
            one.step({"step": start, **NUMBERS})
    wandb.teardown()
    written = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert {path.stem for path in written} == {f"run-{json.loads((tmp_path / WANDB).read_bytes())['id']}"}
    assert any(b"batch_size" in path.read_bytes() and b'{"lr":0.5}' in path.read_bytes() for path in written)


def test_an_id_at_wandb_is_given_once_and_asked_for_at_each_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds the arguments only: whether the server goes on in its run is W&B's part."""
    asked: list[dict[str, Any]] = []

    def init(**keys: Any) -> SimpleNamespace:
        asked.append(keys)
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    for folder, start in (("a", 0), ("a", 3), ("b", 0)):
        (tmp_path / folder).mkdir(exist_ok=True)
        with log(tmp_path / folder, start=start, wandb="project", recipe={"steps": 6}):
            pass
    assert asked[0]["id"] == asked[1]["id"] != asked[2]["id"]
    assert all(a["resume"] == "allow" and a["config"] == {"steps": 6} and a["project"] == "project" for a in asked)


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    one = log(tmp_path)
    one._file.close()
    one._file = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115  # noqa: SIM115
    with pytest.raises(StorageError, match=r"log.jsonl: the disk is full[^\n]*$"):
        one.step({"step": 0, **NUMBERS})
