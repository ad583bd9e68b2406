"""A dataset as its reader sees it: every sample, every condition, and every kind of damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import vidal
from tools.rendering import learning_set
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.errors import OutputError, SourceError
from vidal.reader.ranges import BrokenSampleError
from vidal.reader.samples import Samples

CLIPS, FRAMES = 24, 8
LAYERS = ["video", "depth", "infrared", "audio"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips in shards of ten; nobody changes it."""
    out = tmp_path_factory.mktemp("learning") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning_set, "SHARD_SIZE", 10)
        learning_set.write(str(out), clips=CLIPS, scenes=6, size=32, workers=1)
    return out


@pytest.fixture
def mine(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "mine"))


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def test_every_kept_clip_is_a_sample(whole: Path) -> None:
    samples = vidal.open(whole)
    assert (len(samples), samples.layers) == (CLIPS, LAYERS)
    assert samples.manifest().num_rows == CLIPS
    rows = list(Dataset.open(str(whole)).rows(["clip_id"]))
    assert [samples.clip_id(i) for i in range(CLIPS)] == [row["clip_id"] for row in rows]


def test_a_sample_is_decoded(whole: Path) -> None:
    sample = vidal.open(whole)[3]
    shapes = {layer: (sample[layer].shape, sample[layer].dtype.name) for layer in LAYERS}
    assert shapes == {
        "video": ((FRAMES, 32, 32, 3), "uint8"), "depth": ((FRAMES, 32, 32), "uint16"),
        "infrared": ((FRAMES, 32, 32), "uint8"), "audio": ((32_000,), "float32"),
    }  # fmt: skip
    assert sample["key"] == sample["row"]["clip_id"]
    assert sample["texts"]["caption"] == sample["row"]["caption"] and "members" not in sample["row"]


def test_samples_are_counted_from_the_end_too_and_are_no_more_than_there_are(whole: Path) -> None:
    samples = vidal.open(whole)
    assert samples[-1]["key"] == samples[CLIPS - 1]["key"]
    for i in (CLIPS, -CLIPS - 1):
        with pytest.raises(IndexError):
            samples[i]


def test_members_are_the_bytes_that_the_dataset_holds(whole: Path) -> None:
    samples, dataset = vidal.open(whole), Dataset.open(str(whole))
    row = dataset.find(samples.clip_id(5))
    assert row is not None
    for layer in LAYERS:
        wanted = {m["name"].partition(".")[2] for m in row["members"] if m["layer"] == layer} - {"json"}
        assert set(samples.suffixes(5, layer)) == wanted
        read = samples.read(5, layer, verify=True)
        assert read == {s: dataset.read_member(row, f"{row['clip_id']}.{s}") for s in wanted}
    assert list(samples.read(5, "depth", ["depth.6.png", "depth.1.png"])) == ["depth.1.png", "depth.6.png"]
    assert json.loads(samples.read(5, "video", ["json"])["json"])["clip_id"] == row["clip_id"]


def test_columns_and_parts_are_those_of_the_row(whole: Path) -> None:
    samples = vidal.open(whole)
    assert samples.column("caption").to_pylist() == [samples.row(i)["caption"] for i in range(CLIPS)]
    assert samples.column("no_such_column").to_pylist() == [None] * CLIPS
    assert (
        list(samples.rows(["title", "none"]))[2]
        == samples.part(2, ["title", "none"])
        == {"title": samples.row(2)["title"]}
    )
    assert samples.has("depth").all() and not samples.has("smell").any()


def test_a_sample_without_a_layer_is_told(whole: Path) -> None:
    with pytest.raises(BrokenSampleError, match="the clip has no such member"):
        vidal.open(whole).read(0, "smell")


CONDITIONS = {
    "a text": ("caption like '%harbour%'", lambda row: "harbour" in row["caption"]),
    "a number": ("position < 7", lambda row: row["position"] < 7),
    "two": ("position >= 7 and frame_width = 32", lambda row: row["position"] >= 7),
    "one or the other": ("position = 1 or position = 3", lambda row: row["position"] in (1, 3)),
    "a list": ("list_contains(layers, 'depth')", lambda row: True),
    "with a comment": ("position < 2 -- the first", lambda row: row["position"] < 2),
    "null": ("transcript is null", lambda row: row["transcript"] is None),
    "another spelling": ("POSITION < 2", lambda row: row["position"] < 2),
    "an empty column": ("loudness_lufs is null and ocr_text is null", lambda row: row["loudness_lufs"] is None),
    "a semicolon in a text": ("title <> ';'", lambda row: True),
}


