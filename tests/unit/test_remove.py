"""Take-down: what is named is in no plan, no shard and no loader, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import PAINT, SAME_TITLE, SHADE, digests, rows, run, write_recipe
from vidal import recipe as recipes
from vidal.dataset import removals
from vidal.dataset.dataset import Dataset
from vidal.dataset.remove import remove
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError

FORMS = {
    "ids.txt": "# asked for on Monday\nc003\n\nc005\n",
    "ids.csv": "clip_id,reason\nc003,asked\nc005,asked\n",
    "ids.jsonl": '{"clip_id": "c003"}\n{"url": "5.mp4"}\n',
}


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def built(tmp_path: Path) -> Path:
    titles = [f"a secret title of {n}" if n in (3, 5) else f"clip {n}" for n in range(12)]
    run(write_recipe(tmp_path, [PAINT, SAME_TITLE, SHADE], titles), tmp_path / "out", InProcessEngine())
    return tmp_path / "out"


@pytest.mark.parametrize("name", FORMS)
def test_a_removal_rewrites_the_shards_concerned_and_no_other(name: str, built: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name])
    before, was = digests(built), rows(built)
    result = remove(str(built), removals.load(tmp_path / name))
    after, now = digests(built), rows(built)
    assert (result.clip_ids, result.is_proven) == (["c003", "c005"], True)
    concerned = {f"{was[clip_id]['shard']:06d}" for clip_id in ("c003", "c005")}
    changed = {file for file in before if after[file] != before[file] and "plan" not in file}
    assert changed and {Path(file).stem for file in changed} == concerned
    assert b"a secret title" not in everything_in(built) and b"c003.mp4" not in everything_in(built)
    for clip_id, row in now.items():
        gone = clip_id in ("c003", "c005")
        assert (row["reason"] == "removed") is gone
        assert gone or {**row, "members": None} == {**was[clip_id], "members": None}
    assert list(verify(Dataset.open(str(built)))) == []
    assert remove(str(built), removals.load(tmp_path / name)).clip_ids == []


def test_a_finished_run_that_is_run_again_leaves_the_removed_out(built: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("c003\n")
    remove(str(built), removals.load(tmp_path / "ids.txt"))
    (built / "manifest" / "000000.parquet").unlink()
    run(tmp_path / "toys.yaml", built, InProcessEngine())
    assert rows(built)["c003"]["reason"] == "removed"
    assert b"a secret title of 3" not in everything_in(built)


@pytest.mark.parametrize("key", ["clip_id", "url", "source_sha256"])
def test_a_list_in_the_recipe_is_applied_before_the_first_stage_and_at_the_commit(key: str, tmp_path: Path) -> None:
    named = {"clip_id": "c001", "url": "1.mp4", "source_sha256": "hash of 1.mp4"}[key]
    (tmp_path / "removals.jsonl").write_text(json.dumps({key: named}) + "\n")
    stages = ["tests.engine_toys:Hash", PAINT]
    path = write_recipe(tmp_path, stages, titles=4, removals="removals.jsonl")
    run(path, tmp_path / "out", InProcessEngine())
    found = rows(tmp_path / "out")
    assert (found["c001"]["status"], found["c001"]["reason"], found["c001"]["title"]) == ("rejected", "removed", None)
    assert found["c001"]["stage"] == ("pack" if key == "source_sha256" else "plan")
    assert sorted(c for c, row in found.items() if row["status"] == "kept") == ["c000", "c002", "c003"]
    with_list = recipes.load(path)
    assert recipes.fingerprint(with_list.resolved()) == recipes.fingerprint(
        recipes.load(write_recipe(tmp_path, stages, titles=4)).resolved()
    )


@pytest.mark.parametrize(("name", "text", "said"), [
    ("none.csv", None, "no such file"),
    ("odd.csv", "name\nx\n", "names nothing; it needs a column of clip_id"),
    ("bad.jsonl", "{\n", "cannot be read as a list of removals"),
])  # fmt: skip
def test_a_bad_list_is_one_line(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=said):
        removals.load(tmp_path / name)
