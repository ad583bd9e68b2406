"""Which changes of a recipe a resumed run takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vidal.errors import OutputError
from vidal.train import recipe as recipes
from vidal.train.run_folder import RunFolder, RunInfo

SIZES = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}
RECIPE: dict[str, Any] = {"text": {"model": "m"}, "towers": {"depth": {"sizes": SIZES}}, "batch_size": 8, "steps": 3}


def info(**changes: Any) -> RunInfo:
    recipe = recipes.check({**RECIPE, **changes}, "run.yaml").model_dump(mode="json")
    return RunInfo(recipe=recipe, where=None, data=[], encoder={})


def of_an_earlier_version() -> RunInfo:
    """As if these settings had not been there, and `compile` had been off by default."""
    written = info()
    for name in ("pairs_per_step", "init_from", "eval"):
        del written.recipe[name]
    written.recipe["compile"] = False
    return written


@pytest.mark.parametrize("changes", [
    {}, {"compile": True}, {"fsdp": True}, {"steps": 9}, {"optimiser": {"lr": 1e-5}}, {"data": {"workers": 5}},
    {"kept_chunks": 3},
])  # fmt: skip
@pytest.mark.parametrize("written", [info(), of_an_earlier_version()], ids=["now", "earlier"])
def test_a_resume_takes_what_changes_no_result_and_what_has_come_since(
    written: RunInfo, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(written, resume=False)
    folder.claim(info(**changes), resume=True)


@pytest.mark.parametrize(("changes", "said"), [
    ({"batch_size": 4}, "batch_size"), ({"precision": "bf16"}, "precision"), ({"steps": 2}, "steps"),
    ({"pairs_per_step": "all"}, "pairs_per_step"),
])  # fmt: skip
@pytest.mark.parametrize("written", [info(), of_an_earlier_version()], ids=["now", "earlier"])
def test_a_resume_refuses_what_changes_the_result(
    written: RunInfo, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(written, resume=False)
    with pytest.raises(OutputError, match=said):
        folder.claim(info(**changes), resume=True)


def test_a_setting_that_has_gone_is_named(tmp_path: Path) -> None:
    folder, written = RunFolder(tmp_path), info()
    written.recipe["text"]["precompute"] = True
    folder.claim(written, resume=False)
    with pytest.raises(OutputError, match=r"text\.precompute"):
        folder.claim(info(), resume=True)
