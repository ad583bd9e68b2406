"""Removal that follows: a clip is gone from all that was made of its dataset, whatever died meanwhile, with proof."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.processes import command, vidal
from tests.runs import CAPTION, FEW_LETTERS, LETTERS, PAINT, SHADE, digests, run
from vidal import recipe as recipes
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, SourceError, StorageError, UserError
from vidal.export.formats import WRITERS
from vidal.export.lance import NAME, tables_in
from vidal.removal import journal
from vidal.removal.certificate import write
from vidal.removal.follow import Following, follow
from vidal.revisions.refilter import refilter

SECRET = "https://clips.test/secret-3.mp4"
LISTED = Removals({"url": frozenset([SECRET])})
EXPORTS = {name: f"{name}.json" if name in ("croissant", "vidal-json") else name for name in WRITERS}
PLACES = ["crawl", *EXPORTS.values(), "part"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl, a dataset built from it with a second revision, and an export of each format; one by a condition."""
    folder = tmp_path_factory.mktemp("made")
    with (folder / "list.csv").open("w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["clip_id", "url", "title", "licence"])
        for n in range(6):
            url, title = (SECRET, "a secret title") if n == 3 else (f"https://clips.test/{n}.mp4", f"clip {n}")
            lines.writerow([f"c{n:03d}", url, title, "cc-by 4.0"])
    crawl = {"source": {"list": str(folder / "list.csv")}, "shards": {"size": 4}, "stages": [PAINT]}
    run(recipes.check(crawl, "r"), folder / "crawl", InProcessEngine())
    stages = [LETTERS, {FEW_LETTERS: {"min": 1}}, CAPTION, SHADE]
    build = {"source": {"dataset": str(folder / "crawl")}, "shards": {"size": 4}, "stages": stages}
    run(recipes.check(build, "r"), folder / "out", InProcessEngine())
    refilter(str(folder / "out"), [f"{FEW_LETTERS}.min=2"])
    for name, out in EXPORTS.items():
        WRITERS[name](Dataset.open(str(folder / "out")), str(folder / out), None)
    # Of the dataset as it was built, and of the one clip alone.
    WRITERS["joint"](Dataset.open(f"{folder / 'out'}@0"), str(folder / "part"), "title like '%secret%'")
    (folder / "asked.txt").write_text(f"{SECRET}\n")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "here"))


def also(folder: Path) -> list[str]:
    return [str(folder / place) for place in PLACES]


