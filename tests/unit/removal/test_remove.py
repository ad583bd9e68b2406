"""Take-down: what is named is in no plan, no shard and no loader, and nothing else changes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

from tests.processes import command
from tests.runs import (
    CAPTION,
    FEW_LETTERS,
    LETTERS,
    PAINT,
    SAME_TITLE,
    SHADE,
    digests,
    rows,
    run,
    write_list,
    write_recipe,
)
from vidal import recipe as recipes
from vidal.build import How, add, build, grow
from vidal.dataset import flags, removals
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, SourceError
from vidal.removal import remove as remove_module
from vidal.removal.follow import follow, selected
from vidal.removal.remove import remove
from vidal.revisions.refilter import refilter

FORMS = {
    "ids.txt": "# asked for on Monday\nc003\n\nc005\n",
    "ids.csv": "clip_id,reason\nc003,asked\nc005,asked\n",
    "ids.jsonl": '{"clip_id": "c003"}\n{"url": "5.mp4"}\n',
    "urls.txt": "3.mp4\nc005\n",
    "urls.CSV": "\ufeffreason, url\nasked, 3.mp4\nasked, 5.mp4\n",
}


def everything_in(folder: Path) -> bytes:
    """Every byte of every file, tables decoded as well as packed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    tables = (str(pq.read_table(path).to_pylist()).encode() for path in files if path.suffix == ".parquet")
    return b"".join([*(path.read_bytes() for path in files), *tables])


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


def flagged(built: Path, **clips: str) -> None:
    writer = flags.FlagWriter(Dataset.open(str(built)).storage)
    for clip_id, flag in clips.items():
        writer.write(clip_id, flag)


def test_flagged_clips_are_removed_by_a_condition(built: Path) -> None:
    flagged(built, c003="remove", c005="remove", c007="unsafe")
    done = command("remove", built, "--where", "flag_remove")
    assert done.returncode == 0 and done.stdout.startswith("removed 2 clips from"), done.stderr
    assert {clip_id for clip_id, row in rows(built).items() if row["reason"] == "removed"} == {"c003", "c005"}
    assert b"a secret title" not in everything_in(built)
    again = command("remove", built, "--where", "flag_remove")
    assert (again.returncode, again.stderr) == (2, f"vidal: {built}: --where flag_remove: no clip meets it\n")


