"""Revisions by name: listing, opening and dropping them, and what is rejected because it would leave them behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

import vidal
from tests.processes import command
from tests.runs import FEW_LETTERS, LETTERS, PAINT, TROUBLE, run, write_recipe
from vidal.build import How, retry
from vidal.dataset import revisions
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, SourceError, StorageError
from vidal.revisions.refilter import refilter
from vidal.revisions.revise import drop, finished, listed, locked

TITLES = ["a", "ab", "abc", "abcd", "abcde", "abcdef"]
MIN = f"{FEW_LETTERS}.min"


@pytest.fixture
def revised(tmp_path: Path) -> Path:
    """A dataset of six clips, with two revisions of five and of three."""
    out = tmp_path / "out"
    run(write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], TITLES), out, InProcessEngine())
    for minimum in (2, 4):
        refilter(str(out), [f"{MIN}={minimum}"])
    return out


@pytest.mark.parametrize(("suffix", "clips"), [("", 3), ("@0", 6), ("@1", 5), ("@2", 3), ("/revisions/1", 5)])
def test_an_address_names_a_revision(revised: Path, suffix: str, clips: int) -> None:
    assert len(vidal.open(f"{revised}{suffix}")) == clips


def test_a_folder_whose_name_has_an_at_sign_is_opened_as_it_is(revised: Path) -> None:
    shutil.copytree(revised, revised.with_name("out@1"))
    assert len(vidal.open(f"{revised}@1")) == 3


@pytest.mark.parametrize(
    ("suffix", "what"),
    [("@7", "has no revision 7; revisions: 0, 1, 2"), ("x@1", "outx: no dataset there")],
)
def test_a_revision_that_is_not_there_is_named(revised: Path, suffix: str, what: str) -> None:
    with pytest.raises(SourceError, match=what):
        Dataset.open(f"{revised}{suffix}")


def test_a_revision_taken_out_of_its_dataset_says_so(revised: Path) -> None:
    shutil.copytree(revised / "revisions" / "1", revised.with_name("taken"))
    with pytest.raises(SourceError, match="is a copy of the folder revisions/1 of a dataset"):
        Dataset.open(str(revised.with_name("taken")))


def test_a_damaged_pointer_is_one_line(revised: Path) -> None:
    (revised / "revisions" / "current.json").write_text("{}")
    with pytest.raises(OutputError, match="does not name a revision; write"):
        Dataset.open(str(revised))


def test_dropping_the_current_revision_makes_the_newest_that_is_left_current(revised: Path) -> None:
    drop(str(revised), 2)
    assert [(line.number, line.is_current) for line in listed(str(revised))] == [(0, False), (1, True)]
    drop(str(revised), 1)
    assert len(vidal.open(revised)) == 6 and revisions.numbers(Storage(str(revised))) == []
    with pytest.raises(OutputError, match="has no revision 1 to drop; revisions: none"):
        drop(str(revised), 1)


def test_the_commands_list_tell_and_drop(revised: Path) -> None:
    done = command("revisions", revised)
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == ["0", "1", "2"]
    assert "(current)" in done.stdout.splitlines()[2] and f"--set {MIN}=4" in done.stdout
    assert f"revision 2, by vidal refilter --set {MIN}=4" in command("status", revised).stdout
    done = command("refilter", revised, "--set", f"{MIN}=3", "--dry-run")
    assert "4 clips kept, 3 before" in done.stdout and "nothing was written" in done.stdout
    assert "1  " not in command("revisions", revised, "--drop", "1").stdout.replace("revisions/1", "")


def test_a_retry_would_leave_revisions_behind_and_is_rejected(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        write_recipe(tmp_path, [TROUBLE, LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], ["abc", "gone"]),
        out,
        InProcessEngine(),
    )
    refilter(str(out), [f"{MIN}=2"])
    with pytest.raises(OutputError, match="has revisions 1, which vidal retry would leave behind; drop them first"):
        retry(str(out), How(engine="local", workers=0), Console(), reasons=[], quiet=True)


def test_a_revision_is_not_based_on_one_that_another_run_has_replaced_meanwhile(revised: Path) -> None:
    base, named = finished(str(revised)), finished(f"{revised}@2")
    refilter(str(revised), [f"{MIN}=5"])
    with pytest.raises(OutputError, match="revision 3 has become current meanwhile"), locked(base):
        pytest.fail("it would lack what revision 3 has")
    with locked(named):
        """Whoever names a revision means it."""


def test_a_retry_that_has_waited_while_a_revision_was_made_changes_nothing(revised: Path) -> None:
    recipe = revised.parent / "toys.yaml"
    with pytest.raises(OutputError, match="has revisions 1, 2, which vidal retry would leave behind"):
        run(recipe, revised, InProcessEngine(), retry={0: {"c000": 1}})


def test_a_reader_of_a_shard_that_is_taken_back_meanwhile_is_told_so(revised: Path) -> None:
    rows = Dataset.open(f"{revised}@0").rows()
    next(rows)
    Storage(str(revised)).remove("manifest/000001.parquet")
    with pytest.raises(StorageError, match="another run writes this shard anew"):
        list(rows)