def everything_in(path: Path) -> bytes:
    """Every byte of every file, tables decoded as well as packed."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    tables = (str(pq.read_table(file).to_pylist()).encode() for file in files if file.suffix == ".parquet")
    return b"".join([*(file.read_bytes() for file in files), *tables, str(lance_rows(path)).encode()])


def lance_rows(path: Path) -> list[Any]:
    """The rows of a Lance export, in all versions of its table; of what else is in a folder, nothing."""
    return [row for table in path.rglob(NAME) for _, part in tables_in(table) for row in part.to_pylist()]


def all_digests(folder: Path) -> dict[str, str]:
    return {
        name: sha256 for name, sha256 in digests(folder).items() if ".lock" not in name and "certificate" not in name
    }


def test_a_clip_is_gone_from_all_that_was_made_of_its_dataset(here: Path) -> None:
    row = Dataset.open(str(here / "crawl")).find("c003")
    assert row is not None
    video = Dataset.open(str(here / "crawl")).read_member(row, "c003.mp4")
    clues = [SECRET.encode(), b"a secret title", b"c003.", b'"c003"', b"'c003'", video[:200]]
    for place in ["out", *PLACES]:
        assert any(clue in everything_in(here / place) for clue in clues) or place in (
            "croissant.json",
            "training-summary",
        )
    result = follow(str(here / "out"), LISTED, also=also(here))
    assert (result.remains, result.missing, list(result.clips)) == ([], [], ["c003"])
    for place in ["out", *PLACES]:
        there = everything_in(here / place)
        is_dataset = place in ("out", "crawl")
        # By its id and hash a clip is refused when it comes again.
        left = [clue for clue in clues if clue in there and not (is_dataset and clue == b"'c003'")]
        assert left == [], place
    for place in ("out", "out@0", "crawl"):
        dataset = Dataset.open(str(here / place))
        assert list(verify(dataset)) == [] and sum(row["status"] == "kept" for row in dataset.rows()) == 5
    counted = {Path(one.place.address).name: one.before.members for one in result.places}
    assert counted["joint"] == 6 and counted["huggingface"] == 1 and counted["part"] == 6
    assert not (here / "out" / ".removal.json").exists()


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_as_one_made_anew(name: str, here: Path, tmp_path: Path) -> None:
    follow(str(here / "out"), LISTED, also=[str(here / EXPORTS[name])])
    anew = tmp_path / "anew" / EXPORTS[name]
    anew.parent.mkdir()
    WRITERS[name](Dataset.open(str(here / "out")), str(anew), None)
    if anew.is_file():
        assert (here / EXPORTS[name]).read_bytes() == anew.read_bytes()
    elif name == "lance":
        # Its files have names of their own each time.
        assert lance_rows(here / name) == lance_rows(anew)
    else:
        assert digests(here / EXPORTS[name]) == digests(anew)


def test_only_the_shard_that_held_it_is_written_anew(here: Path) -> None:
    row = Dataset.open(str(here / "out")).find("c003")
    assert row is not None
    before = digests(here / "joint")
    follow(str(here / "out"), LISTED, also=[str(here / "joint")])
    changed = {name for name, sha256 in digests(here / "joint").items() if before[name] != sha256}
    assert changed == {f"{row['shard']:06d}.tar", "export.json"}


def dies(at: int, work: Callable[[], Any]) -> bool:
    """Whether a fork that does the work ends at its step ``at`` on the disk: before a rename, as by a kill."""
    child = os.fork()
    if child == 0:
        rename, count = os.replace, 0

        def step(*arguments: Any, **keys: Any) -> None:
            nonlocal count
            count += 1
            if count == at:
                os._exit(9)
            rename(*arguments, **keys)

        os.replace = step
        try:
            work()
            os._exit(0)
        finally:
            os._exit(70)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_a_removal_that_dies_anywhere_is_finished_by_the_same_command(made: Path, tmp_path: Path) -> None:
    def remove(folder: Path) -> Following:
        places = [str(folder / name) for name in ("crawl", "joint", "huggingface", "vidal-json.json", "licences")]
        return follow(str(folder / "out"), LISTED, also=places, certificate=folder.parent / "certificate.json")

    def certificate() -> dict[str, Any]:
        body = json.loads((tmp_path / "certificate.json").read_text())
        return {name: value for name, value in body.items() if not name.endswith("_at")}

    here = tmp_path / "here"
    shutil.copytree(made, here)
    remove(here)
    wanted, certified, step = all_digests(here), certificate(), 1
    while True:
        shutil.rmtree(here)
        shutil.copytree(made, here)
        if not dies(step, lambda: remove(here)):
            break
        # Without its journal it was done, and died with the lock in hand: the address is in no row any more.
        is_done = step > 1 and not (here / "out" / journal.NAME).exists()
        result = remove(here)
        assert (result.remains, result.missing) == ([], [SECRET] if is_done else []), step
        assert all_digests(here) == wanted, step
        assert certificate() == certified, step
        step += 6
    assert step > 24


def test_a_removal_that_was_begun_is_finished_in_all_of_its_places(here: Path) -> None:
    places = [str(here / "joint")]
    assert dies(5, lambda: follow(str(here / "out"), LISTED, also=places))
    with pytest.raises(OutputError, match=r"was begun and not finished .*--also \S+joint"):
        follow(str(here / "out"), LISTED)
    assert follow(str(here / "out"), LISTED, also=places).remains == []


def test_a_place_of_another_dataset_is_refused_before_anything_changes(here: Path, tmp_path: Path) -> None:
    recipe = {"source": {"list": str(here / "list.csv")}, "stages": [PAINT]}
    run(recipes.check(recipe, "r"), tmp_path / "other", InProcessEngine())
    WRITERS["joint"](Dataset.open(str(tmp_path / "other")), str(tmp_path / "export"), None)
    (tmp_path / "nothing").mkdir()
    before = all_digests(here)
    said = {
        "other": "is a dataset that .*out was not built from",
        "export": "is an export of .* of another dataset",
        "nothing": "has no dataset.json, export.json, embeddings.json or run.json",
    }
    for name, line in said.items():
        with pytest.raises(SourceError, match=line):
            follow(str(here / "out"), LISTED, also=[*also(here), str(tmp_path / name)])
    with pytest.raises(UserError, match=r"is within .*joint, which it is about"):
        follow(str(here / "out"), LISTED, also=also(here), certificate=here / "joint" / "c.json")
    assert all_digests(here) == before
    # A dataset of the same clips that the crawl's own removal does not reach is tied by a third one.
    assert follow(str(here / "crawl"), LISTED, also=[str(here / "out"), str(here / "joint")]).remains == []


def test_a_certificate_says_what_was_removed_where_and_nothing_of_the_content(here: Path) -> None:
    # A process of its own, as a user has it: relative paths, and the exit code.
    given = ["remove", "out", "--ids", "asked.txt", *(f"--also={place}" for place in PLACES)]
    done = vidal(*given, "--certificate", "c/certificate.json", "--requested-by", "A. Rightsholder", cwd=here)
    assert done.returncode == 0, done.stderr
    raw = (here / "c" / "certificate.json").read_bytes()
    body, text = json.loads(raw), (here / "c" / "certificate.txt").read_text()
    assert text.endswith(f"SHA-256 of certificate.json: {hashlib.sha256(raw).hexdigest()}\n")
    assert hashlib.sha256(raw).hexdigest() in done.stdout and "requested by A. Rightsholder" in text
    assert body["proof"]["proven"] is True and body["requested_by"] == "A. Rightsholder"
    address = hashlib.sha256(SECRET.encode()).hexdigest()
    assert [(clip["clip_id"], clip["address_sha256"]) for clip in body["clips"]] == [("c003", [address])]
    assert SECRET not in raw.decode() + text and "a secret title" not in raw.decode() + text
    joint = next(place for place in body["places"] if place["place"] == "joint")
    # As anybody checks it, with the tools of a shell.
    sums = "".join(
        f"{hashlib.sha256((here / 'joint' / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(os.listdir(here / "joint"))
    )
    assert joint["sha256_after"] == hashlib.sha256(sums.encode()).hexdigest() != joint["sha256_before"]
    assert (joint["members"], joint["remains"]) == (6, []) and joint["bytes"] > 0


def test_what_a_removal_leaves_behind_is_not_proven(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WRITERS, "joint", lambda dataset, out, where: None)
    result = follow(str(here / "out"), LISTED, also=[str(here / "joint")], certificate=here / "certificate.json")
    assert any("joint/" in place and "c003.mp4" in place for place in result.remains)
    assert json.loads((here / "certificate.json").read_text())["proof"]["proven"] is False
    assert "NOT PROVEN" in (here / "certificate.txt").read_text()
    (here / "list.txt").write_text("c003\n")
    done = command("remove", here / "out", "--ids", here / "list.txt", "--also", here / "joint")
    assert done.returncode == 1 and "still there: 000000.tar: c003" in done.stdout.replace("000001", "000000")


def test_the_dataset_as_it_was_built_is_exported_by_its_own_rows(here: Path, tmp_path: Path) -> None:
    refilter(str(here / "out"), [f"{FEW_LETTERS}.min=9"])
    exported = WRITERS["joint"](Dataset.open(f"{here / 'out'}@0"), str(tmp_path / "zero"), "title = 'clip 1'")
    assert exported.clips == 1


def test_a_certificate_that_finds_the_disk_full_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body: dict[str, Any] = {name: [] for name in ("clips", "places", "checkpoints", "reposts")}
    body |= dict.fromkeys(["dataset", "requested_by", "began_at", "finished_at", "created_by"], "first")
    body["proof"] = {"proven": True, "how": ""}
    write(tmp_path / "c.json", body)
    before = digests(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"c\.json: .*No space left"):
        write(tmp_path / "c.json", body | {"dataset": "second"})
    assert digests(tmp_path) == before


def test_a_removal_that_is_repeated_leaves_the_certificate_of_the_first(here: Path) -> None:
    certificate, ids = here / "removal.json", Removals({"clip_id": frozenset(["c003"])})
    first = follow(str(here / "out"), ids, also=also(here), certificate=certificate)
    data = certificate.read_bytes()
    again = follow(str(here / "out"), ids, also=also(here), certificate=certificate)
    assert (again.certificate, certificate.read_bytes()) == (first.certificate, data)
    assert sum(place["members"] for place in json.loads(data)["places"]) > 0
    follow(str(here / "out"), Removals({"clip_id": frozenset(["c004"])}), also=also(here), certificate=certificate)
    assert [clip["clip_id"] for clip in json.loads(certificate.read_bytes())["clips"]] == ["c004"]
