"""Every command that changes a dataset writes as the owner of its lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from tests.runs import FEW_LETTERS, LETTERS, PAINT, SHADE, TROUBLE, run, write_list, write_recipe
from vidal.build import How, add, grow, retry
from vidal.dataset import lock
from vidal.dataset.removals import Removals
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.removal.remove import remove
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import drop


def test_every_command_writes_to_a_dataset_under_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfenced: list[str] = []
    fenced: list[str] = []

    def watch(method: str) -> None:
        inner = getattr(Storage, method)

        def watched(self: Storage, first: Any, *more: Any) -> Any:
            name = str(first if isinstance(first, str) else more[0])
            if not name.startswith(f"{lock.FOLDER}/"):
                (unfenced if self.fence is None else fenced).append(f"{self.address}/{name}")
            return inner(self, first, *more)

        monkeypatch.setattr(Storage, method, watched)

    stages = [LETTERS, {FEW_LETTERS: {"min": 1}}, {TROUBLE: {"marks": str(tmp_path)}}, PAINT]
    recipe = write_recipe(tmp_path, stages, ["a", "once gone", "abc", "abcd"])
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"stages": [SHADE]}))
    (tmp_path / "longer").mkdir()
    longer = f"list={write_list(tmp_path / 'longer', ['a', 'ab', 'abc', 'abcd', 'abcde'])}"
    out, how, console = str(tmp_path / "out"), How(engine="local", workers=0), Console(quiet=True)
    acts: dict[str, Callable[[], object]] = {
        "build": lambda: run(recipe, out, InProcessEngine()),
        "retry": lambda: retry(out, how, console, reasons=(), clip_ids=()),
        "add": lambda: add(tmp_path / "more.yaml", out, how, console, quiet=True),
        "grow": lambda: grow(out, [longer], how, console, quiet=True),
        "refilter": lambda: refilter(out, [f"{FEW_LETTERS}.min=2"]),
        "remove": lambda: remove(out, Removals({"clip_id": frozenset(["c002"])})),
        "drop": lambda: drop(out, 3),
    }
    for method in ("write", "create", "swap", "remove", "rename_temporary", "upload"):
        watch(method)
    for name, act in acts.items():
        fenced.clear()
        act()
        assert (unfenced, bool(fenced)) == ([], True), name
