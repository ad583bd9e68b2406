"""pylance reads an export: rows at random, media by range, and of a removed clip nothing, not in any file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import lance
import pytest

from tests.processes import command
from tests.runs import AUDIO, CAPTION, PAINT, SHADE, run, write_recipe
from vidal import extras
from vidal.dataset.dataset import Dataset
from vidal.dataset.removals import Removals
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError
from vidal.export import lance as lances
from vidal.export.lance import NAME, write_lance
from vidal.removal.follow import follow

TITLES = ["mute", "a dog", "a secret title", "", "a cat", "<script>"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("lance")
    run(write_recipe(folder, [PAINT, CAPTION, AUDIO, SHADE], TITLES), folder / "out", InProcessEngine())
    return Dataset.open(str(folder / "out"))


@pytest.fixture(scope="module")
def exported(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "toys"
    write_lance(dataset, str(folder))
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / NAME / "data").rglob("*") if path.is_file()}


def test_rows_are_the_manifest_with_the_members(dataset: Dataset, exported: Path) -> None:
    table, rows = lance.dataset(str(exported / NAME)), list(dataset.rows())
    media = ("video", "audio", "frame", "depth")
    assert table.to_table().drop_columns([*media]).to_pylist() == rows
    order = [5, 0, 3]
    taken = table.take(order, columns=["clip_id", "depth"]).to_pylist()
    videos, audios = (table.take_blobs(name, indices=order) for name in ("video", "audio"))
    for n, sample, video, audio in zip(order, taken, videos, audios, strict=True):
        row, clip_id = rows[n], sample["clip_id"]
        assert clip_id == row["clip_id"]
        whole = dataset.read_member(row, f"{clip_id}.mp4")
        video.seek(2)
        assert video.read() == whole[2:]
        assert (audio is None) == (row["title"] == "mute")
        assert sample["depth"] == [dataset.read_member(row, f"{clip_id}.depth.{k}.png") for k in range(2)]


def test_duckdb_and_pandas_read_its_columns(exported: Path) -> None:
    rows = lance.dataset(str(exported / NAME)).to_table(columns=["title", "has_audio"])
    assert duckdb.sql("SELECT title FROM rows WHERE NOT has_audio").fetchall() == [("mute",)]
    assert sorted(rows.to_pandas()["title"].dropna()) == sorted(filter(None, TITLES))


def test_an_export_again_writes_what_is_missing(dataset: Dataset, exported: Path) -> None:
    before = files(exported)
    assert write_lance(dataset, str(exported)).shards_written == 0
    assert files(exported) == before
    # A row that somebody deleted from it comes back.
    lance.dataset(str(exported / NAME)).delete("title = 'mute'")
    assert write_lance(dataset, str(exported)).shards_written == 1
    assert lance.dataset(str(exported / NAME)).count_rows() == 6
    assert len(files(exported) & before) == len(before) - 1


def test_media_are_held_a_batch_at_a_time(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    batch = lances._batch
    monkeypatch.setattr(lances, "BATCH_BYTES", 1)
    monkeypatch.setattr(lances, "_batch", lambda rows, *more: (sizes.append(len(rows)), batch(rows, *more))[1])
    write_lance(dataset, str(tmp_path / "toys"))
    assert sizes == [1] * 6 and lance.dataset(str(tmp_path / "toys" / NAME)).count_rows() == 6


def test_no_reader_sees_an_export_that_died(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, read = tmp_path / "toys", Dataset.read_member
    bad = next(row["clip_id"] for row in dataset.rows() if row["title"] == "<script>")

    def dies(self: Dataset, row: dict[str, object], name: str) -> bytes:
        if row["clip_id"] == bad:
            raise KeyboardInterrupt
        return read(self, row, name)

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "read_member", dies)
        with pytest.raises(KeyboardInterrupt):
            write_lance(dataset, str(out))
    with pytest.raises(ValueError, match="not found"):
        lance.dataset(str(out / NAME))
    left = files(out)
    write_lance(dataset, str(out))
    assert lance.dataset(str(out / NAME)).count_rows() == 6
    assert not files(out) & left


def test_a_removed_clip_is_in_no_version_and_no_file(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "toys"
    write_lance(dataset, str(out))
    row = next(row for row in dataset.rows() if row["title"] == "a secret title")
    video = dataset.read_member(row, f"{row['clip_id']}.mp4")
    before = files(out)

    def holds(clue: bytes) -> bool:
        return any(clue in path.read_bytes() for path in out.rglob("*") if path.is_file())

    assert holds(video)
    result = follow(dataset.storage.address, Removals({"clip_id": frozenset([row["clip_id"]])}), also=[str(out)])
    place = next(one for one in result.places if one.place.kind == "export")
    assert (place.before.members, place.after.found) == (1, []) and result.remains == []
    assert not holds(video)
    table = lance.dataset(str(out / NAME))
    assert row["clip_id"] not in table.to_table(columns=["clip_id"])["clip_id"].to_pylist()
    assert len(table.versions()) == 1 and len(files(out) & before) == len(before) - 1


def test_a_version_that_somebody_kept_is_found(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "toys"
    write_lance(dataset, str(out))
    row = next(row for row in dataset.rows() if row["title"] == "a cat")
    lance.dataset(str(out / NAME)).tags.create("mine", 1)
    result = follow(dataset.storage.address, Removals({"clip_id": frozenset([row["clip_id"]])}), also=[str(out)])
    assert result.remains == [f"{out}/{NAME}: version 1: {row['clip_id']}"]
    table = lance.dataset(str(out / NAME))
    table.tags.delete("mine")
    table.cleanup_old_versions(timedelta(0))
    assert len(lance.dataset(str(out / NAME)).versions()) == 1


def test_what_is_needed_is_said(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="writes to a local folder"):
        write_lance(dataset, "memory://toys")
    monkeypatch.setattr(extras, "missing", lambda modules: [*modules])
    done = command("export", dataset.storage.address, "--format", "lance", "--out", tmp_path / "toys")
    assert done.returncode == 2
    assert "--format lance needs pylance, which is not installed: pip install 'vidal[lance]'" in done.stderr
