"""An index of foreign tars: the same keys and bytes as stock webdataset reads, and what is wrong with them named."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset as wds
from typer.testing import CliRunner

import vidal
from tests.runs import digests, rows
from vidal.commands import app
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.dataset.verify import verify
from vidal.errors import OutputError, SourceError
from vidal.reader.index import expand, write_index
from vidal.removal.remove import remove

Sample = Mapping[str, Any]


def command(*words: object) -> str:
    said = CliRunner().invoke(app, [str(word) for word in words])
    assert said.exit_code == 0, said.output
    return said.output


def image(shade: int = 90, size: int = 16, kind: str = ".jpg") -> bytes:
    return cv2.imencode(kind, np.full((size, size, 3), shade, np.uint8))[1].tobytes()


def npy(metres: float) -> bytes:
    out = io.BytesIO()
    np.save(out, np.full((16, 16), metres, np.float32))
    return out.getvalue()


def write_stock(path: Path, samples: Sequence[Sample]) -> Path:
    with wds.TarWriter(str(path)) as tar:
        for sample in samples:
            tar.write(sample)
    return path


def write_raw(path: Path, members: Sequence[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def languagebind(k: int) -> Sample:
    frames = {f"frm{n}.jpg": image(10 * n + k) for n in range(8)}
    thermal = {f"tml{n}.jpg": image(200 - 10 * n - k) for n in range(8)}
    depth = {f"dep{n}.npy": npy(1 + n + k) for n in range(8)}
    texts = {
        "raw.txt": b"A title#one#two", "mplug.txt": b"a video", "polish_mplug.txt": b"polished",
        "sound_mplug.txt": b"a sound", **{f"ofa{n}.txt": f"frame {n}".encode() for n in range(8)},
    }  # fmt: skip
    return {"__key__": f"clip{k}", **frames, **thermal, **depth, **texts}


def test_an_index_has_the_keys_and_bytes_that_stock_webdataset_reads(tmp_path: Path) -> None:
    for n in range(3):
        samples = [
            {"__key__": f"{n}-{k}", "jpg": image(k), "txt": f"said {k}", "flac": b"sound %d" % k} for k in range(5)
        ]
        write_stock(tmp_path / f"{n:03d}.tar", samples)
    assert write_index([f"{tmp_path}/{{000..002}}.tar"], str(tmp_path / "index")).kept == 15
    ours = vidal.open(tmp_path / "index")
    stock = list(wds.WebDataset(sorted(map(str, tmp_path.glob("*.tar"))), shardshuffle=False))
    assert [ours.clip_id(i) for i in range(len(ours))] == [sample["__key__"] for sample in stock]
    for i, sample in enumerate(stock):
        assert ours.read(i, "video", verify=True) == {"jpg": sample["jpg"]}
        assert ours.read(i, "audio", verify=True) == {"flac": sample["flac"]}
        assert ours.row(i)["caption"] == sample["txt"].decode()


def test_the_names_of_languagebinds_tars_are_known(tmp_path: Path) -> None:
    write_stock(tmp_path / "a.tar", [languagebind(k) for k in range(2)])
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    sample = vidal.open(tmp_path / "index")[1]
    row = sample["row"]
    assert {name: sample[name].shape for name in ("video", "depth", "infrared")} == {
        "video": (8, 16, 16, 3), "depth": (8, 16, 16), "infrared": (8, 16, 16)
    }  # fmt: skip
    assert sample["depth"][:, 0, 0].tolist() == [1000 * (n + 2) for n in range(8)]
    assert abs(sample["video"][3].mean() - 31) < 2 and abs(sample["infrared"][3].mean() - 169) < 2
    assert (row["title"], row["hashtags"]) == ("A title", ["one", "two"])
    assert (row["video_caption"], row["caption"], row["sound_caption"]) == ("a video", "polished", "a sound")
    assert row["frame_captions"] == [f"frame {n}" for n in range(8)]


TEXTS = {
    "a caption's txt": ({"txt": b" said \n"}, {"caption": "said"}),
    "json's caption": ({"json": b'{"caption": "said", "text": "other"}'}, {"caption": "said"}),
    "json's text": ({"json": b'{"text": "said", "title": "T"}'}, {"caption": "said", "title": "T"}),
    "txt before json": ({"txt": b"said", "json": b'{"caption": "other"}'}, {"caption": "said"}),
    "polished before txt": ({"txt": b"other", "polish_mplug.txt": b"said"}, {"caption": "said"}),
    "tags only": ({"raw.txt": b"#one# #two"}, {"title": None, "hashtags": ["one", "two"]}),
    "no first frame": ({"ofa1.txt": b"said"}, {"frame_captions": ["", "said"]}),
    "json of other kinds": ({"json": b'{"caption": 3, "title": ["x"], "hashtags": "x"}'}, {"caption": None, "hashtags": None}),
    "half a surrogate": ({"json": b'{"caption": "a\\ud800b"}'}, {"caption": "a?b"}),
}  # fmt: skip


@pytest.mark.parametrize(("texts", "columns"), TEXTS.values(), ids=TEXTS)
def test_texts_become_columns(tmp_path: Path, texts: dict[str, bytes], columns: dict[str, Any]) -> None:
    write_raw(tmp_path / "a.tar", [("k.jpg", image()), *((f"k.{name}", data) for name, data in texts.items())])
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    row = rows(tmp_path / "index")["k"]
    assert {name: row[name] for name in columns} == columns


NAMES = {
    "in a folder": ("train/0001.jpg", None),
    "in a folder with a dot": ("v1.0/0001.jpg", None),
    "from the current folder": ("./0001.jpg", "0001"),
    "in capitals": ("0001.JPG", "0001"),
    "jpeg": ("0001.jpeg", "0001"),
    "png": ("0001.png", "0001"),
    "vidal's": ("0001.frame.0.jpg", "0001"),
    "with a space": ("a clip.jpg", None),
}


@pytest.mark.parametrize(("name", "clip_id"), NAMES.values(), ids=NAMES)
def test_any_key_becomes_a_safe_one(tmp_path: Path, name: str, clip_id: str | None) -> None:
    kind = ".png" if name.endswith("png") else ".jpg"
    write_raw(
        tmp_path / "a.tar", [(name, image(kind=kind)), (name.partition(".jp")[0].partition(".png")[0] + ".cls", b"3")]
    )
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    samples = vidal.open(tmp_path / "index")
    assert samples[0]["video"].shape == (1, 16, 16, 3)
    assert samples.clip_id(0) == clip_id or (clip_id is None and len(samples.clip_id(0)) == 16)


def test_keys_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.tar", [(name, image()) for name in ("good.jpg", "k\udcff.jpg", "k\udcfe.jpg")])
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    found = [(row["reason"], row["url"].rpartition("::")[2]) for row in rows(tmp_path / "index").values()]
    assert found == [(None, "good"), ("unsafe_name", "k\\udcff"), ("unsafe_name", "k\\udcfe")]


BAD = {
    "a link": ([link("bad.jpg")], "not_a_file"),
    "a name that leaves its folder": ([("../bad.jpg", b"x")], "unsafe_name"),
    "an absolute name": ([("/etc/bad.jpg", b"x")], "unsafe_name"),
    "a member twice": ([("bad.jpg", b"x"), ("bad.jpg", b"y")], "duplicate_key"),
    "a key that comes back": ([("good.jpg", b"x")], "duplicate_key"),
    "a text alone": ([("bad.txt", b"x")], "no_media"),
    "a text that is none": ([("bad.jpg", b"x"), ("bad.txt", b"\xff\xfe\xfa")], "bad_text"),
    "json that is no object": ([("bad.jpg", b"x"), ("bad.json", b"[1]")], "bad_text"),
    "json without end": ([("bad.jpg", b"x"), ("bad.json", b"[" * 100_000)], "bad_text"),
    "a text without end": ([("bad.jpg", b"x"), ("bad.txt", bytes(2 << 20))], "too_long"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "reason"), BAD.values(), ids=BAD)
def test_a_bad_sample_is_a_failed_row_and_costs_no_other(tmp_path: Path, members: Any, reason: str) -> None:
    between = [("good.jpg", image()), ("other.jpg", image())]
    write_raw(tmp_path / "a.tar", [*between, *members, ("last.jpg", image())])
    result = write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    assert (result.kept, result.failed) == (3, 1)
    found = rows(tmp_path / "index").values()
    assert [(row["stage"], row["reason"]) for row in found if row["status"] == "failed"] == [("index", reason)]


def test_a_key_whose_members_are_not_adjacent_is_named_once_and_counted(tmp_path: Path) -> None:
    """Stock webdataset gives such a key as two samples, neither of them whole."""
    media = [(f"v{k}.jpg", image(k)) for k in range(3)]
    path = write_raw(tmp_path / "a.tar", [("good.jpg", image()), *media, *((f"v{k}.txt", b"said") for k in range(3))])
    assert [sample["__key__"] for sample in wds.WebDataset(str(path), shardshuffle=False)].count("v1") == 2
    said = command("index", path, "--out", tmp_path / "index")
    assert said == f"{tmp_path / 'index'}: 1 samples in 1 tars, 3 failed (split_sample 3)\n"
    found = rows(tmp_path / "index")
    assert {key: row["reason"] for key, row in found.items()} == {"good": None} | {
        f"v{k}": "split_sample" for k in range(3)
    }
    with pytest.raises(SourceError, match=r"\(split_sample 3\); first failure: .*v0: .*; write the tar anew, by name"):
        write_index(
            [str(write_raw(tmp_path / "b.tar", [*media, *((f"v{k}.txt", b"x") for k in range(3))]))],
            str(tmp_path / "b"),
        )


@pytest.mark.parametrize("cut", ["in a member", "in a header", "before the end mark"])
def test_a_truncated_tar_is_named_and_its_whole_samples_stay(tmp_path: Path, cut: str) -> None:
    path = write_raw(tmp_path / "a.tar", [(f"{k}.jpg", image(k, 64)) for k in range(4)])
    with tarfile.open(path) as tar:
        last = tar.getmembers()[3]
    end = {"in a member": last.offset_data + 100, "in a header": last.offset + 100,
           "before the end mark": last.offset}[cut]  # fmt: skip
    path.write_bytes(path.read_bytes()[:end])
    write_stock(tmp_path / "b.tar", [{"__key__": "b", "jpg": image()}])
    write_index([str(tmp_path / "*.tar")], str(tmp_path / "index"))
    found = rows(tmp_path / "index").values()
    assert {row["clip_id"] for row in found if row["status"] == "kept"} == {"0", "1", "b"} | (
        {"2"} if cut == "in a member" else set()
    )
    assert {row["reason"] for row in found if row["status"] == "failed"} == {"truncated", "unreadable_tar"}
    assert all("a.tar" in row["url"] for row in found if row["status"] == "failed")
    assert list(verify(Dataset.open(str(tmp_path / "index")))) == []


def test_keys_that_begin_anew_in_every_tar_stay_apart(tmp_path: Path) -> None:
    for name in "ab":
        write_stock(tmp_path / f"{name}.tar", [{"__key__": "0", "jpg": image(ord(name))}])
    assert write_index([str(tmp_path / "*.tar")], str(tmp_path / "index")).kept == 2
    samples = vidal.open(tmp_path / "index")
    assert [samples.clip_id(i) for i in range(2)] == ["0", "000001-0"]
    assert samples.read(0, "video") != samples.read(1, "video")


REJECTED = {
    "nothing there": ("{tmp}/none.tar", "no such tar"),
    "a glob of nothing": ("{tmp}/*.none", "no such tar"),
    "a folder": ("{tmp}", "no such tar"),
    "a command": ("pipe:cat x", "commands are not run"),
    "half a brace": ("{tmp}/{{0..3.tar", "nbalanced"),
    "no tar": ("{tmp}/text.tar", "no sample can be read"),
    "an empty tar": ("{tmp}/empty.tar", "no sample can be read"),
    "a compressed tar": ("{tmp}/small.tar.gz", "no sample can be read"),
}


@pytest.mark.parametrize(("given", "said"), REJECTED.values(), ids=REJECTED)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, given: str, said: str) -> None:
    (tmp_path / "text.tar").write_bytes(b"no tar at all " * 100)
    write_raw(tmp_path / "empty.tar", [])
    with tarfile.open(tmp_path / "small.tar.gz", "w:gz"):
        pass
    with pytest.raises(SourceError) as caught:
        write_index([given.format(tmp=tmp_path)], str(tmp_path / "index"))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "index" / "dataset.json").exists()


def test_ranges_and_globs_are_expanded_once_and_in_order(tmp_path: Path) -> None:
    for name in "abc":
        write_raw(tmp_path / f"{name}.tar", [])
    names = [str(tmp_path / f"{name}.tar") for name in "cab"]
    assert expand([f"{tmp_path}/c.tar", f"{tmp_path}/{{a,b}}.tar", f"{tmp_path}/*.tar"]) == names


def test_the_commands_of_a_dataset_work_on_an_index_or_reject_it_in_one_line(tmp_path: Path) -> None:
    write_stock(tmp_path / "a.tar", [languagebind(k) for k in range(2)])
    before, index = (tmp_path / "a.tar").read_bytes(), tmp_path / "index"
    assert json.loads(command("index", tmp_path / "a.tar", "--out", index, "--json")) == {
        "out": str(index),
        "tars": 1,
        "kept": 2,
        "failed": 0,
        "reasons": {},
    }
    assert list(verify(Dataset.open(str(index)))) == []
    for words in (
        ["report", index, "--out", tmp_path / "r.html"],
        ["export", index, "--format", "vidal-json", "--out", tmp_path / "v.json"],
    ):
        assert command(*words), words
    with pytest.raises(OutputError, match="index of foreign tars"):
        remove(str(index), Removals({"clip_id": frozenset({"clip0"})}))
    assert (tmp_path / "a.tar").read_bytes() == before
    (tmp_path / "a.tar").write_bytes(before.replace(b"\xff\xd8", b"\xff\xd7"))
    assert len(list(verify(Dataset.open(str(index))))) == 32


def test_a_joint_export_of_an_index_is_read_by_stock_webdataset(tmp_path: Path) -> None:
    from vidal.export.export import write_joint

    write_stock(tmp_path / "a.tar", [languagebind(0)])
    write_index([str(tmp_path / "a.tar")], str(tmp_path / "index"))
    assert write_joint(Dataset.open(str(tmp_path / "index")), str(tmp_path / "joint")).clips == 1
    (sample,) = wds.WebDataset(str(tmp_path / "joint" / "000000.tar"), shardshuffle=False)
    assert sample["frm3.jpg"] == languagebind(0)["frm3.jpg"]


def test_an_index_is_written_once_and_is_a_function_of_its_tars(tmp_path: Path) -> None:
    write_stock(tmp_path / "a.tar", [languagebind(0)])
    for name in ("one", "two"):
        write_index([str(tmp_path / "a.tar")], str(tmp_path / name))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    with pytest.raises(OutputError, match="is a dataset already"):
        write_index([str(tmp_path / "a.tar")], str(tmp_path / "one"))


def test_tars_of_an_object_store_are_read_by_range(tmp_path: Path) -> None:
    import fsspec

    path = write_stock(tmp_path / "a.tar", [languagebind(0)])
    fsspec.filesystem("memory").pipe_file("/tars/a.tar", path.read_bytes())
    write_index(["memory://tars/*.tar"], str(tmp_path / "index"))
    samples = vidal.open(tmp_path / "index", cache=tmp_path / "cache")
    assert samples.damaged() == [] and samples[0]["video"].shape == (8, 16, 16, 3)
