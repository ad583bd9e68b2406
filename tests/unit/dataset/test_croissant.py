"""Croissant's own library finds nothing wrong in the metadata of a dataset, and reads its rows and members by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from etils import epath
from mlcroissant._src.operation_graph.operations import extract

from tests.processes import command
from tests.runs import AUDIO, CAPTION, PAINT, SHADE, run, write_recipe
from vidal.dataset.dataset import Dataset
from vidal.dataset.tars import suffix_of
from vidal.engine.local import InProcessEngine
from vidal.errors import OutputError, UserError
from vidal.export.croissant import write_croissant

TITLES = ["a dog", "</script><script>alert(1)</script>", "mute", "a cow", "a cat"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset with its metadata beside it."""
    folder = tmp_path_factory.mktemp("croissant")
    run(write_recipe(folder, [PAINT, CAPTION, AUDIO, SHADE], TITLES), folder / "out", InProcessEngine())
    dataset = Dataset.open(str(folder / "out"))
    write_croissant(dataset, str(folder / "out" / "croissant.json"), None)
    return dataset


@pytest.fixture(scope="module")
def read(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mlcroissant.Dataset]:
    # The library keeps what it extracts by the tar's relative address, which other datasets have, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path_factory.mktemp("extracted")))
        yield mlcroissant.Dataset(jsonld=str(dataset.storage.local_path("croissant.json")))


def members_of(dataset: Dataset, layer: str) -> dict[tuple[str, str], bytes]:
    """Every member of a layer, by its clip and suffix."""
    return {
        (row["clip_id"], suffix_of(member["name"])): dataset.read_member(row, member["name"])
        for row in dataset.rows()
        for member in row["members"]
        if member["layer"] == layer and not member["name"].endswith(".json")
    }


def test_the_metadata_is_valid(read: mlcroissant.Dataset) -> None:
    assert read.metadata.ctx.issues.errors == set()
    # Only the authors of a dataset know how to cite it, and when it was published.
    recommended = sorted(warning.rpartition("/")[2].partition('"')[0] for warning in read.metadata.ctx.issues.warnings)
    assert recommended == ["citeAs", "datePublished"]


def test_the_rows_are_those_of_the_manifest(dataset: Dataset, read: mlcroissant.Dataset) -> None:
    records = {record["clips/clip_id"].decode(): record for record in read.records("clips")}
    rows = {row["clip_id"]: row for row in dataset.rows()}
    assert records.keys() == rows.keys()
    for clip_id, row in rows.items():
        assert records[clip_id]["clips/title"].decode() == row["title"]
        assert records[clip_id]["clips/duration_s"] == row["duration_s"]
        assert records[clip_id]["clips/frame_times"] == row["frame_times"]


@pytest.mark.parametrize(("layer", "group"), [("video", "mp4"), ("audio", "flac")])
def test_media_are_the_members_of_the_tars(layer: str, group: str, dataset: Dataset, read: mlcroissant.Dataset) -> None:
    name = f"members/{layer}/{group}"
    records = {(r[f"{name}/clip_id"].decode(), group): r[f"{name}/content"] for r in read.records(name)}
    members = members_of(dataset, layer)
    assert records == {key: data for key, data in members.items() if key[1] == group} and records


def test_images_have_the_number_of_their_frame(dataset: Dataset, read: mlcroissant.Dataset) -> None:
    name = "members/depth/depth.*.png"
    found = {(r[f"{name}/clip_id"].decode(), f"depth.{r[f'{name}/number']}.png") for r in read.records(name)}
    assert found == set(members_of(dataset, "depth")) and found


def test_every_file_is_there_with_its_digest(dataset: Dataset) -> None:
    document = json.loads(dataset.storage.read("croissant.json"))
    files = {f["contentUrl"]: f["sha256"] for f in document["distribution"] if f["@type"] == "cr:FileObject"}
    assert files == {name: hashlib.sha256(dataset.storage.read(name)).hexdigest() for name in files}
    root = dataset.storage.local_path()
    tars = {str(path.relative_to(root)) for path in root.rglob("*.tar")}
    assert set(files) == tars | {dataset.manifest_name(shard) for shard in dataset.committed()}


def test_a_dataset_with_its_metadata_is_still_one(dataset: Dataset) -> None:
    assert command("verify", dataset.storage.address).returncode == 0


def test_metadata_is_written_over_metadata_and_nothing_else(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    write_croissant(dataset, str(out), None)
    before = out.read_bytes()
    write_croissant(dataset, str(out), None)
    assert out.read_bytes() == before
    for content in ("{}", "notes", '{"conformsTo": "else"}', "[]"):
        out.write_text(content)
        with pytest.raises(OutputError, match="is no Croissant file"):
            write_croissant(dataset, str(out), None)


def test_a_condition_is_refused_as_the_files_are_whole(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export the clips as joint first"):
        write_croissant(dataset, str(tmp_path / "c.json"), "has_audio")


def test_what_only_people_know_is_marked(dataset: Dataset) -> None:
    document: dict[str, Any] = json.loads(dataset.storage.read("croissant.json"))
    marked = {key for key, value in document.items() if "TO BE FILLED IN" in json.dumps(value)}
    assert marked == {f"rai:{name}" for name in (
        "dataBiases", "personalSensitiveInformation", "dataUseCases", "dataSocialImpact", "dataReleaseMaintenancePlan",
    )}  # fmt: skip
