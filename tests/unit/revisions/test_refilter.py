"""Other thresholds over stored numbers: the outcomes of a build with these settings, and no byte of media touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import vidal
from tests.runs import FEW_LETTERS, LETTERS, PAINT, RANK, SAME_TITLE, SHADE, digests, rows, run, write_recipe
from vidal import recipe as recipes
from vidal.dataset import revisions
from vidal.dataset.commit import revoke
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, RecipeError, StorageError
from vidal.export.export import write_joint
from vidal.revisions.refilter import NOT_PROCESSED, check_steps, refilter
from vidal.revisions.revise import finished, locked

TITLES = ["a", "ab", "abc", "abcd", "abcd", "abcde", "abcde", "abcdef", "abcdefg", "raises", "xy", "xy"]
STAGES = [LETTERS, {FEW_LETTERS: {"min": 2}}, PAINT, SAME_TITLE, RANK, SHADE]
MIN = f"{FEW_LETTERS}.min"
OUTCOME = ("status", "stage", "reason", "detail", "decided_value", "decided_limit", "duplicate_of", "cluster")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    run(write_recipe(tmp_path, STAGES, TITLES), tmp_path / "out", InProcessEngine())
    return tmp_path / "out"


def outcome(row: dict[str, object]) -> dict[str, object]:
    return {name: row[name] for name in OUTCOME}


def current(out: Path) -> dict[str, dict[str, object]]:
    return {row["clip_id"]: row for row in Dataset.open(str(out)).rows()}


@pytest.mark.parametrize("minimum", [3, 4, 6])
def test_a_stricter_filter_gives_the_outcomes_of_a_build_with_it(built: Path, tmp_path: Path, minimum: int) -> None:
    before = digests(built)
    result = refilter(str(built), [f"{MIN}={minimum}"])
    folder = tmp_path / "fresh"
    folder.mkdir()
    stages = [LETTERS, {FEW_LETTERS: {"min": minimum}}, *STAGES[2:]]
    run(write_recipe(folder, stages, TITLES), folder / "out", InProcessEngine())
    fresh = rows(folder / "out")
    assert {key: outcome(row) for key, row in current(built).items()} == {k: outcome(r) for k, r in fresh.items()}
    assert result.kept == sum(row["status"] == "kept" for row in fresh.values())
    assert not [*verify(Dataset.open(str(built))), *verify(Dataset.open(f"{built}@0"))]
    assert {name: digest for name, digest in digests(built).items() if name in before} == before
    assert not [name for name in digests(built) if name.endswith(".tar") and name not in before]


def test_a_clip_that_a_filter_rejected_for_good_says_that_it_was_never_processed(built: Path) -> None:
    result = refilter(str(built), [f"{MIN}=1"])
    row = next(row for row in current(built).values() if row["title"] == "a")
    assert (row["status"], row["stage"], row["reason"]) == ("rejected", "few_letters", NOT_PROCESSED)
    assert ("few_letters: few_letters", f"few_letters: {NOT_PROCESSED}", 1) in result.moves
    assert result.kept == result.kept_before


def test_loosening_a_refilter_brings_its_clips_back(built: Path) -> None:
    kept = {key for key, row in current(built).items() if row["status"] == "kept"}
    refilter(str(built), [f"{MIN}=6"])
    assert len(vidal.open(built)) < len(kept)
    result = refilter(str(built), [f"{MIN}=2"])
    assert {key for key, row in current(built).items() if row["status"] == "kept"} == kept
    assert (result.revision, result.kept_before, result.kept) == (2, len(vidal.open(f"{built}@1")), len(kept))
    assert Dataset.open(str(built)).info.revision_of == 0


def test_readers_read_the_current_revision_and_every_earlier_one(built: Path, tmp_path: Path) -> None:
    before = vidal.open(built)
    refilter(str(built), [f"{MIN}=6"])
    samples = vidal.open(built)
    assert samples.fingerprint != before.fingerprint == vidal.open(f"{built}@0").fingerprint
    assert samples[0]["depth"].shape == (2, 16, 16)
    table = pq.read_table(Dataset.open(str(built)).manifest_address)
    assert table.num_rows == len(TITLES)
    assert write_joint(Dataset.open(str(built)), str(tmp_path / "joint")).clips == len(samples)
    assert write_joint(Dataset.open(f"{built}@0"), str(tmp_path / "all")).clips == len(before)


def test_a_dry_run_tells_and_writes_nothing(built: Path) -> None:
    before = digests(built)
    result = refilter(str(built), [f"{MIN}=6"], dry_run=True)
    assert result.revision is None and result.kept < result.kept_before
    assert digests(built) == before


def test_the_same_thresholds_again_do_nothing(built: Path) -> None:
    refilter(str(built), [f"{MIN}=6"])
    before = digests(built)
    assert refilter(str(built), [f"{MIN}=6"]).revision is None
    assert digests(built) == before


def test_a_refilter_that_was_killed_goes_on_and_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    whole = refilter(str(built), [f"{MIN}=6"])
    bytes_of_it = digests(built)
    # As a kill before the second manifest leaves it.
    (built / "revisions" / "current.json").unlink()
    (built / "revisions" / "1" / "manifest" / "000001.parquet").unlink()
    assert len(vidal.open(built)) == whole.kept_before
    with pytest.raises(OutputError, match=r"revision 1 was begun by vidal refilter .*min=6 and is not finished"):
        refilter(str(built), [f"{MIN}=5"])
    refilter(str(built), [f"{MIN}=6"])
    assert digests(built) == bytes_of_it


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        (f"{PAINT}.pixels=8", "paint writes columns or layers: refilter applies other thresholds to stored numbers"),
        ("shards.size=2", "refilter changes only settings of stages"),
        ("too_long.max_s=2", "the recipe has no stage `too_long`"),
        (f"{MIN}=many", "valid integer"),
    ],
)
def test_what_needs_more_than_stored_numbers_is_rejected(built: Path, setting: str, what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        refilter(str(built), [setting])
    assert revisions.numbers(Storage(str(built))) == []


def test_an_unfinished_dataset_is_not_revised(built: Path) -> None:
    (built / "manifest" / "000001.parquet").unlink()
    with pytest.raises(OutputError, match="not complete yet"):
        refilter(str(built), [f"{MIN}=6"])


def test_a_dataset_is_built_from_a_revision(built: Path, tmp_path: Path) -> None:
    refilter(str(built), [f"{MIN}=6"])
    folder = tmp_path / "next"
    folder.mkdir()
    path = write_recipe(folder, ["tests.engine_toys:Hash"], 1)
    for address, kept in ((built, len(vidal.open(built))), (f"{built}@0", len(vidal.open(f"{built}@0")))):
        recipe = recipes.load(path, [f"source.dataset={address}"])
        out = folder / f"out{kept}"
        run(recipe, out, InProcessEngine())
        assert len(vidal.open(out)) == kept
        assert not list(verify(Dataset.open(str(out))))


def test_a_shard_that_another_run_writes_anew_meanwhile_is_one_line(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*given: Any) -> list[int]:
        revoke(Storage(str(built)), 1)
        return check_steps(*given)

    monkeypatch.setattr("vidal.revisions.refilter.check_steps", meanwhile)
    with pytest.raises(StorageError, match=r"manifest/000001.parquet: another run writes this shard anew; try again"):
        refilter(str(built), [f"{MIN}=3"], dry_run=True)


def test_a_dataset_that_is_incomplete_by_the_time_of_the_lock_is_not_revised(built: Path) -> None:
    """As a retry leaves it that has died meanwhile."""
    base = finished(str(built))
    revoke(Storage(str(built)), 1)
    with pytest.raises(OutputError, match="not complete yet"), locked(base):
        pass
