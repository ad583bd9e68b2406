"""The candidates of a list are its rows as they stand there, and what cannot be read is named in one line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from tests.processes import command
from tests.runs import PAINT, rows, run
from tests.unit.sources.written import Row, write
from vidal.dataset.dataset import Dataset
from vidal.dataset.plan import notes_of
from vidal.dataset.tars import KEY_PATTERN
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.reader.where import matching
from vidal.recipe import check
from vidal.rows import whole
from vidal.sources.cells import split_hashtags
from vidal.sources.list import ListSource


def listed(path: Path) -> list[Row]:
    return (
        whole(ListSource(list=str(path)).candidates()).drop_columns(["_line"] * (path.suffix != ".parquet")).to_pylist()
    )


LISTS: list[tuple[str, str, str | bytes | list[Row], list[Row]]] = [
    ("plain", "l.csv", "url,title\na.mp4,One\nb.mp4,\n", [{"url": "a.mp4", "title": "One"}, {"url": "b.mp4", "title": None}]),
    ("BOM and CRLF", "l.csv", b"\xef\xbb\xbfurl,title\r\na.mp4,\xc3\xa9\r\n", [{"url": "a.mp4", "title": "é"}]),
    ("quoted newline and comma", "l.csv", 'url,title\n"a,b.mp4","two\nlines, ""so"""\n',
     [{"url": "a,b.mp4", "title": 'two\nlines, "so"'}]),
    ("ids that look like numbers", "l.csv", "clip_id,url,title\n007,a,1e5\n", [{"clip_id": "007", "url": "a", "title": "1e5"}]),
    ("words that look like nothing", "l.csv", "url,title\na,NA\nb,null\n", [{"url": "a", "title": "NA"}, {"url": "b", "title": "null"}]),
    ("hashtags as text", "l.csv", 'url,hashtags\na,#cat #fun\nb,"cat, fun"\nc,\n',
     [{"url": "a", "hashtags": ["cat", "fun"]}, {"url": "b", "hashtags": ["cat", "fun"]}, {"url": "c", "hashtags": []}]),
    ("extra columns stay", "l.csv", "url,likes\na,7\n", [{"url": "a", "likes": 7}]),
    ("colliding columns are renamed", "l.csv", "url,duration_s,_x,status\na,9,y,kept\n",
     [{"url": "a", "crawl_duration_s": 9, "crawl_x": "y", "crawl_status": "kept"}]),
    ("jsonl", "l.jsonl", '{"url": "a", "title": "2024-01-01"}\n\n{"url": "b", "likes": 7, "hashtags": ["cat"]}\n',
     [{"url": "a", "title": "2024-01-01", "likes": None, "hashtags": []},
      {"url": "b", "title": None, "likes": 7, "hashtags": ["cat"]}]),
    ("jsonl with a BOM, numbers for ids and both kinds of hashtags", "l.jsonl",
     b'\xef\xbb\xbf{"url": "a", "clip_id": 7, "hashtags": "#a#b"}\n{"url": "b", "clip_id": 8, "hashtags": ["#c", ""]}',
     [{"url": "a", "clip_id": "7", "hashtags": ["a", "b"]}, {"url": "b", "clip_id": "8", "hashtags": ["c"]}]),
    ("jsonl with nested extras", "l.jsonl", '{"url": "a", "stats": {"likes": 7}}\n', [{"url": "a", "stats": {"likes": 7}}]),
    ("parquet", "l.parquet", [{"url": "a", "hashtags": ["x"], "likes": 7, "width": 3}],
     [{"url": "a", "hashtags": ["x"], "likes": 7, "crawl_width": 3}]),
    ("spaces in the header and behind every comma", "l.csv", 'url, title, my score\na, "x, y", 2\n',
     [{"url": "a", "title": "x, y", "my score": 2}]),
    ("spaces in the header alone", "l.csv", "url , title\na,x\n", [{"url": "a", "title": "x"}]),
    ("a header without a name, as pandas writes its index", "l.csv", ",url\n0,a\n", [{"column_1": 0, "url": "a"}]),
    ("empty cells past the last column", "l.csv", "url,title\na,x,,\n", [{"url": "a", "title": "x"}]),
    ("counts as floats", "l.csv", "url,view_count,like_count\na,1200.0,1e3\nb,,007\n",
     [{"url": "a", "view_count": 1200, "like_count": 1000}, {"url": "b", "view_count": None, "like_count": 7}]),
    ("counts as pandas keeps them", "l.parquet", [{"url": "a", "view_count": 1200.0}, {"url": "b", "view_count": float("nan")}],
     [{"url": "a", "view_count": 1200}, {"url": "b", "view_count": None}]),
    ("counts of several types", "l.jsonl", '{"url": "a", "view_count": "12"}\n{"url": "b", "view_count": 12.0}\n',
     [{"url": "a", "view_count": 12}, {"url": "b", "view_count": 12}]),
    ("lists as pandas writes them", "l.csv", "url,hashtags,tags\n" + 'a,"[\'cat\', \'dog\'\'s\', None]","[""two words"", ""b""]"\nb,[],[]\n'.replace("''", "\\'"),
     [{"url": "a", "hashtags": ["cat", "dog's"], "tags": ["two words", "b"]}, {"url": "b", "hashtags": [], "tags": []}]),
    ("lists in words", "l.csv", 'url,hashtags,tags\na,#cat #dog,two words;b\nb,cat;dog,"#two words, #b"\nc,a b,one tag\n',
     [{"url": "a", "hashtags": ["cat", "dog"], "tags": ["two words", "b"]},
      {"url": "b", "hashtags": ["cat", "dog"], "tags": ["two words", "b"]},
      {"url": "c", "hashtags": ["a", "b"], "tags": ["one tag"]}]),
    ("a long number among numbers", "l.jsonl", '{"url": "a", "by": 7}\n{"url": "b", "by": 21000000000000000000}\n',
     [{"url": "a", "by": "7"}, {"url": "b", "by": "21000000000000000000"}]),
    ("numbers and words", "l.jsonl", '{"url": "a", "n": 1}\n{"url": "b", "n": "x"}\n{"url": "c", "n": {"x": [1]}}\n',
     [{"url": "a", "n": "1"}, {"url": "b", "n": "x"}, {"url": "c", "n": '{"x": [1]}'}]),
    ("objects without a key", "l.jsonl", '{"url": "a", "x": {}, "y": {"z": {}}}\n', [{"url": "a", "x": None, "y": {"z": None}}]),
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
    ("ragged", "l.csv", "url,title\na\n", "no row can be read; line 2: 1 cells, where the header has 2"),
    ("not UTF-8", "l.csv", b"url,title\na,\xff\xfe\n", "line 2: not UTF-8; save the list as UTF-8"),
    ("UTF-16", "l.csv", "url\na\n".encode("utf-16"), "line 1: not UTF-8"),
    ("a quote that is not closed", "l.csv", 'url,title\na,x\nb,"y\nc,z\n', "line 4: not readable as csv: unexpected end of data"),
    ("text behind a quote", "l.csv", 'url,title\na,"x"y\n', "line 2: not readable as csv: ',' expected after '\"'"),
    ("two columns of one name", "l.csv", "url,title,title\na,b,c\n", "columns with the same name: title"),
    ("one name after trimming", "l.csv", "url, title,title\na,b,c\n", "columns with the same name: title"),
    ("no line of JSON", "l.jsonl", "a.mp4\n", "no row can be read; line 1: not JSON"),
    ("a name that another gets", "l.csv", "url,width,crawl_width\na,1,2\n", "column `crawl_width` exists"),
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


