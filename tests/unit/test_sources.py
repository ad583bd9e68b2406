"""Candidates come out of a list, a folder or a data set as they stand there, or in one line about what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.runs import PAINT, SAME_TITLE, SHADE, TROUBLE, rows, run, vidal, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import notes_of
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.fetch.files import path_of
from vidal.recipe import check
from vidal.sources.dataset import DatasetSource
from vidal.sources.folder import FolderSource
from vidal.sources.list import ListSource
from vidal.sources.source import split_hashtags

Row = dict[str, Any]


def listed(path: Path) -> list[Row]:
    return ListSource(list=str(path)).candidates().to_pylist()


def write(folder: Path, name: str, content: str | bytes | list[Row]) -> Path:
    path = folder / name
    if isinstance(content, list):
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


LISTS: list[tuple[str, str, str | bytes | list[Row], list[Row]]] = [
    ("plain", "l.csv", "url,title\na.mp4,One\nb.mp4,\n", [{"url": "a.mp4", "title": "One"}, {"url": "b.mp4", "title": None}]),
    ("BOM and CRLF", "l.csv", b"\xef\xbb\xbfurl,title\r\na.mp4,\xc3\xa9\r\n", [{"url": "a.mp4", "title": "é"}]),
    ("quoted newline and comma", "l.csv", 'url,title\n"a,b.mp4","two\nlines, ""so"""\n',
     [{"url": "a,b.mp4", "title": 'two\nlines, "so"'}]),
    ("ids that look like numbers", "l.csv", "clip_id,url,title\n007,a,1e5\n", [{"clip_id": "007", "url": "a", "title": "1e5"}]),
    ("words that look like nothing", "l.csv", "url,title\na,NA\nb,null\n", [{"url": "a", "title": "NA"}, {"url": "b", "title": "null"}]),
    ("hashtags as text", "l.csv", 'url,hashtags\na,#cat #fun\nb,"cat, fun"\nc,\n',
     [{"url": "a", "hashtags": ["cat", "fun"]}, {"url": "b", "hashtags": ["cat", "fun"]}, {"url": "c", "hashtags": []}]),
    ("extra columns stay", "l.csv", "url,likes\na,7\n", [{"url": "a", "likes": "7"}]),
    ("colliding columns are renamed", "l.csv", "url,duration_s,_x,status\na,9,y,kept\n",
     [{"url": "a", "crawl_duration_s": "9", "crawl_x": "y", "crawl_status": "kept"}]),
    ("jsonl", "l.jsonl", '{"url": "a", "title": "2024-01-01"}\n\n{"url": "b", "likes": 7, "hashtags": ["cat"]}\n',
     [{"url": "a", "title": "2024-01-01", "likes": None, "hashtags": []},
      {"url": "b", "title": None, "likes": 7, "hashtags": ["cat"]}]),
    ("jsonl with a BOM, numbers for ids and both kinds of hashtags", "l.jsonl",
     b'\xef\xbb\xbf{"url": "a", "clip_id": 7, "hashtags": "#a#b"}\n{"url": "b", "clip_id": 8, "hashtags": ["#c", ""]}',
     [{"url": "a", "clip_id": "7", "hashtags": ["a", "b"]}, {"url": "b", "clip_id": "8", "hashtags": ["c"]}]),
    ("jsonl with nested extras", "l.jsonl", '{"url": "a", "stats": {"likes": 7}}\n', [{"url": "a", "stats": {"likes": 7}}]),
    ("parquet", "l.parquet", [{"url": "a", "hashtags": ["x"], "likes": 7, "width": 3}],
     [{"url": "a", "hashtags": ["x"], "likes": 7, "crawl_width": 3}]),
    ("a suffix in capitals", "L.CSV", "url\na\n", [{"url": "a"}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "wanted"), LISTS, ids=[case[0] for case in LISTS])
def test_a_list_is_read_as_it_stands(
    name: str, file: str, content: str | bytes | list[Row], wanted: list[Row], tmp_path: Path
) -> None:
    assert listed(write(tmp_path, file, content)) == wanted


