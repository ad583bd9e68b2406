"""A dataset in another shape holds the same clips, and VIDAL's JSON comes back as it went out."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.runs import AUDIO, CAPTION, PAINT, SHADE, TROUBLE, digests, rows, run, write_recipe
from vidal.commands import app
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, SourceError
from vidal.export.export import vidal_annotation, write_joint, write_open_clip, write_vidal_json
from vidal.recipe import check
from vidal.removal.remove import remove
from vidal.rows import whole


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("built")
    titles = ["reject", *[f"clip {n}" for n in range(9)]]
    run(write_recipe(folder, [PAINT, TROUBLE, SHADE], titles), folder / "out", InProcessEngine())
    return Dataset.open(str(folder / "out"))


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset in which all clips but one have a caption."""
    folder = tmp_path_factory.mktemp("titled")
    run(
        write_recipe(folder, [PAINT, CAPTION, AUDIO], ["a dog", "", "a cat", "mute"]), folder / "out", InProcessEngine()
    )
    return Dataset.open(str(folder / "out"))


def test_a_joint_tar_has_every_member_of_a_kept_clip_once(built: Dataset, tmp_path: Path) -> None:
    assert write_joint(built, str(tmp_path / "joint")).clips == 9
    kept = {clip_id: row for clip_id, row in rows(built.storage.address).items() if row["status"] == "kept"}
    suffixes = ["mp4", "depth.0.png", "depth.1.png", "frame.0.jpg", "frame.1.jpg", "json"]
    names = []
    for path in sorted((tmp_path / "joint").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                row = kept[member.name.partition(".")[0]]
                assert f"{row['shard']:06d}.tar" == path.name
                assert tar.extractfile(member).read() == built.read_member(row, member.name)
                names.append(member.name)
    order = sorted(kept, key=lambda clip_id: kept[clip_id]["position"])
    assert names == [f"{clip_id}.{suffix}" for clip_id in order for suffix in suffixes]


def test_joint_tars_written_again_are_the_same_bytes(built: Dataset, tmp_path: Path) -> None:
    for name in ("a", "b", "b"):
        write_joint(built, str(tmp_path / name))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_vidals_json_comes_back_as_candidates(built: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "vidal.json"
    assert write_vidal_json(built, path).clips == 9
    back = whole(check({"source": {"vidal_json": str(path)}, "stages": [PAINT]}, "r").source.candidates()).to_pylist()
    kept = [row for row in rows(built.storage.address).values() if row["status"] == "kept"]
    assert [(r["clip_id"], r["url"], r["title"], r["hashtags"]) for r in back] == sorted(
        (r["clip_id"], f"{r['shard']:06d}/{r['clip_id']}.mp4", r["title"], r["hashtags"] or []) for r in kept
    )


def test_an_annotation_has_vidals_keys() -> None:
    row = {"shard": 12, "title": "A title", "hashtags": ["cat", "fun"], "frame_captions": ["f0", "f1"],
           "video_caption": "v", "caption": "c", "sound_caption": None}  # fmt: skip
    assert vidal_annotation(row) == {
        "folder": "000012",
        "raw": "A title#cat#fun",
        "ofa": ["f0", "f1"],
        "mplug": "v",
        "polish_mplug": "c",
        "sound_mplug": "",
    }
    assert vidal_annotation({**row, "title": None, "hashtags": []})["raw"] == ""


def test_a_folder_is_no_place_for_one_file(built: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; --out must name a file for this format"):
        write_vidal_json(built, tmp_path)


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    run(write_recipe(tmp_path, [PAINT], ["猫 “cats” \U0001f408"]), tmp_path / "out", InProcessEngine())
    write_vidal_json(Dataset.open(str(tmp_path / "out")), tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text())["c000"]["raw"] == "猫 “cats” \U0001f408"


def test_an_export_says_what_it_is_of(built: Dataset, tmp_path: Path) -> None:
    write_joint(built, str(tmp_path / "joint"), "clip_id != 'c003'")
    write_vidal_json(built, tmp_path / "v.json")
    told = json.loads((tmp_path / "joint" / "export.json").read_text())
    assert {name: told[name] for name in ("format", "dataset", "fingerprint", "where", "shards_of_dataset")} == {
        "format": "joint", "dataset": "toys", "fingerprint": built.info.fingerprint, "where": "clip_id != 'c003'",
        "shards_of_dataset": 3,
    }  # fmt: skip
    assert sum(shard["clips"] for shard in told["shards"].values()) == 8
    assert json.loads((tmp_path / "v.export.json").read_text())["format"] == "vidal-json"


def copy_of(dataset: Dataset, folder: Path) -> Dataset:
    shutil.copytree(dataset.storage.local_path(), folder)
    return Dataset.open(str(folder))


def test_the_same_export_again_writes_nothing_or_what_is_missing(built: Dataset, tmp_path: Path) -> None:
    dataset, out = copy_of(built, tmp_path / "set"), tmp_path / "joint"
    whole = write_joint(dataset, str(out))
    before = digests(out)
    assert (whole.shards_written, write_joint(dataset, str(out)).shards_written) == (3, 0)
    (out / "000001.tar").unlink()
    again = write_joint(dataset, str(out))
    assert (again.shards_written, again.clips, digests(out)) == (1, 9, before)
    hidden = tmp_path / "000002.parquet"
    shutil.move(tmp_path / "set" / "manifest" / "000002.parquet", hidden)
    fewer = write_joint(dataset, str(out))
    assert (out / "000002.tar").exists() is False and fewer.clips < 9
    shutil.move(hidden, tmp_path / "set" / "manifest" / "000002.parquet")
    assert (write_joint(dataset, str(out)).shards_written, digests(out)) == (1, before)


def test_a_changed_shard_is_exported_anew_and_no_other(built: Dataset, tmp_path: Path) -> None:
    dataset, out = copy_of(built, tmp_path / "set"), tmp_path / "joint"
    write_joint(dataset, str(out))
    write_vidal_json(dataset, tmp_path / "v.json")
    remove(dataset.storage.address, Removals({"clip_id": frozenset({"c004"})}))
    assert [write_joint(dataset, str(out)).shards_written, write_joint(dataset, str(out)).shards_written] == [1, 0]
    assert not any(b"c004." in path.read_bytes() for path in out.glob("*.tar"))
    assert write_vidal_json(dataset, tmp_path / "v.json").clips == 8
    assert "c004" not in json.loads((tmp_path / "v.json").read_text())


def other(folder: Path) -> Dataset:
    """A dataset by another recipe."""
    run(write_recipe(folder, [PAINT], 3), folder / "other", InProcessEngine())
    return Dataset.open(str(folder / "other"))


REJECTED: dict[str, tuple[Any, str]] = {
    "another dataset": (lambda out, one: write_joint(other(out.parent), str(out)), "is an export of dataset toys"),
    "another format": (lambda out, one: write_joint(one, str(out)), "as joint, not of .* as open-clip"),
    "other clips": (lambda out, one: write_open_clip(one, str(out), "duration_s > 1"), "where duration_s > 1, not of"),
    "foreign files": (lambda out, one: (out.mkdir(), (out / "a.tar").touch()), "contains a.tar but no vidal export"),
    "a spoilt record": (lambda out, one: (out.mkdir(), (out / "export.json").write_text("{")), "is not an export record"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "said"), REJECTED.values(), ids=REJECTED)
def test_an_export_does_not_mix_with_what_is_there(before: Any, said: str, titled: Dataset, tmp_path: Path) -> None:
    before(tmp_path / "out", titled)
    there = digests(tmp_path / "out")
    with pytest.raises(OutputError, match=said) as caught:
        write_open_clip(titled, str(tmp_path / "out"))
    assert "choose another --out" in str(caught.value) and "\n" not in str(caught.value)
    assert digests(tmp_path / "out") == there


@pytest.mark.parametrize("inside", ["", "video", "joint"])
def test_an_export_stays_out_of_datasets(inside: str, built: Dataset, tmp_path: Path) -> None:
    before = digests(built.storage.address)
    for dataset in (built, other(tmp_path)) if not inside else (built,):
        with pytest.raises(OutputError, match=r"own folder|is the folder of a dataset"):
            write_joint(dataset, f"{built.storage.address}/{inside}".rstrip("/"))
    assert digests(built.storage.address) == before


def test_a_file_that_is_no_export_is_not_overwritten(built: Dataset, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text("mine")
    with pytest.raises(OutputError, match=r"contains v.json but no vidal export"):
        write_vidal_json(built, tmp_path / "v.json")
    assert (tmp_path / "v.json").read_text() == "mine"


WHERE = {
    "nothing": (["--where", "duration_s > 100"], 2, "--where duration_s > 100: selects none of 9 samples"),
    "no column": (["--where", "sparkle > 1"], 2, "no column `sparkle`"),
    "some": (["--where", "clip_id in ('c002', 'c005')"], 0, "wrote 2 clips"),
}


@pytest.mark.parametrize("format", ["joint", "vidal-json"])
@pytest.mark.parametrize(("words", "code", "said"), WHERE.values(), ids=WHERE)
def test_a_condition_selects_clips(
    words: list[str], code: int, said: str, format: str, built: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = CliRunner(env={"COLUMNS": "300"}).invoke(
        app, ["export", built.storage.address, "--out", str(out), "--format", format, *words]
    )
    assert (done.exit_code != 0, said in (done.output or str(done.exception))) == (code != 0, True)
    assert out.exists() == (code == 0)


def test_a_dataset_without_captions_gives_no_pairs(built: Dataset, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no clip to export: no caption or no frame"):
        write_open_clip(built, str(tmp_path / "pairs"))
    assert not (tmp_path / "pairs").exists()