def deep(count: int) -> str:
    return f'{{"url": {"[" * count}{"]" * count}}}'


NOTED: list[tuple[str, str, str, str, object]] = [
    # file, content, note behind the file's name, column, its cells
    ("a.csv", "url,age_limit\na,0\nb,18+\n\nc,\nd,all\n",
     "age_limit: 2 of 3 cells cannot be read (first in line 3: '18+'): left empty", "age_limit", [0, None, None, None]),
    ("a.csv", 'url,title,view_count\na,"two\nlines",3\nb,x,99999999999999999999\n',
     "view_count: 1 of 2 cells cannot be read (first in line 4: '99999999999999999999'): left empty", "view_count", [3, None]),
    ("a.csv", "url,like_count\na,1.5\nb,1e999\nc,0x1F\nd,-2\n",
     "like_count: 3 of 4 cells cannot be read (first in line 2: '1.5'): left empty", "like_count", [None, None, None, -2]),
    ("a.jsonl", '{"url": "a", "age_limit": true}\n{"url": "b", "age_limit": 18}\n',
     "age_limit: 1 of 2 cells cannot be read (first in line 1: True): left empty", "age_limit", [None, 18]),
    ("a.jsonl", '{"url": "a", "title": {"x": 1}}\n{"url": "b", "title": "t"}\n',
     "title: 1 of 2 cells cannot be read (first in line 1: {'x': 1}): left empty", "title", [None, "t"]),
    ("a.jsonl", '{"url": "a", "title": "\\ud83d!"}\n{"url": "b", "title": "\\ud83d\\ude00"}\n',
     "title: 1 of 2 cells hold half a surrogate pair (first in line 1: '\\ud83d!'): replaced by U+FFFD", "title", ["\ufffd!", "😀"]),
    ("a.jsonl", '{"url": "a", "own": {"x": ["\\udc00"]}}\n',
     "own: 1 of 1 cells hold half a surrogate pair (first in line 1: {'x': ['\\udc00']}): replaced by U+FFFD", "own",
     [{"x": ["\ufffd"]}]),
    ("a.csv", "url,tags\na,[[1]]\nb,['a' 'b']\nc,\"['\\xzz']\"\nd,[x]\n",
     "tags: 3 of 4 cells cannot be read (first in line 2: '[[1]]'): left empty", "tags", [[], [], [], ["x"]]),
    ("a.csv", f"url,hashtags\na,{'#x ' * 30_000}\n", "hashtags: 1 of 1 cells cannot be read", "hashtags", [[]]),
    ("a.csv", "url,title\na,b,c\nb,x\n", "1 of 2 rows cannot be used (first in line 2: 3 cells, where the header has 2): failed",
     "url", ["a", "b"]),
    ("a.jsonl", '{"url": "a"}\n\n["b"]\n{"url": \n', "2 of 3 rows cannot be used (first in line 3: not an object): failed",
     "url", ["a", None, None]),
    ("a.jsonl", '{"url": "a"}\n{"url": ["b"]}\n', "1 of 2 rows cannot be used (first in line 2: its url cannot be used: ['b']): failed",
     "url", ["a", None]),
    ("a.jsonl", f'{{"url": "a"}}\n{deep(100_000)}\n', "1 of 2 rows cannot be used (first in line 2: not JSON: ", "url", ["a", None]),
]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "note", "column", "cells"), NOTED)
def test_a_cell_or_a_row_that_cannot_be_read_is_counted_once_and_the_others_are_read(
    file: str, content: str, note: str, column: str, cells: object, tmp_path: Path
) -> None:
    table = whole(ListSource(list=str(write(tmp_path, file, content))).candidates())
    assert table.column(column).to_pylist() == cells
    (told,) = notes_of(table.schema)
    assert told.startswith(f"{file}: {note}")
    assert len(told) < 250