def test_a_removal_by_a_condition_that_died_is_finished_though_nothing_meets_it_any_more(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flagged(built, c003="remove", c005="remove")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # After the flags are gone, and before any row is.
        patch.setattr(remove_module, "_remove_from", die)
        with pytest.raises(KeyboardInterrupt):
            follow(str(built), selected(str(built), "flag_remove"))
    assert not flags.current(Dataset.open(str(built)).storage)["remove"]
    assert rows(built)["c003"]["reason"] != "removed"
    follow(str(built), selected(str(built), "flag_remove"))
    assert {clip_id for clip_id, row in rows(built).items() if row["reason"] == "removed"} == {"c003", "c005"}
    assert not (built / ".removal.json").exists()


@pytest.mark.parametrize("words", [[], ["--ids", "ids.txt", "--where", "flag_remove"]], ids=len)
def test_clips_are_named_in_one_way(built: Path, words: list[str]) -> None:
    done = command("remove", built, *words)
    told = "vidal: no clips named; use --ids FILE or --where CONDITION\n"
    assert (done.returncode, done.stderr) == (2, told)


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


@pytest.mark.parametrize("does_rewrite", [True, False])
def test_what_is_left_of_a_clip_is_not_what_is_like_its_id(
    does_rewrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "l.csv").write_text("clip_id,url,title\n007,1.mp4,at 7.5 metres\n7,2.mp4,x\n")
    run(recipes.check({"source": {"list": str(tmp_path / "l.csv")}, "stages": [PAINT]}, "r"), tmp_path / "out",
        InProcessEngine())  # fmt: skip
    if not does_rewrite:
        monkeypatch.setattr("vidal.removal.remove._rewrite", lambda dataset, shard, ids: None)
    result = remove(str(tmp_path / "out"), Removals({"clip_id": frozenset(["7"])}))
    assert (result.clip_ids, result.is_proven, bool(result.remains)) == (["7"], does_rewrite, not does_rewrite)


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


@pytest.mark.parametrize(("listed", "missing"), [
    ([{"clip_id": "c001"}, {"url": "2.mp4"}, {"source_sha256": "hash of 3.mp4"}], ""),
    ([{"clip_id": "ghost"}, {"clip_id": "c001"}, {"url": "9.mp4"}, {"source_sha256": "ab"}], "9.mp4, ab, ghost"),
    # Whose the removed clip was is kept nowhere, so nobody can say that it was not theirs.
    ([{"clip_id": "ghost"}, {"clip_id": "c001"}, {"uploader": "somebody"}], "ghost"),
    ([{"clip_id": "ghost"}, {"uploader": "somebody"}], "ghost, somebody"),
])  # fmt: skip
def test_what_a_recipe_removes_and_nothing_matches_is_a_note(
    listed: list[dict[str, str]], missing: str, tmp_path: Path
) -> None:
    (tmp_path / "removals.jsonl").write_text("\n".join(map(json.dumps, listed)))
    path = write_recipe(tmp_path, ["tests.engine_toys:Hash", PAINT], titles=4, removals="removals.jsonl")
    out = str(tmp_path / "out")
    console = Console(record=True, file=io.StringIO(), width=500)
    notes = build(recipes.load(path), out, How(engine="local", workers=0), console).notes
    assert notes == ([f"removals: not found in {out}: {missing}"] if missing else [])
    assert "\n".join(notes) in console.export_text()
    assert Dataset.open(out).plan.notes == []


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


HASH = "tests.engine_toys:Hash"
HOW = How(engine="local", workers=0)


def reasons(address: Path | str) -> dict[str, str | None]:
    return {row["clip_id"]: row["reason"] for row in Dataset.open(str(address)).rows()}


def remembering(tmp_path: Path, stages: list[Any], *listed: str) -> tuple[Path, Path]:
    """A dataset of four clips, and the list of removals that its recipe names, which has got longer since."""
    named = tmp_path / "removals.txt"
    named.write_text("# nobody yet\n")
    run(write_recipe(tmp_path, stages, titles=4, removals="removals.txt"), tmp_path / "out", InProcessEngine())
    named.write_text("".join(f"{name}\n" for name in listed))
    return tmp_path / "out", named


def test_what_is_built_from_a_dataset_leaves_out_what_its_list_names_and_remembers_the_list(tmp_path: Path) -> None:
    out, named = remembering(tmp_path, [PAINT], "c001", "2.mp4")
    recipe = {"source": {"dataset": str(out)}, "stages": [SHADE]}
    run(recipes.check(recipe, "r"), tmp_path / "next", InProcessEngine())
    assert reasons(tmp_path / "next") == {"c000": None, "c001": "removed", "c002": "removed", "c003": None}
    assert Dataset.open(str(tmp_path / "next")).info.definition["removals"] == str(named)
    named.rename(tmp_path / "other.txt")
    again = {"source": {"dataset": str(tmp_path / "next")}, "stages": [CAPTION]}
    with pytest.raises(SourceError, match=r"removals.txt: no such file; it lists what .*next may not contain"):
        recipes.check(again, "r")
    assert recipes.check({**again, "removals": str(tmp_path / "other.txt")}, "r").removals


def test_a_revision_is_made_of_no_clip_that_the_list_names(tmp_path: Path) -> None:
    out, named = remembering(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, PAINT], "c001")
    more, listed = tmp_path / "more.yaml", write_list(tmp_path, ["a"] * 5)
    more.write_text(yaml.safe_dump({"stages": [SHADE]}))
    revisions: list[Callable[[], object]] = [
        lambda: refilter(str(out), [f"{FEW_LETTERS}.min=2"]),
        lambda: add(more, str(out), HOW, Console(), quiet=True),
        lambda: grow(str(out), [f"list={listed}"], HOW, Console(), quiet=True),
    ]
    before = digests(out)
    for revise in revisions:
        with pytest.raises(OutputError, match=rf"has 1 clip\(s\) that .*vidal remove {out} .*--ids {named}"):
            revise()
    assert digests(out) == before
    remove(str(out), removals.load(named))
    named.write_text("c001\nc004\n")
    for revise in revisions:
        revise()
    assert reasons(out) == {"c000": None, "c001": "removed", "c002": None, "c003": None, "c004": "removed"}
    assert list(verify(Dataset.open(str(out)))) == []
    # A list of its own takes the place of the remembered one, from its folder on.
    (tmp_path / "other.txt").write_text("c003\n")
    more.write_text(yaml.safe_dump({"removals": "other.txt", "stages": [CAPTION]}))
    with pytest.raises(OutputError, match=r"other\.txt names"):
        add(more, str(out), HOW, Console(), quiet=True)


