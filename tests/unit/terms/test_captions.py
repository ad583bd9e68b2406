"""Captions are read from any format, and what holds none says why."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidal.errors import SourceError
from vidal.terms import captions
from vidal.terms.captions import Input, Unreadable


def read(text: str) -> list[str]:
    return [f"<{c.reason}>" if isinstance(c, Unreadable) else c.strip() for c in Input.parse(text).captions()]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


FILES = [
    ("a.txt", "", b"\xef\xbb\xbfa dog\n\nein \xff Hund\r\na cat", ["a dog", "<blank>", "<not_utf8>", "a cat"]),
    ("a.csv", ":c", b'id,c\n1,"a dog, wet"\n2\n\n3,\xff\n', ["a dog, wet", "<no_field>", "<not_utf8>"]),
    ("a.tsv", ":c", b"c\tid\na dog\t1\n", ["a dog"]),
    (
        "a.jsonl",
        ":c",
        b'{"c": "a dog"}\n{"c": ["a", null, 3]}\n[1]\n{"d": 1}\nnot json\n{"c": "\\ud800"}\n',
        ["a dog", "a", "<blank>", "<not_text>", "<no_field>", "<no_field>", "<not_json>", "<not_utf8>"],
    ),
]


@pytest.mark.parametrize(("name", "field", "content", "expected"), FILES, ids=[case[0] for case in FILES])
def test_every_format_is_read(name: str, field: str, content: bytes, expected: list[str], tmp_path: Path) -> None:
    assert read(f"{write(tmp_path / name, content)}{field}") == expected


def test_parquet_is_read_with_lists_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff"], pa.binary()).buffers()[1:]])
    pq.write_table(pa.table({"c": broken, "many": [["a", "b"], None]}), tmp_path / "a.parquet")
    assert read(f"{tmp_path}/a.parquet:c") == ["ok", "<not_utf8>"]
    assert read(f"{tmp_path}/a.parquet:many") == ["a", "b", "<blank>"]


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MAX_LINE_BYTES", 16)
    path = write(tmp_path / "a.txt", b"a dog\n" + 50 * b"x" + b"\na cat\n")
    assert read(str(path)) == ["a dog", "<too_long>", "a cat"]


NAMES = [("{}/a.csv:c", "a", "c"), ("mine={}/a.csv:c", "mine", "c"), ("{}/a.txt", "a", None), ("x={}/a.txt", "x", None)]


@pytest.mark.parametrize(("text", "source", "field"), NAMES)
def test_an_input_names_its_source_and_its_field(text: str, source: str, field: str | None, tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt"):
        write(tmp_path / name, b"c\n")
    parsed = Input.parse(text.format(tmp_path))
    assert (parsed.source, parsed.field) == (source, field)


REJECTED = [
    ("{}/none.txt", "no such file"),
    ("{}/a.json", "captions come from .txt, .csv, .tsv, .jsonl, .parquet, not .json"),
    ("{}/a.csv", "say which field holds the captions: {}/a.csv:FIELD"),
    ("{}/a.csv:d", "no field `d` (it has c, e)"),
    ("{}/a.jsonl:d", "no field `d` (it has c)"),
    ("{}/a.parquet:c", "cannot be read: "),
    ("{}/a.txt:c", "a text file has one caption per line and no field `c`"),
]


@pytest.mark.parametrize(("text", "said"), REJECTED)
def test_what_cannot_be_read_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", b"c,e\nx,y\n")
    write(tmp_path / "a.jsonl", json.dumps({"c": "x"}).encode())
    write(tmp_path / "a.parquet", b"no parquet at all")
    write(tmp_path / "a.txt", b"x")
    with pytest.raises(SourceError) as error:
        read(text.format(tmp_path))
    assert said.format(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
