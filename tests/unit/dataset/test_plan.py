"""A plan holds every candidate once, under a safe id, in an order that the seed alone decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vidal.dataset import plan as plans
from vidal.dataset import planning
from vidal.dataset.plan import Plan
from vidal.dataset.storage import Storage
from vidal.dataset.tars import KEY_PATTERN
from vidal.errors import RecipeError, StorageError
from vidal.rows import Stream, whole
from vidal.sources.normalise import normalise


def made(rows: list[dict[str, Any]], size: int = 4, seed: int = 0) -> list[dict[str, Any]]:
    return whole(planning.make(normalise(pa.Table.from_pylist(rows), "here"), shard_size=size, seed=seed)).to_pylist()


def urls(count: int) -> list[dict[str, Any]]:
    return [{"url": f"{n}.mp4"} for n in range(count)]


def test_every_candidate_is_in_the_plan_once_in_shards_of_the_size() -> None:
    rows = made(urls(10))
    assert sorted(row["url"] for row in rows) == sorted(f"{n}.mp4" for n in range(10))
    assert [row["position"] for row in rows] == list(range(10))
    assert [row["shard"] for row in rows] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert len({row["clip_id"] for row in rows}) == 10


def test_the_seed_decides_the_order_and_the_url_decides_the_id() -> None:
    first, again, other = made(urls(50)), made(urls(50)), made(urls(50), seed=1)
    assert first == again
    assert [row["url"] for row in first] != [row["url"] for row in other]
    assert {r["url"]: r["clip_id"] for r in first} == {r["url"]: r["clip_id"] for r in other}
    assert [row["url"] for row in first] != [f"{n}.mp4" for n in range(50)]


ODD = [
    # rows of the source, (status, stage, reason) of each
    ([{"url": "a"}, {"url": "a"}], [(None, None, None), ("rejected", "plan", "repeated")]),
    ([{"url": None}, {"url": ""}], [("failed", "plan", "no_url"), ("failed", "plan", "no_url")]),
    ([{"url": "a", "clip_id": "x"}, {"url": "b", "clip_id": "x"}], [(None,) * 3, ("rejected", "plan", "repeated")]),
    ([{"url": "a", "clip_id": "../../etc"}], [("failed", "plan", "bad_clip_id")]),
    ([{"url": "a", "clip_id": "x" * 81}], [("failed", "plan", "bad_clip_id")]),
    ([{"url": "a", "clip_id": "a.b"}, {"url": "b", "clip_id": "ok"}], [("failed", "plan", "bad_clip_id"), (None,) * 3]),
    ([{"url": "a", "clip_id": None}, {"url": "a", "clip_id": "x"}], [(None,) * 3, (None,) * 3]),
    ([{"url": "a", "clip_id": "猫"}, {"url": "a", "clip_id": "猫"}], [("failed", "plan", "bad_clip_id")] * 2),
    ([{"url": "a", "clip_id": "a.b"}, {"url": "a", "clip_id": None}], [("failed", "plan", "bad_clip_id"), (None,) * 3]),
    ([{"url": "../a", "clip_id": ""}], [("failed", "plan", "bad_clip_id")]),
]


@pytest.mark.parametrize(("candidates", "outcomes"), ODD)
def test_a_candidate_that_cannot_be_one_is_a_row_that_says_so(
    candidates: list[dict[str, Any]], outcomes: list[tuple[str | None, ...]]
) -> None:
    for number, candidate in enumerate(candidates):
        candidate["uploader"] = str(number)
    rows = sorted(made(candidates), key=lambda row: row["uploader"])
    assert [(row["status"], row["stage"], row["reason"]) for row in rows] == outcomes
    assert [row["url"] for row in rows] == [candidate["url"] for candidate in candidates]
    ids = [row["clip_id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert all(KEY_PATTERN.fullmatch(clip_id) for clip_id in ids)


def test_an_id_that_is_another_candidates_hash_is_no_clash() -> None:
    hashed = made([{"url": "a"}])[0]["clip_id"]
    rows = made([{"url": "b", "clip_id": hashed}, {"url": "a", "clip_id": None}])
    assert sorted((row["url"], row["reason"]) for row in rows) == [("a", "repeated"), ("b", None)]
    assert len({row["clip_id"] for row in rows}) == 2


@pytest.mark.parametrize(("count", "size"), [(1, 1), (7, 3), (25_000, 7), (25_000, 20_000)])
def test_a_frozen_plan_gives_each_shard_its_slice(count: int, size: int, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    candidates = normalise(pa.Table.from_pylist([{**u, "likes": 1} for u in urls(count)]), "h")
    table = whole(planning.make(candidates, shard_size=size, seed=0))
    plans.write(storage, table, size)
    plan = Plan(storage)
    assert (plan.candidate_count, plan.shard_count, plan.shard_size) == (count, -(-count // size), size)
    assert plan.extra_schema().names == ["likes"]
    wanted = table.column("clip_id").to_pylist()
    for shard in {0, plan.shard_count // 2, plan.shard_count - 1}:
        assert plan.clip_ids(shard) == wanted[shard * size : (shard + 1) * size]
        assert {row["shard"] for row in plan.rows(shard)} == {shard}


def test_the_same_plan_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        table = planning.make(normalise(pa.Table.from_pylist(urls(100)), "h"), shard_size=8, seed=3)
        plans.write(Storage(str(tmp_path / name)), table, 8)
    assert (tmp_path / "a/plan.parquet").read_bytes() == (tmp_path / "b/plan.parquet").read_bytes()


def test_a_decision_sets_what_it_names_and_nothing_else() -> None:
    plan = whole(planning.make(normalise(pa.Table.from_pylist(urls(5)), "h"), shard_size=2, seed=0))
    ids = plan.column("clip_id").to_pylist()
    decided = pa.table({
        "clip_id": [ids[3], "not in the plan", ids[1]],
        "status": ["rejected", "rejected", None],
        "duplicate_of": [ids[1], None, None],
        "cluster": [ids[1], "x", ids[1]],
    })  # fmt: skip
    after = whole(plans.decide(plan, decided))
    assert after.column("status").to_pylist() == [None, None, None, "rejected", None]
    assert after.column("duplicate_of").to_pylist() == [None, None, None, ids[1], None]
    assert after.column("cluster").to_pylist() == [None, ids[1], None, ids[1], None]
    untouched = [name for name in plan.column_names if name not in ("status", "duplicate_of", "cluster")]
    assert after.select(untouched) == plan.select(untouched)
    assert plans.decide(plan, decided.slice(0, 0)) == plan


def _in_batches(table: pa.Table, size: int) -> Stream:
    return Stream(table.schema, table.num_rows, lambda: table.to_batches(max_chunksize=size))


@pytest.mark.parametrize("plan_rows", [1, 7, 100])
@pytest.mark.parametrize("decided_rows", [1, 10, 100])
@pytest.mark.parametrize("named", [[], [0], [99], [3, 4, 5, 50, 98], list(range(100)), list(range(0, 100, 3))])
def test_a_decision_that_is_read_part_by_part_sets_what_one_in_memory_does(
    plan_rows: int, decided_rows: int, named: list[int]
) -> None:
    plan = whole(planning.make(normalise(pa.Table.from_pylist(urls(100)), "h"), shard_size=8, seed=0))
    statuses = ["rejected" if n % 2 else None for n in named]
    columns = {"clip_id": plan["clip_id"].take(pa.array(named, pa.int64())), "status": pa.array(statuses, pa.string())}
    decided = pa.table(columns)
    after = whole(plans.decide(_in_batches(plan, plan_rows), _in_batches(decided, decided_rows)))
    assert after == whole(plans.decide(plan, decided))
    found = [(n, status) for n, status in enumerate(after["status"].to_pylist()) if status]
    assert found == [(n, "rejected") for n in named if n % 2]


@pytest.mark.parametrize("named", [[50, 3], [99, 0], [3, 3]])
def test_a_decision_that_is_read_part_by_part_in_another_order_is_refused(named: list[int]) -> None:
    plan = whole(planning.make(normalise(pa.Table.from_pylist(urls(100)), "h"), shard_size=8, seed=0))
    decided = pa.table({"clip_id": plan["clip_id"].take(pa.array(named)), "status": ["rejected"] * len(named)})
    with pytest.raises(RecipeError, match="a decision's clips are not in plan order"):
        whole(plans.decide(_in_batches(plan, 7), _in_batches(decided, 1)))


def test_a_plan_that_the_storage_does_not_give_is_an_error_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "plan.parquet").mkdir()
    with pytest.raises(StorageError, match=r"plan\.parquet"):
        Plan(Storage(str(tmp_path)))