def test_a_merge_leaves_out_what_the_list_of_any_of_its_datasets_names_and_what_was_removed_from_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _ = remembering(tmp_path / "a", [HASH, PAINT], "c000")
    # The same files by other names.
    listed = tmp_path / "b" / "l.csv"
    listed.write_text("clip_id,url\n" + "".join(f"d{n},{n}.mp4\n" for n in range(4)))
    run(recipes.check({"source": {"list": str(listed)}, "stages": [HASH, PAINT]}, "r"), tmp_path / "b" / "out",
        InProcessEngine())  # fmt: skip
    remove(str(first), Removals({"clip_id": frozenset(["c002"])}))
    merge = {"source": {"datasets": [str(first), str(tmp_path / "b" / "out")]}, "stages": []}
    run(recipes.check(merge, "r"), tmp_path / "both", InProcessEngine())
    kept = {clip for clip, reason in reasons(tmp_path / "both").items() if reason is None}
    assert kept == {"c001", "c003", "d0", "d1", "d3"}, "c000 is listed, c002 removed, d2 the same file"


def test_a_growth_or_a_retry_refuses_the_file_of_a_removed_clip_at_another_address(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, [HASH, PAINT], ["a", "b"]), tmp_path / "out", InProcessEngine())
    remove(str(tmp_path / "out"), Removals({"clip_id": frozenset(["c001"])}))
    listed = tmp_path / "more.csv"
    listed.write_text("clip_id,url\nc001,1.mp4\nnew,2.mp4\nagain,1.mp4\n")
    grow(str(tmp_path / "out"), [f"list={listed}"], HOW, Console(), quiet=True)
    assert reasons(tmp_path / "out") == {"c000": None, "c001": "removed", "new": None, "again": "removed"}


def test_other_thresholds_leave_a_clip_alone_that_was_removed_when_it_was_packed(tmp_path: Path) -> None:
    write_recipe(tmp_path, [LETTERS, {FEW_LETTERS: {"min": 1}}, HASH, PAINT], titles=4)
    (tmp_path / "removals.jsonl").write_text('{"source_sha256": "hash of 1.mp4"}\n')
    run(recipes.load(tmp_path / "toys.yaml", [f"removals={tmp_path / 'removals.jsonl'}"]), tmp_path / "two",
        InProcessEngine())  # fmt: skip
    assert refilter(str(tmp_path / "two"), [f"{FEW_LETTERS}.min=2"]).moves == []
    assert reasons(tmp_path / "two") == {"c000": None, "c001": "removed", "c002": None, "c003": None}


def test_an_address_that_a_list_names_twice_is_gone_with_its_clip_and_so_is_a_shard_that_was_not_committed(
    tmp_path: Path,
) -> None:
    listed = tmp_path / "l.csv"
    listed.write_text("url,title\nsecret.mp4,a\nb.mp4,b\nsecret.mp4,c\n")
    recipe = {"source": {"list": str(listed)}, "shards": {"size": 1}, "stages": [PAINT]}
    run(recipes.check(recipe, "r"), tmp_path / "out", InProcessEngine())
    clip = next(row for row in rows(tmp_path / "out").values() if row["title"] == "a")
    # As a kill between the tars and the manifest leaves it.
    (tmp_path / "out" / "manifest" / f"{clip['shard']:06d}.parquet").unlink()
    (tmp_path / "out" / "manifest" / ".000007.parquet.host.1.tmp").write_bytes(b"secret.mp4")
    result = remove(str(tmp_path / "out"), Removals({"clip_id": frozenset([clip["clip_id"]])}))
    assert result.is_proven and b"secret.mp4" not in everything_in(tmp_path / "out")
    run(recipes.check(recipe, "r"), tmp_path / "out", InProcessEngine())
    assert sorted(str(reason) for reason in reasons(tmp_path / "out").values()) == ["None", "removed", "removed"]
