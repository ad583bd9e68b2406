"""Every break of a dataset's promises is named by shard and key; a whole one has nothing to name."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.runs import PAINT, SHADE, rows, run, write_recipe
from vidal.commands import app
from vidal.dataset.dataset import Dataset
from vidal.dataset.verify import verify
from vidal.engine.local import InProcessEngine


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three shards and two layers, in which all is well."""
    folder = tmp_path_factory.mktemp("whole")
    run(write_recipe(folder, [PAINT, SHADE], 10), folder / "out", InProcessEngine())
    return folder / "out"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def problems(out: Path) -> list[str]:
    return [str(problem) for problem in verify(Dataset.open(str(out)))]


def member(out: Path, layer: str, name: str) -> tuple[Path, int, int]:
    """Where a member is."""
    row = rows(out)[name.partition(".")[0]]
    record = next(m for m in row["members"] if m["layer"] == layer and m["name"] == name)
    return out / layer / f"{row['shard']:06d}.tar", record["offset"], record["size"]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit(out: Path, shard: int, change: Callable[[pa.Table], pa.Table]) -> None:
    path = out / "manifest" / f"{shard:06d}.parquet"
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def with_value(name: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        values[row] = value
        return table.set_column(table.column_names.index(name), table.schema.field(name), pa.array(values, table.schema.field(name).type))  # fmt: skip

    return change


def test_a_whole_dataset_has_nothing_to_name(whole: Path) -> None:
    assert problems(whole) == []


def test_a_flipped_byte_of_a_member_is_named_by_shard_key_and_member(copy: Path) -> None:
    path, offset, _ = member(copy, "depth", "c003.depth.1.png")
    flip(path, offset)
    shard = rows(copy)["c003"]["shard"]
    assert problems(copy)[0] == (
        f"shard {shard:06d}: c003: c003.depth.1.png in depth does not match the hash in the manifest"
    )
    assert {p.shard for p in verify(Dataset.open(str(copy)))} == {shard}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1, exclude_max=True), layer=st.sampled_from(["video", "depth"]), shard=st.integers(0, 2))
def test_any_flipped_byte_of_any_tar_is_found(whole: Path, place: float, layer: str, shard: int) -> None:
    path = whole / layer / f"{shard:06d}.tar"
    offset = int(place * path.stat().st_size)
    flip(path, offset)
    try:
        assert {p.shard for p in verify(Dataset.open(str(whole)))} == {shard}
    finally:
        flip(path, offset)


@pytest.mark.parametrize("left", [0, 1, 511, 512, 5000, -1])
def test_a_truncated_tar_is_found(copy: Path, left: int) -> None:
    path = copy / "video" / "000001.tar"
    path.write_bytes(path.read_bytes()[:left])
    found = problems(copy)
    assert found
    assert all(line.startswith("shard 000001: ") for line in found)


def test_a_tar_that_is_gone_is_found(copy: Path) -> None:
    (copy / "depth" / "000002.tar").unlink()
    assert problems(copy)[0].startswith("shard 000002: depth: the tar cannot be read: ")


def test_a_tar_without_manifest_and_a_shard_without_plan_are_found(copy: Path) -> None:
    shutil.copy(copy / "video" / "000000.tar", copy / "video" / "000009.tar")
    assert problems(copy) == ["video/000009.tar has no manifest"]
    shutil.copy(copy / "manifest" / "000000.parquet", copy / "manifest" / "000009.parquet")
    assert problems(copy) == ["shard 000009: is not in the plan"]


def test_a_shard_that_is_not_built_yet_is_named(copy: Path) -> None:
    (copy / "manifest" / "000001.parquet").unlink()
    assert problems(copy)[0] == "shard 000001: not built yet (no manifest)"


def test_a_member_that_no_row_names_is_found(copy: Path) -> None:
    path = copy / "video" / "000000.tar"
    with tarfile.open(path, "a", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("stranger.mp4"))
    assert problems(copy) == ["shard 000000: video: the tar's members do not match the manifest (stranger.mp4)"]