@pytest.mark.parametrize(("where", "meets"), CONDITIONS.values(), ids=CONDITIONS)
def test_a_condition_selects_the_samples_that_meet_it(whole: Path, where: str, meets: object) -> None:
    samples = vidal.open(whole)
    wanted = [samples.clip_id(i) for i in range(CLIPS) if meets(samples.row(i))]  # type: ignore[operator]
    selected = vidal.open(whole, where=where)
    assert [selected.clip_id(i) for i in range(len(selected))] == wanted
    assert selected[0]["key"] == wanted[0] and selected.column("clip_id").to_pylist() == wanted


def test_conditions_add_up(whole: Path) -> None:
    narrowed = vidal.open(whole, where="position < 10").select("position > 7")
    assert narrowed.column("position").to_pylist() == [8, 9]
    assert len(narrowed.has("video")) == 2


REJECTED = {
    "an unknown column": ("positoin < 3", "no column `positoin`; near it: position"),
    "a column like none": ("zzzz9 < 3", "no column `zzzz9`; there is clip_id, url"),
    "a table": ("manifest.position < 3", "no column `manifest`"),
    "no sentence": ("position <", 'syntax error at or near "<"'),
    "half a sentence": ("position < 3 and and blur < 2", 'syntax error at or near "and"'),
    "text without end": ("caption = 'x", "unterminated"),
    "an unknown function": ("nearly(position)", "nearly does not exist"),
    "two conditions": ("position < 2, position < 3", "single expression"),
    "a table of the program's": ("position in (select position from numbered)", "numbered does not exist"),
    "the environment": ("getenv('HOME') is not null", ""),
    "a wrong condition over two lines": ("position <\n 3 and", "--where position < 3 and:"),
    "nothing, over two lines": ("position >\n 1000", "--where position > 1000: selects none"),
    "several statements": ("1=1); drop table manifest; select (1", ""),
    "an end of its own": ("true); select 1 --", ""),
    "a row that is not there": ("false) union all select 99999 where (true", "syntax error"),
    "a row that is there": ("false) union all select 3 where (true", "syntax error"),
    "a row that is none": ("false) union all select 0.5 where (true", "syntax error"),
    "a file": ("clip_id in (select * from read_csv('/etc/passwd'))", ""),
    "a file by name": ("clip_id in (select * from '/etc/passwd')", ""),
    "a file's text": ("(select content from read_text('/etc/passwd')) is not null", ""),
    "a setting": ("true); SET enable_external_access = true; select (1", ""),
    "nothing selected": ("position > 1000", f"selects none of {CLIPS} samples"),
    "no condition": (" \n", "--where is empty"),
    "no truth": ("caption", ""),
    "a sum": ("sum(position) > 3", ""),
}


