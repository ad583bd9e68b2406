"""Where members lie: as the manifest's column says, in a fraction of its memory."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from vidal.clip import schema
from vidal.reader.offsets import Offsets, Part, neighbours
from vidal.reader.rows import Rows

MEMBERS = schema().field("members").type


def member(layer: str, suffix: str, offset: int, size: int = 10, sha256: str = "ab" * 32) -> dict[str, Any]:
    return {"layer": layer, "name": f"key.{suffix}", "offset": offset, "size": size, "sha256": sha256}


def part(*rows: list[dict[str, Any]] | None) -> Part:
    return Part.of(pa.array(rows, MEMBERS))


def test_members_are_found_by_sample_and_layer_over_the_shards() -> None:
    first = part([member("depth", "depth.0.png", 512), member("video", "mp4", 512)], [], None)
    other = part([member("audio", "flac", 7), member("depth", "depth.1.png", 900), member("depth", "depth.0.png", 600)])
    offsets = Offsets([first, part(), other])
    found = {
        (number, layer): [(place.suffix, place.offset) for place in offsets.places(number, layer, None)]
        for number in range(4) for layer in ("video", "depth", "audio", "smell")
    }  # fmt: skip
    assert {key: places for key, places in found.items() if places} == {
        (0, "depth"): [("depth.0.png", 512)], (0, "video"): [("mp4", 512)], (3, "audio"): [("flac", 7)],
        (3, "depth"): [("depth.0.png", 600), ("depth.1.png", 900)],
    }  # fmt: skip
    assert {layer: offsets.has(layer).tolist() for layer in ("depth", "audio", "smell")} == {
        "depth": [True, False, False, True], "audio": [False, False, False, True], "smell": [False] * 4,
    }  # fmt: skip


def test_the_json_comes_only_where_it_is_asked_for() -> None:
    offsets = Offsets([part([member("video", "mp4", 512), member("video", "json", 1024)])])
    assert [place.suffix for place in offsets.places(0, "video", None)] == ["mp4"]
    assert [place.suffix for place in offsets.places(0, "video", ["json"])] == ["json"]


def test_a_place_carries_the_head_of_its_hash() -> None:
    sums = [f"{n:02x}" * 32 for n in (0, 1, 255)]
    offsets = Offsets([part([member("video", f"frame.{n}.jpg", n, sha256=one) for n, one in enumerate(sums)])])
    assert [place.sum for place in offsets.places(0, "video", None)] == [bytes.fromhex(one)[:8] for one in sums]


@pytest.mark.parametrize("gap", [0, 512, 64 * 1024, 64 * 1024 + 1])
def test_what_stands_together_is_read_in_one_go(gap: int) -> None:
    offsets = Offsets([part([member("video", "frame.0.jpg", 0), member("video", "frame.1.jpg", 10 + gap)])])
    assert len(neighbours(offsets.places(0, "video", None))) == (1 if gap <= 64 * 1024 else 2)


def test_a_layer_reaches_as_far_as_its_last_member() -> None:
    assert part([member("a", "x", 5, 3), member("b", "y", 100, 1)], [member("a", "x", 6, 9)]).reaches() == {
        "a": 15,
        "b": 101,
    }


def test_more_suffixes_than_a_short_number_holds_stay_apart() -> None:
    offsets = Offsets([part([member("video", f"frame.{n}.jpg", n) for n in range(33_000)])])
    assert offsets.places(0, "video", None)[-1].suffix == "frame.32999.jpg"


@pytest.mark.parametrize(
    "change", [{"sha256": "ab"}, {"sha256": "zz" * 32}, {"sha256": None}, {"offset": None}, {"name": None}]
)
def test_members_that_no_writer_of_ours_noted_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        part([{**member("video", "mp4", 0), **change}])


def rows(*shards: list[dict[str, Any]]) -> Rows:
    tables = [pa.Table.from_pylist(shard) for shard in shards]
    full = [name for table in tables for name in table.column_names]
    kinds = pa.schema({name: pa.int64() if name == "n" else pa.string() for name in full})
    return Rows([kinds], tables)


def test_rows_of_shards_with_other_columns_are_one_table() -> None:
    found = rows([{"n": 0, "a": "x"}, {"n": 1, "a": None}], [{"n": 2, "b": "y"}])
    wanted = [{"n": 0, "a": "x", "b": None}, {"n": 1, "a": None, "b": None}, {"n": 2, "a": None, "b": "y"}]
    assert found.table.to_pylist() == [found.row(k) for k in range(3)] == wanted
    assert found.row(2, ["b", "none"]) == {"b": "y"} and found.numbers("n").tolist() == [0, 1, 2]
    import numpy as np

    assert list(found.dicts(np.asarray([True, False, True]), ["n", "a"])) == [{"n": 0, "a": "x"}, {"n": 2, "a": None}]


def test_columns_of_nulls_share_one_memory() -> None:
    kinds = pa.schema([("n", pa.int64()), *((f"empty{k}", pa.string()) for k in range(100))])
    tables = [pa.table({"n": pa.array(range(1000), pa.int64())}) for _ in range(20)]
    before = pa.total_allocated_bytes()
    found = Rows([kinds], tables)
    assert pa.total_allocated_bytes() - before < 20_000
    assert found.table.num_rows == 20_000 and found.row(19_999)["empty99"] is None
