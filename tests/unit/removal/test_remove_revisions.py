"""Taking clips out of a dataset with revisions: they are gone from every one of them, and every one stays whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from rich.console import Console

import vidal
from tests.runs import FEW_LETTERS, LETTERS, PAINT, SHADE, digests, run, write_list, write_recipe
from vidal.build import How, add, grow
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.removal import remove as removing
from vidal.removal.remove import remove
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import listed

OLD, NEW = ["a", "ab", "abc", "abcd", "abcde"], ["xyz", "xyza"]
HOW = How(engine="local", workers=0)
REMOVED = frozenset(["c002", "c005"])


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    """Built, depth added, grown, and refiltered: three revisions, of five and then of seven clips."""
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], OLD), out, InProcessEngine())
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({"stages": [SHADE]}))
    add(more, str(out), HOW, Console(), quiet=True)
    (tmp_path / "longer").mkdir()
    grow(str(out), [f"list={write_list(tmp_path / 'longer', [*OLD, *NEW])}"], HOW, Console(), quiet=True)
    refilter(str(out), [f"{FEW_LETTERS}.min=3"])
    return out


def problems(out: Path) -> list[str]:
    numbers = [line.number for line in listed(str(out))]
    return [f"{n}: {problem}" for n in numbers for problem in verify(Dataset.open(f"{out}@{n}"))]


def holding(out: Path, text: bytes) -> list[str]:
    return [str(path.relative_to(out)) for path in out.rglob("*.tar") if text in path.read_bytes()]


def test_a_removed_clip_is_gone_from_every_revision(revised: Path) -> None:
    assert holding(revised, b"c002.json") and holding(revised, b"c005.json") and problems(revised) == []
    result = remove(str(revised), Removals({"clip_id": REMOVED}))
    assert result.is_proven and result.clip_ids == sorted(REMOVED)
    assert problems(revised) == [] and holding(revised, b"c002.") == holding(revised, b"c005.") == []
    for number, clips in ((0, 4), (1, 4), (2, 5), (3, 3)):
        samples = vidal.open(f"{revised}@{number}")
        assert len(samples) == clips, number
        assert all(samples[i]["video"].size for i in range(clips))
        rows = {row["clip_id"]: row for row in Dataset.open(f"{revised}@{number}").rows()}
        assert {rows[name]["reason"] for name in REMOVED & rows.keys()} == {"removed"}
        assert not any(rows[name]["members"] for name in REMOVED & rows.keys())


def test_a_removal_that_died_is_finished_by_the_same_command(revised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(revision: Dataset) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removing, "_update_members", die)
        with pytest.raises(KeyboardInterrupt):
            remove(str(revised), Removals({"clip_id": REMOVED}))
    assert remove(str(revised), Removals({"clip_id": REMOVED})).is_proven
    assert problems(revised) == [] and len(vidal.open(revised)) == 3


def test_removing_again_changes_no_byte(revised: Path) -> None:
    remove(str(revised), Removals({"clip_id": REMOVED}))
    before = digests(revised)
    assert remove(str(revised), Removals({"clip_id": REMOVED})).is_proven
    assert digests(revised) == before