OWN = [
    (["1", "-20", None], pa.int64(), [1, -20, None]),
    (["1", "2.5", "1e3"], pa.float64(), [1.0, 2.5, 1000.0]),
    (["True", "false", None], pa.bool_(), [True, False, None]),
    (["007", "12"], pa.string(), ["007", "12"]),
    (["01.5", "2.5"], pa.string(), ["01.5", "2.5"]),
    (["+49301", "12"], pa.string(), ["+49301", "12"]),
    (["9223372036854775807", "1"], pa.int64(), [2**63 - 1, 1]),
    (["9223372036854775808", "1"], pa.string(), ["9223372036854775808", "1"]),
    (["21000000000000000000", "1.5"], pa.string(), ["21000000000000000000", "1.5"]),
    (["1", "n/a"], pa.string(), ["1", "n/a"]),
    (["true", "1"], pa.string(), ["true", "1"]),
    ([None, None], pa.string(), [None, None]),
]


@pytest.mark.parametrize(("cells", "kind", "values"), OWN)
def test_a_csvs_own_column_has_the_type_that_all_its_cells_have(
    cells: list[str | None], kind: pa.DataType, values: list[object], tmp_path: Path
) -> None:
    text = "url,own\n" + "".join(f"{number},{cell or ''}\n" for number, cell in enumerate(cells))
    column = whole(ListSource(list=str(write(tmp_path, "l.csv", text))).candidates()).column("own")
    assert (column.type, column.to_pylist()) == (kind, values)