@pytest.mark.parametrize(("where", "said"), REJECTED.values(), ids=REJECTED)
def test_a_condition_that_cannot_be_met_is_one_line(whole: Path, where: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        vidal.open(whole, where=where)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_condition_by_chance_selects_the_same_samples_every_time(whole: Path) -> None:
    once, again = (vidal.open(whole, "random() < 0.5").column("clip_id").to_pylist() for _ in range(2))
    assert once == again and 0 < len(once) < CLIPS


@pytest.mark.parametrize("argument", ["removed", "removals"])
def test_removed_clips_are_no_samples(whole: Path, argument: str) -> None:
    gone = frozenset({vidal.open(whole).clip_id(4), "somebody-elses"})
    samples = vidal.open(whole, **{argument: gone if argument == "removed" else Removals({"clip_id": gone})})
    assert len(samples) == CLIPS - 1
    assert gone.isdisjoint(samples.clip_id(i) for i in range(len(samples)))
    assert gone.isdisjoint(samples.select("true").column("clip_id").to_pylist())
    assert samples[4]["key"] == samples.clip_id(4) == vidal.open(whole).clip_id(5)


DAMAGE = {
    "a tar cut short": (lambda out: cut(out / "depth/000001.tar", 0.3), "shard 000001: depth/000001.tar has"),
    "a tar gone": (lambda out: (out / "audio/000001.tar").unlink(), "shard 000001: audio/000001.tar is missing"),
    "a manifest cut short": (lambda out: cut(out / "manifest/000001.parquet", 0.5), "shard 000001: its manifest cannot be read"),
    "a manifest of nothing": (lambda out: cut(out / "manifest/000001.parquet", 0), "shard 000001: its manifest cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "said"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_shard_is_named_and_can_be_left_out(mine: Path, damage: object, said: str) -> None:
    damage(mine)  # type: ignore[operator]
    samples = vidal.open(mine)
    found = samples.damaged()
    assert [str(one)[: len(said)] for one in found] == [said] and "\n" not in str(found[0])
    rest = samples.without(found)
    assert (len(rest), rest.damaged()) == (CLIPS - 10, [])
    assert [rest[i]["key"] for i in range(len(rest))] == [rest.clip_id(i) for i in range(len(rest))]


def test_a_sample_in_a_tar_that_ends_early_is_broken_by_name(mine: Path) -> None:
    cut(mine / "video/000000.tar", 0.5)
    samples = vidal.open(mine)
    assert samples[0]["video"].shape[0] == FRAMES
    with pytest.raises(BrokenSampleError) as caught:
        samples[9]
    assert (caught.value.clip_id, caught.value.layer) == (samples.clip_id(9), "video")
    assert "ends" in caught.value.why and "video/000000.tar" in caught.value.why
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_changed_byte_is_seen_where_it_is_looked_for(mine: Path) -> None:
    samples = vidal.open(mine)
    row = Dataset.open(str(mine)).find(samples.clip_id(2))
    assert row is not None
    member = next(m for m in row["members"] if m["name"].endswith("frame.3.jpg"))
    with (mine / "video/000000.tar").open("r+b") as tar:
        tar.seek(member["offset"])
        tar.write(b"no image at all")
    with pytest.raises(BrokenSampleError, match=r"frame\.3\.jpg does not match its hash"):
        samples.read(2, "video", verify=True)
    with pytest.raises(BrokenSampleError, match=samples.clip_id(2)):
        samples[2]


NO_SET = {
    "no folder": (lambda out: shutil.rmtree(out), SourceError, "no dataset there"),
    "no shard yet": (lambda out: shutil.rmtree(out / "manifest"), SourceError, "no shard is committed yet"),
    "another file": (lambda out: (out / "dataset.json").write_text("{}"), OutputError, "not a vidal dataset"),
}


@pytest.mark.parametrize(("change", "kind", "said"), NO_SET.values(), ids=NO_SET)
def test_what_is_no_dataset_is_one_line(mine: Path, change: object, kind: type[Exception], said: str) -> None:
    change(mine)  # type: ignore[operator]
    with pytest.raises(kind, match=said) as caught:
        vidal.open(mine)
    assert "\n" not in str(caught.value)


def test_a_dataset_without_one_readable_manifest_has_no_samples_and_says_why(mine: Path) -> None:
    for path in (mine / "manifest").iterdir():
        cut(path, 0.5)
    samples = vidal.open(mine)
    assert len(samples) == 0 and len(samples.damaged()) == 3
    with pytest.raises(SourceError, match=r"manifest/000000.parquet: the manifest is damaged") as caught:
        samples.manifest()
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="selects none of 0"):
        samples.select("position < 3")


def _keep(samples: Samples, i: int, out: str) -> None:
    np.save(out, samples[i]["video"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_samples_are_read_in_other_processes(whole: Path, tmp_path: Path, method: str) -> None:
    samples = vidal.open(whole)
    here = [samples[i]["video"] for i in (0, 23)]
    context = multiprocessing.get_context(method)
    others = [context.Process(target=_keep, args=(samples, i, f"{tmp_path}/{i}.npy")) for i in (0, 23)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    there = [np.load(tmp_path / f"{i}.npy") for i in (0, 23)]
    assert all(np.array_equal(*pair) for pair in zip(here, there, strict=True))
    assert np.array_equal(samples[0]["video"], here[0])


def test_an_object_store_is_read_by_range_and_once(whole: Path, tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(whole), "/samples", recursive=True)
    samples = vidal.open("memory://samples", cache=tmp_path)
    assert np.array_equal(samples[7]["depth"], vidal.open(whole)[7]["depth"])
    store.rm("/samples/depth", recursive=True)
    assert np.array_equal(samples[7]["depth"], vidal.open(whole)[7]["depth"])
    with pytest.raises(BrokenSampleError):
        samples.read(8, "depth")
