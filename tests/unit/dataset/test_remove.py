"""Take-down: what is named is in no plan, no shard and no loader, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs import PAINT, SAME_TITLE, SHADE, command, digests, rows, run, write_recipe
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
    "urls.txt": "3.mp4\nc005\n",
    "urls.CSV": "\ufeffreason, url\nasked, 3.mp4\nasked, 5.mp4\n",
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.csv", b"clip_id\n007\n"),
        ("ids.txt", b"007\n"),
        ("ids.jsonl", b'{"clip_id": "007"}\n'),
        ("ids.csv", b"url\n1e5\n"),
    ],
)
def test_ids_that_look_like_numbers_are_text(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("clip_id,url\n007,1e5\n7,100000\n1000,2\n")
    run(recipes.check({"source": {"list": str(tmp_path / "l.csv")}, "stages": [PAINT]}, "r"), tmp_path / "out",
        InProcessEngine())  # fmt: skip
    (tmp_path / name).write_bytes(content)
    result = remove(str(tmp_path / "out"), removals.load(tmp_path / name))
    assert (result.clip_ids, result.missing, result.is_proven) == (["007"], [], True)
    assert {clip for clip, row in rows(tmp_path / "out").items() if row["status"] == "kept"} == {"7", "1000"}


def test_numbers_of_a_parquet_list_name_ids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"platform_id": [7, None], "clip_id": [None, 8.0]}), tmp_path / "l.parquet")
    assert removals.load(tmp_path / "l.parquet").values == {"clip_id": {"8"}, "platform_id": {"7"}}


def test_what_is_named_and_nowhere_is_told_and_nothing_is_proven_of_it(built: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("clip_id,url\nc003,\nc0O5,\n,nowhere.mp4\n")
    given = ["remove", built, "--ids", tmp_path / "ids.csv"]
    done = command(*given, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["proven"], told["clip_ids"]) == (1, False, ["c003"])
    assert told["missing"] == ["c0O5", "nowhere.mp4"]
    assert rows(built)["c003"]["reason"] == "removed"
    again = command(*given)
    assert (again.returncode, again.stderr) == (1, "")
    assert f"not found in {built}: c0O5\nnot found in {built}: nowhere.mp4\n" in again.stdout
    allowed = command(*given, "--allow-missing", "--json")
    assert (allowed.returncode, json.loads(allowed.stdout)["missing"]) == (0, ["c0O5", "nowhere.mp4"])


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
    ("odd.csv", "name\nx\n", "names nothing; it needs one of the columns clip_id"),
    ("bad.jsonl", "{\n", r"bad\.jsonl: line 1 names nothing: not JSON"),
    ("half.csv", "clip_id,why\nc001,x\n,y\n", r"half\.csv: line 3 names nothing: no clip_id"),
    ("ragged.csv", "clip_id,why\nc001\n", r"line 2 names nothing: 1 cells, where the header has 2"),
    ("twice.csv", "clip_id, clip_id\na,b\n", "columns with the same name: clip_id"),
    ("bad.parquet", "PAR1", "not a readable parquet file"),
])  # fmt: skip
def test_a_bad_list_is_one_line(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=said):
        removals.load(tmp_path / name)