def test_what_a_list_holds_reaches_conditions_as_numbers_and_json_as_json(tmp_path: Path) -> None:
    lines = [{"url": f"{n}", "clip_id": f"{n}00", "score": score, "nested": nested, "none": [], "odd": {}}
             for n, (score, nested) in enumerate([(math.nan, [math.inf]), (1.5, [2.0]), (math.inf, [-math.inf]), (-math.inf, None)])]  # fmt: skip
    write(tmp_path, "l.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path, "l.csv", "url,clip_id,my_score,zip\n0,000,0.5,01067\n1,100,2,10115\n2,200,,10115\n")
    for name in ("l.jsonl", "l.csv"):
        run(
            check({"source": {"list": str(tmp_path / name)}, "stages": [PAINT]}, "r"),
            tmp_path / f"{name}.out",
            InProcessEngine(),
        )
    dataset = Dataset.open(str(tmp_path / "l.jsonl.out"))
    told = {row["clip_id"]: dataset.read_member(row, f"{row['clip_id']}.json") for row in dataset.rows()}
    strict = {key: json.loads(data, parse_constant=pytest.fail) for key, data in told.items()}
    assert [strict[key]["score"] for key in sorted(strict)] == [None, 1.5, None, None]
    assert [strict[key]["nested"] for key in sorted(strict)] == [[None], [2.0], [None], None]
    done = command("why", tmp_path / "l.jsonl.out", "000", "--json")
    assert json.loads(done.stdout, parse_constant=pytest.fail)["score"] is None
    table = pa.concat_tables(Dataset.open(str(tmp_path / "l.csv.out")).tables())
    assert table.filter(matching(table, "my_score > 1")).column("clip_id").to_pylist() == ["100"]
    assert table.filter(matching(table, "zip = '01067'")).column("clip_id").to_pylist() == ["000"]


def test_a_row_that_cannot_be_used_is_a_failed_candidate_that_names_its_line(tmp_path: Path) -> None:
    write(tmp_path, "l.csv", 'clip_id,url,title\na,1,"two\nlines"\na,2,x\nb,,x\n../c,3,x\nd,4\n')
    run(
        check({"source": {"list": str(tmp_path / "l.csv")}, "stages": [PAINT]}, "r"),
        tmp_path / "out",
        InProcessEngine(),
    )
    details = {row["detail"]: (row["status"], row["reason"]) for row in rows(tmp_path / "out").values()}
    assert details.pop(None) == ("kept", None)
    assert details == {
        "line 2 has this id": ("rejected", "repeated"),
        "line 5 names no url": ("failed", "no_url"),
        f"line 6: '../c' is not {KEY_PATTERN.pattern}": ("failed", "bad_clip_id"),
        "line 7: 2 cells, where the header has 3": ("failed", "bad_row"),
    }


@pytest.mark.parametrize(
    ("value", "tags"),
    [("#a#b", ["a", "b"]), ("a b,c", ["a", "b", "c"]), (" # ", []), (None, []), (["#a", None, " b "], ["a", "b"]),
     ("#猫 #c++", ["猫", "c++"]), (7, ["7"]), (["two words"], ["two words"])],
)  # fmt: skip
def test_hashtags_are_a_list_whatever_they_came_as(value: object, tags: list[str]) -> None:
    assert split_hashtags(value) == tags


_OF_ALL_VALUES = {
    "numbers": ([1, 2, 0.5, None, 3], pa.float64()),
    "large numbers": ([2**53 + 1, None, None, None, 0.5], pa.string()),
    "words and numbers": (["a", "b", "c", 7, None], pa.string()),
    "objects": ([{"b": 1}, None, {"a": 0.5}, {"b": 2.5}, {}], pa.struct([("b", pa.float64()), ("a", pa.float64())])),
    "lists": ([[], [1], None, [None], [0.5]], pa.list_(pa.float64())),
    "lists of lists": ([[[1]], [], None, ["x"], None], pa.string()),
    "nothing": ([None] * 5, pa.string()),
    "truths": ([None, None, None, True, False], pa.bool_()),
    "numbers beyond 64 bits": ([1, 2, 3, 2**64, 5], pa.string()),
    "half an emoji": (["a", "b", "c", "\ud83d", "e"], pa.string()),
    "nested by the hundred": ([json.loads("[" * 100 + "]" * 100), None, None, None, None], pa.string()),
}


@pytest.mark.parametrize("name", _OF_ALL_VALUES)
def test_a_jsonl_column_has_the_type_of_all_its_values_in_however_many_parts_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, kind = _OF_ALL_VALUES[name]
    rows = [{"url": f"https://a/{n}"} | ({} if value is None else {"own": value}) for n, value in enumerate(values)]
    rows.append({"url": "https://a/last", "own": None})
    path = write(tmp_path, "l.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    tables = []
    for part_rows in (2, 1_000):
        monkeypatch.setattr("vidal.listing.PART_ROWS", part_rows)
        tables.append(whole(ListSource(list=str(path)).candidates()))
    assert tables[0].equals(tables[1], check_metadata=True)
    assert tables[0].schema.field("own").type == kind