BAD: list[tuple[str, str, str | bytes | list[Row] | None, str]] = [
    ("missing", "l.csv", None, "no such file; source.list names a csv, jsonl or parquet file"),
    ("another kind", "l.txt", "a.mp4\n", "a list is one of .csv, .jsonl, .parquet"),
    ("empty csv", "l.csv", "", "the list is empty; it needs a header line with `url`"),
    ("empty jsonl", "l.jsonl", "", "the list is empty; it needs an object with `url` on each line"),
    ("blank jsonl", "l.jsonl", "\n\n", "the list is empty; it needs an object with `url` on each line"),
    ("header only", "l.csv", "url,title\n", "no candidate in it; name at least one url"),
    ("no rows", "l.parquet", [], "no column `url` (it has none)"),
    ("no url", "l.csv", "link,title\na,b\n", "no column `url` (it has link, title)"),
    ("no header", "l.csv", "a.mp4\nb.mp4\n", "no column `url` (it has a.mp4)"),
    ("ragged", "l.csv", "url,title\na\n", "not a readable csv file: CSV parse error: Expected 2 columns, got 1"),
    ("not UTF-8", "l.csv", b"url,title\na,\xff\xfe\n", "not a readable csv file"),
    ("two columns of one name", "l.csv", "url,title,title\na,b,c\n", "two columns of one name: title"),
    ("a name that another gets", "l.csv", "url,width,crawl_width\na,1,2\n", "column `crawl_width` is there"),
    ("half a line of JSON", "l.jsonl", '{"url": "a"}\n{"url": \n', "line 2: not JSON"),
    ("no object", "l.jsonl", '{"url": "a"}\n["b"]\n', "line 2: not an object with `url`"),
    ("two types", "l.jsonl", '{"url": "a", "n": 1}\n{"url": "b", "n": "x"}\n', "not a readable jsonl file: column `n`"),
    ("half an emoji", "l.jsonl", '{"url": "a", "title": "\\ud83d"}\n', "not a readable jsonl file: column `title`"),
    ("a title that is none", "l.jsonl", '{"url": "a", "title": {"x": 1}}\n', "column `title` holds struct<x: int64>"),
    ("no parquet", "l.parquet", b"PAR1 not", "not a readable parquet file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "message"), BAD, ids=[case[0] for case in BAD])
def test_a_list_that_is_none_says_what_is_wrong_in_one_line(
    name: str, file: str, content: str | bytes | list[Row] | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / file if content is None else write(tmp_path, file, content)
    with pytest.raises(SourceError) as caught:
        listed(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "tags"),
    [("#a#b", ["a", "b"]), ("a b,c", ["a", "b", "c"]), (" # ", []), (None, []), (["#a", None, " b "], ["a", "b"]),
     ("#猫 #c++", ["猫", "c++"]), (7, ["7"]), (["two words"], ["two words"])],
)  # fmt: skip
def test_hashtags_are_a_list_whatever_they_came_as(value: object, tags: list[str]) -> None:
    assert split_hashtags(value) == tags


def folder_of(folder: Path, *names: str) -> FolderSource:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(os.fsencode(name))
    return FolderSource(folder=str(folder))


def test_a_folder_gives_its_media_files_in_order_each_under_an_address_that_fetch_opens(tmp_path: Path) -> None:
    names = ["b/two_words.MP4", "a.webm", "C.MTS", "x.gif", "song.Flac", "file:/y.mp4", ".hidden.mov", "caf\udce9.mp4"]
    source = folder_of(tmp_path, *names)
    table = source.candidates()
    assert table.to_pylist() == [
        {"url": ".hidden.mov", "title": ".hidden"},
        {"url": "C.MTS", "title": "C"},
        {"url": "a.webm", "title": "a"},
        {"url": "b/two_words.MP4", "title": "two words"},
        {"url": "file:caf%E9.mp4", "title": "caf\ufffd"},
        {"url": "file:file%3A/y.mp4", "title": "y"},
        {"url": "song.Flac", "title": "song"},
        {"url": "x.gif", "title": "x"},
    ]
    paths = [Path(source.base(), path_of(url)) for url in table.column("url").to_pylist()]
    assert sorted(path.read_bytes() for path in paths) == sorted(map(os.fsencode, names))
    assert notes_of(table) == []


def test_what_a_folder_skips_is_counted_by_kind(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").touch()
    source = folder_of(folder, "a.mp4", "a.srt", "notes.TXT", "b.txt", "README")
    (folder / "linked.mp4").symlink_to(folder / "a.mp4")
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    table = source.candidates()
    assert table.column("url").to_pylist() == ["a.mp4", "linked.mp4"]
    assert notes_of(table) == [
        "videos/: 2 files; skipped 6: 4 of another kind (.txt, .srt, no suffix), 2 symlinked folders"
    ]


def test_what_a_source_noted_is_told_by_the_build_and_kept_with_the_plan(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    folder_of(tmp_path / "videos", "a.mp4", "b.txt")
    note = "videos/: 1 file; skipped 1: 1 of another kind (.txt)"
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"source": {"folder": "videos"}, "stages": [PAINT, SAME_TITLE, SHADE]}))
    for out, more in (("told", []), ("json", ["--json"]), ("json", ["--json"])):
        done = vidal("build", recipe, "--out", tmp_path / out, "--engine", "local", "--workers", "0", *more)
        assert done.returncode == 0
        assert json.loads(done.stdout)["notes"] == [note] if more else done.stdout.count(f"{note}\n") == 1
        assert Dataset.open(str(tmp_path / out)).plan.notes == [note]


def test_a_folder_without_media_or_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no media file under it; looked for \.3gp"):
        FolderSource(folder=str(tmp_path)).candidates()
    with pytest.raises(SourceError, match=r"no such folder; source\.folder names a folder of media files"):
        FolderSource(folder=str(tmp_path / "no")).candidates()


def test_the_identity_of_a_source_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "l.csv", "url\na\n")
        write(tmp_path / name, "v.json", "{}")
        write(tmp_path / name, "m.mp4", "1")
    for kind, file in (("list", "l.csv"), ("folder", ""), ("vidal_json", "v.json")):
        recipe = [check({"source": {kind: str(tmp_path / n / file)}, "stages": [PAINT]}, "r") for n in ("x", "y")]
        assert recipe[0].source.identity() == recipe[1].source.identity()
        before = recipe[0].source.identity()
        write(tmp_path / "x", file or "m.mp4", "url\nanother\n")
        assert recipe[0].source.identity() != before


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of ten clips, of which one was rejected and one failed."""
    folder = tmp_path_factory.mktemp("painted")
    titles = ["reject", "raise", *[f"clip {n}" for n in range(8)]]
    run(write_recipe(folder, [PAINT, TROUBLE], titles), folder / "out", InProcessEngine())
    return folder / "out"


def test_a_data_set_gives_its_kept_clips_with_their_members(painted: Path, tmp_path: Path) -> None:
    recipe = check({"source": {"dataset": str(painted)}, "shards": {"size": 3}, "stages": [SHADE]}, "again")
    run(recipe, tmp_path / "out", InProcessEngine())
    before, after = rows(painted), rows(tmp_path / "out")
    assert sorted(after) == sorted(clip_id for clip_id, row in before.items() if row["status"] == "kept")
    for clip_id, row in after.items():
        carried = {m["name"]: m["sha256"] for m in before[clip_id]["members"] if not m["name"].endswith(".json")}
        now = {m["name"]: m["sha256"] for m in row["members"] if m["layer"] == "video"}
        assert {name: now[name] for name in carried} == carried
        assert (row["status"], row["layers"], row["title"]) == ("kept", ["video", "depth"], before[clip_id]["title"])


def test_a_data_set_that_cannot_be_a_source_says_why(painted: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"^{tmp_path}: no data set there \(no dataset\.json\)"):
        DatasetSource(dataset=str(tmp_path)).candidates()
    run(write_recipe(tmp_path, [PAINT, TROUBLE], ["reject"] * 5), tmp_path / "none", InProcessEngine())
    with pytest.raises(SourceError, match="the data set has no kept clip"):
        DatasetSource(dataset=str(tmp_path / "none")).candidates()
    (tmp_path / "none" / "manifest" / "000001.parquet").unlink()
    with pytest.raises(SourceError, match=r"1 shard\(s\) are not built yet; finish that run first"):
        DatasetSource(dataset=str(tmp_path / "none")).candidates()


def vidal_json(folder: Path, content: Any) -> list[Row]:
    path = write(folder, "vidal.json", content if isinstance(content, str) else json.dumps(content))
    return check({"source": {"vidal_json": str(path)}, "stages": [PAINT]}, "r").source.candidates().to_pylist()


def test_vidals_annotations_are_candidates(tmp_path: Path) -> None:
    annotations = {
        "abc": {"folder": "0001", "raw": "A title #cat#fun ", "ofa": ["f0"], "mplug": "m", "polish_mplug": "p", "sound_mplug": ""},
        "def": {"raw": "#only"},
    }  # fmt: skip
    nothing = {"vidal_ofa": [], "vidal_mplug": None, "vidal_polish_mplug": None, "vidal_sound_mplug": None}
    assert vidal_json(tmp_path, annotations) == [
        {"clip_id": "abc", "url": "0001/abc.mp4", "title": "A title", "hashtags": ["cat", "fun"], "vidal_ofa": ["f0"],
         "vidal_mplug": "m", "vidal_polish_mplug": "p", "vidal_sound_mplug": None},
        {"clip_id": "def", "url": "def.mp4", "title": None, "hashtags": ["only"], **nothing},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not readable JSON"), ("[]", "not an object keyed by clip id"), ("{}", "no annotation in it"),
     ({"a": "x"}, "a holds no object with folder, raw, mplug")],
)  # fmt: skip
def test_annotations_that_are_none_say_what_is_wrong(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        vidal_json(tmp_path, content)


def test_annotations_that_are_gone_are_missed_by_plan_and_fingerprint_alike(tmp_path: Path) -> None:
    recipe = check({"source": {"vidal_json": str(tmp_path / "no.json")}, "stages": [PAINT]}, "r")
    for ask in (recipe.source.candidates, recipe.source.identity):
        with pytest.raises(SourceError, match=r"no such file; source\.vidal_json names VIDAL's annotation JSON"):
            ask()