def without_members(**values: object) -> Callable[[pa.Table], pa.Table]:
    """A change of the first row, which loses its members, too."""

    def change(table: pa.Table) -> pa.Table:
        for name, value in {"members": [], "layers": [], **values}.items():
            table = with_value(name, 0, value)(table)
        return table

    return change


EDITS: list[tuple[str, Callable[[pa.Table], pa.Table], str]] = [
    ("a row taken out", lambda t: t.slice(1), "its rows are not the candidates of the plan, in plan order"),
    ("two rows swapped", lambda t: t.take([1, 0, 2, 3]), "its rows are not the candidates of the plan, in plan order"),
    ("a column dropped", lambda t: t.drop_columns(["blur"]), "its columns do not match the schema"),
    ("a column's type changed", lambda t: t.set_column(t.column_names.index("width"), "width",
        pc.cast(t.column("width"), pa.float64())), "its columns do not match the schema"),
    ("a kept row rejected", with_value("status", 0, "rejected"), "is rejected but has members"),
    ("an outcome that is none", with_value("status", 0, "candidate"), "status is 'candidate'"),
    ("a time moved", with_value("frame_times", 0, [0.5]), "has images [0, 1] for 1 times"),
    ("a layer left out", with_value("layers", 0, ["video"]), "its layers do not match its members"),
    ("members left out", with_value("members", 0, []), "its layers do not match its members"),
    ("neither members nor an outcome", without_members(status="candidate", stage="probe", reason="gone"), "status is 'candidate'"),
    ("no members, no stage", without_members(status="failed", reason="gone"), "is failed without stage and reason"),
    ("no members, an empty reason", without_members(status="rejected", stage="probe", reason=""), "is rejected without stage and reason"),
    ("no members, an unsafe key", without_members(clip_id="a/b"), "is not a safe key"),
    ("no members, and a line end behind the key", without_members(clip_id="c\n"), "is not a safe key"),
    ("no members, but a layer", without_members(layers=["video"]), "its layers do not match its members"),
    ("a size changed", with_value("frame_width", 0, 17), "the frames are (17, 16)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), EDITS)
def test_an_edited_manifest_is_found(
    name: str, change: Callable[[pa.Table], pa.Table], message: str, copy: Path
) -> None:
    edit(copy, 0, change)
    found = problems(copy)
    assert any(message in line for line in found), found
    assert all(line.startswith("shard 000000: ") for line in found)


def test_a_manifest_that_is_no_parquet_is_found(copy: Path) -> None:
    path = copy / "manifest" / "000001.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    assert problems(copy)[0].startswith("shard 000001: the manifest cannot be read: ")


def test_a_manifest_of_another_recipe_is_found(copy: Path) -> None:
    path = copy / "manifest" / "000001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"vidal.fingerprint": b"other"}), path)
    assert problems(copy)[0].startswith("shard 000001: written for fingerprint other, not ")


def test_the_command_says_it_with_its_exit_code(copy: Path) -> None:
    runner = CliRunner()
    well = runner.invoke(app, ["verify", str(copy), "--json"])
    assert (well.exit_code, json.loads(well.stdout)) == (0, {"ok": True, "shards": 3, "problems": []})
    path, offset, _ = member(copy, "video", "c003.mp4")
    flip(path, offset)
    shard = rows(copy)["c003"]["shard"]
    broken = runner.invoke(app, ["verify", str(copy), "--json"])
    what = "c003.mp4 in video does not match the hash in the manifest"
    assert (broken.exit_code, json.loads(broken.stdout)) == (
        1,
        {"ok": False, "shards": 3, "problems": [{"shard": shard, "key": "c003", "what": what}]},
    )
    assert f"shard {shard:06d}: c003: {what}" in runner.invoke(app, ["verify", str(copy)]).stdout
