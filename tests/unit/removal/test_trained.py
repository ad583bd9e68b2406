"""Embeddings lose a removed clip, and a run that was named says which of its checkpoints were trained on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.learned import RECIPE, small_set
from tests.processes import command
from vidal.dataset.removals import Removals
from vidal.errors import SourceError
from vidal.removal.follow import follow
from vidal.retrieval.embed import embed
from vidal.retrieval.search import search
from vidal.train import recipe as recipes
from vidal.train.run import train
from vidal.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set, a run on 60 % of its clips, and the embeddings of all."""
    tmp_path = tmp_path_factory.mktemp("made")
    data = small_set(tmp_path / "set")
    recipe = recipes.check(RECIPE | {"data": {"workers": 0, "heldout": 0.4}}, "small.yaml")
    train(recipe, [data], str(tmp_path / "run"), Console(quiet=True), quiet=True, device="cpu")
    embed(data, str(tmp_path / "run"), str(tmp_path / "embeddings"), device="cpu")
    return tmp_path


def test_what_was_trained_on_it_is_named_and_its_embeddings_are_gone(made: Path, tmp_path: Path) -> None:
    address, made = made / "set", Path(shutil.copytree(made, tmp_path / "made"))
    split = RunFolder(made / "run").split()
    held, trained = (next(clip for clip, is_held in split.items() if is_held is wanted) for wanted in (True, False))
    (made / "asked.txt").write_text(f"{held}\n{trained}\n")
    before = {
        (r["clip_id"], r["modality"]): r["embedding"]
        for r in pq.read_table(made / "embeddings/000000.parquet").to_pylist()
    }
    run_before = {path: path.read_bytes() for path in (made / "run").rglob("*") if path.is_file()}
    done = command(
        "remove", made / "set", "--ids", made / "asked.txt", "--also", made / "run", "--also", made / "embeddings",
        "--certificate", made / "certificate.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"run: its data contained {trained}; checkpoints after steps: 2\n" in done.stdout
    (run,) = json.loads((made / "certificate.json").read_text())["checkpoints"]
    assert (run["clip_ids"], run["held_out"], run["checkpoints"], run["where"]) == ([trained], [held], [2], None)
    assert [(one["address"], one["revision"]) for one in run["data"]] == [(str(address), 0)]
    after = pq.read_table(made / "embeddings" / "000000.parquet")
    assert {(r["clip_id"], r["modality"]): r["embedding"] for r in after.to_pylist()} == {
        key: vector for key, vector in before.items() if key[0] not in (held, trained)
    }
    for path in (made / "embeddings").iterdir():
        assert held.encode() not in path.read_bytes() and trained.encode() not in path.read_bytes()
    assert len(search("a red car", str(made / "embeddings"), top=99)) == len(split) - 2
    assert run_before == {path: path.read_bytes() for path in run_before}


@pytest.mark.parametrize(("place", "what"), [("run", "a training run"), ("embeddings", "embeddings")])
def test_a_run_or_embeddings_of_another_dataset_are_refused(place: str, what: str, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "set", tmp_path / "other")
    info = json.loads((tmp_path / "other" / "dataset.json").read_text())
    (tmp_path / "other" / "dataset.json").write_text(json.dumps({**info, "fingerprint": "another"}))
    with pytest.raises(SourceError, match=rf"{place}: is {what} of another dataset"):
        follow(str(tmp_path / "other"), Removals({"clip_id": frozenset(["s"])}), also=[str(made / place)])
