"""A training run in an object store is killed, resumed elsewhere, evaluated and used like one on a disk."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load
from typer.testing import CliRunner

from tests import learned
from tests.conftest import ROOT
from tests.forks import Fork
from tests.sentence_models import sentence_model
from tests.store import s3_server
from vidal.commands import app
from vidal.dataset.storage import Storage
from vidal.train import load_encoder

BUCKET = "runs"
REMOTE = f"s3://{BUCKET}/of/mine"
RECIPE = learned.RECIPE | {
    "steps": 4, "checkpoints": {"every_steps": 2}, "data": {"workers": 0, "heldout": 0.3},
    "eval": {"every_steps": 2}, "log": {"tensorboard": True},
}  # fmt: skip
DIES = """
import os, signal, sys
from vidal.commands import main
from vidal.dataset.storage import Storage

upload, left = Storage.upload, [int(sys.argv.pop(1))]

def dying(*arguments):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    upload(*arguments)

Storage.upload = dying
main()
"""


def vidal(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server(BUCKET):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset, the recipe, and a local run."""
    folder = tmp_path_factory.mktemp("remote")
    learned.small_set(folder / "set")
    text = {"model": sentence_model(folder / "text"), "max_tokens": 16}
    (folder / "small.yaml").write_text(yaml.safe_dump(RECIPE | {"text": text}))
    vidal("train", folder / "small.yaml", "--data", folder / "set", "--out", folder / "run")
    return folder


@pytest.fixture(scope="module")
def resumed(server: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run whose machine died while its second checkpoint was uploaded, resumed on one that has nothing of it."""
    arguments = ["train", folder / "small.yaml", "--data", folder / "set", "--out", REMOTE]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDAL_CACHE", str(tmp_path_factory.mktemp("first")))
        # The three files of the first checkpoint, and one of the second.
        (folder / "dies.py").write_text(DIES)
        first = Fork(folder / "dies.py", "4", *arguments, cwd=ROOT).ended()
        assert first.returncode == -signal.SIGKILL, first.stderr
        assert Storage(f"{REMOTE}/checkpoints").names("000004") == ["model.safetensors"]
        assert load_encoder(REMOTE)
        patch.setenv("VIDAL_CACHE", str(tmp_path_factory.mktemp("second")))
        refused = CliRunner().invoke(app, [*map(str, arguments)])
        assert refused.exit_code != 0 and "already holds a run" in str(refused.exception)
        return vidal(*arguments, "--resume")


def test_it_goes_on_at_the_last_whole_checkpoint(resumed: dict[str, Any]) -> None:
    assert (resumed["out"], resumed["resumed_at"], resumed["steps"]) == (REMOTE, 2, 4)


def test_its_weights_are_bitwise_those_of_a_local_run(resumed: dict[str, Any], folder: Path) -> None:
    for step in ("000002", "000004"):
        for name in ("model.safetensors", "optimiser.safetensors"):
            path = f"checkpoints/{step}/{name}"
            ours, local = load(Storage(REMOTE).read(path)), load((folder / "run" / path).read_bytes())
            assert ours.keys() == local.keys() and all(torch.equal(ours[key], local[key]) for key in local), path


def test_its_other_files_are_those_of_a_local_run(resumed: dict[str, Any], folder: Path) -> None:
    store, run = Storage(REMOTE), folder / "run"
    assert store.names("") == ["checkpoints", "log.jsonl", "run.json", "split.parquet", "tensorboard"]
    for name in ("run.json", "split.parquet", "checkpoints/best.json"):
        assert store.read(name) == (run / name).read_bytes()
    logs = [
        [(line["event"], line.get("step"), line.get("loss"), line.get("R@1")) for line in map(json.loads, lines)]
        for lines in (store.read("log.jsonl").splitlines(), (run / "log.jsonl").read_bytes().splitlines())
    ]
    steps, local = ([line for line in lines if line[0] in ("step", "eval", "drawn")] for lines in logs)
    assert steps == local and len([line for line in steps if line[0] == "step"]) == 4


@pytest.mark.parametrize("checkpoint", ["", "@best", "@000002"])
def test_it_is_evaluated_like_a_local_run(checkpoint: str, resumed: dict[str, Any], folder: Path) -> None:
    ours, local = (vidal("eval", f"{run}{checkpoint}", "--data", folder / "set") for run in (REMOTE, folder / "run"))
    assert ours == local and ours["split"] == "held_out"


def test_its_encoder_embeds_and_is_exported(resumed: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    tables = []
    for name, run in (("ours", REMOTE), ("local", folder / "run")):
        vidal("embed", folder / "set", "--checkpoint", f"{run}@best", "--out", tmp_path / name)
        vidal("export-encoder", run, "--out", tmp_path / f"{name}-encoder")
        tables.append(pq.read_table(io.BytesIO((tmp_path / name / "000000.parquet").read_bytes())))
    assert tables[0].equals(tables[1])
    ours, local = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "ours-encoder", tmp_path / "local-encoder")
    )
    assert ours == local


def test_a_run_starts_from_it_and_the_same_command_again_does_nothing(
    resumed: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDAL_CACHE", str(tmp_path / "cache"))
    arguments = ["train", folder / "small.yaml", "--data", folder / "set"]
    lines = [
        vidal(*arguments, "--out", out, "--set", f"init_from={start}", "--set", "steps=1")["loss"]
        for out, start in ((f"s3://{BUCKET}/next", f"{REMOTE}@best"), (tmp_path / "next", folder / "run@best"))
    ]
    assert lines[0] == lines[1]
    assert vidal(*arguments, "--out", REMOTE, "--resume")["resumed_at"] == 4


def test_an_address_without_a_run_is_one_line(server: None) -> None:
    done = CliRunner().invoke(app, ["export-encoder", f"s3://{BUCKET}/nothing", "--out", "x"])
    assert str(done.exception) == f"s3://{BUCKET}/nothing: no training run there (no run.json)"
