"""Clips like a clip come nearest first by whatever the dataset has, and a rectangle of the map holds what lies in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from tests.runs import EMBED, FEW_LETTERS, LETTERS, SHOW, run, write_recipe
from vidal.dataset.dataset import Dataset, write_info
from vidal.dataset.embeddings import NAME, EmbeddingsInfo, write
from vidal.dataset.storage import Storage
from vidal.engine.local import InProcessEngine
from vidal.errors import SourceError
from vidal.view import chart
from vidal.view.api import Api, Parameters
from vidal.view.queries import ManifestTable

TITLES = [f"film {'x' * n}" for n in range(23)] + ["unembedded", "no"]
EXAMPLE, COPY, UNEMBEDDED, REJECTED = "c003", "c013", "c023", "c024"
ALL = "-9,-9,9,9"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 clips in seven shards, of ten films; one has no embedding, and one is rejected after it has its own."""
    folder = tmp_path_factory.mktemp("likeness")
    stages = [SHOW, EMBED, "fingerprints", LETTERS, {FEW_LETTERS: {"min": 3}}]
    run(write_recipe(folder, stages, TITLES), folder / "data", InProcessEngine())
    return folder / "data"


def rows_of(built: Path) -> list[dict[str, Any]]:
    return Dataset.open(str(built)).rows(["clip_id", "shard", "video_embedding", "frame_hash", "status"])


@pytest.fixture(scope="module")
def folder(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of the video as `vidal embed` writes them, and of a depth that is a walk through their ids."""
    out = tmp_path_factory.mktemp("embeddings")
    transforms: dict[str, dict[str, Any]] = {"video": {}, "depth": {}}
    info = EmbeddingsInfo(
        checkpoint="runs/toy", identity="1", data=str(built), where=None, fingerprint="other", modalities=[*transforms],
        transforms=transforms, preprocessing="1",
    )  # fmt: skip
    (out / NAME).write_text(info.model_dump_json())
    by_shard: dict[int, list[tuple[str, str, Any]]] = {}
    for row in rows_of(built):
        if row["video_embedding"]:
            angle = int(row["clip_id"][1:]) / 50
            depth = [np.cos(angle), np.sin(angle), *[0.0] * 10]
            by_shard.setdefault(row["shard"], []).extend(
                [(row["clip_id"], "video", row["video_embedding"]), (row["clip_id"], "depth", depth)]
            )
    by_shard[0].append(("a stranger", "video", [1.0] * 12))
    for shard, entries in by_shard.items():
        ids, kinds, vectors = zip(*entries, strict=True)
        flat = pa.array(np.concatenate(vectors).astype(np.float32))
        lists = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.float32(), 12))
        write(
            Storage(str(out)), f"{shard:06d}.parquet", pa.table({"clip_id": ids, "modality": kinds, "embedding": lists})
        )
    return out


def ask(api: Api, answer: str, **asked: Any) -> Any:
    body = api.answers[answer](Parameters({name: [str(value)] for name, value in asked.items()}))
    return json.loads(b"".join(body.blocks(0, body.size - 1)))


@pytest.fixture(scope="module")
def api(built: Path, folder: Path) -> Api:
    return Api(Dataset.open(str(built)), embeddings=Storage(str(folder)))


def test_all_that_clips_can_be_compared_by_is_offered_the_best_first(api: Api) -> None:
    assert [(measure["name"], measure["text"]) for measure in ask(api, "measures")] == [
        ("folder.video", "video embeddings of runs/toy"),
        ("folder.depth", "depth embeddings of runs/toy"),
        ("video_embedding", "video embeddings of toy@1"),
        ("frame_hash", "perceptual hashes of frames"),
    ]


def test_words_are_compared_with_what_the_last_of_several_models_embedded(built: Path, tmp_path: Path) -> None:
    mine = str(shutil.copytree(built, tmp_path / "mine"))
    info = Dataset.open(mine).info
    # As the stage `embeddings` leaves it that is added with one model, and later with another.
    twice = [
        {"name": "embeddings", "settings": {"backend": "clip", "model": model}}
        for model in ("mine.models:load", "another")
    ]
    for steps, takes_words in ((twice, True), (twice[::-1], False)):
        write_info(Storage(mine), info.model_copy(update={"recipe": {"stages": steps}}))
        offered = {measure["name"]: measure["takes_words"] for measure in ask(Api(Dataset.open(mine)), "measures")}
        assert offered == {"video_embedding": takes_words, "frame_hash": False}
        refusal = "model another is not on this machine" if takes_words else "cannot be compared with words here"
        with pytest.raises(SourceError, match=refusal):
            ask(Api(Dataset.open(mine)), "clips", words="a dog", by="video_embedding")


def cosines(built: Path) -> dict[str, float]:
    vectors = {row["clip_id"]: np.array(row["video_embedding"]) for row in rows_of(built) if row["video_embedding"]}
    return {name: float(vectors[EXAMPLE] @ vector) for name, vector in vectors.items() if name != EXAMPLE}


def bits(built: Path) -> dict[str, float]:
    hashes = {
        row["clip_id"]: np.array([int(h, 16) for h in split(row["frame_hash"])], np.uint64) for row in rows_of(built)
    }
    own = hashes.pop(EXAMPLE)
    return {name: float(np.bitwise_count(own ^ other).mean()) for name, other in hashes.items()}


def split(text: str) -> list[str]:
    return [text[k : k + 16] for k in range(0, len(text), 16)]


@pytest.mark.parametrize("by", ["", "folder.video", "video_embedding"])
def test_clips_come_by_the_cosine_of_their_embeddings_with_the_copy_first(api: Api, built: Path, by: str) -> None:
    wanted = cosines(built)
    page = ask(api, "clips", like=EXAMPLE, by=by)
    shown = {row["clip_id"]: row["likeness"] for row in page["rows"]}
    assert page["clips"] == len(TITLES) - 2 and not {EXAMPLE, UNEMBEDDED} & set(shown)
    assert next(iter(shown)) == COPY and list(shown.values()) == sorted(shown.values(), reverse=True)
    assert shown == pytest.approx(wanted, abs=1e-5)


def test_another_modality_gives_another_order(api: Api) -> None:
    assert [row["clip_id"] for row in ask(api, "clips", like="c000", by="folder.depth", limit=3)["rows"]] == [
        "c001", "c002", "c003",
    ]  # fmt: skip


def test_without_embeddings_clips_come_by_the_bits_of_their_frames(api: Api, built: Path) -> None:
    wanted = bits(built)
    shown = {row["clip_id"]: row["likeness"] for row in ask(api, "clips", like=EXAMPLE, by="frame_hash")["rows"]}
    assert shown == pytest.approx(wanted) and list(shown.values()) == sorted(shown.values())
    assert {name for name, value in shown.items() if value == 0} == {COPY, UNEMBEDDED}


def test_a_condition_and_pages_hold_among_the_nearest(api: Api) -> None:
    everything = [row["clip_id"] for row in ask(api, "clips", like=EXAMPLE, where="status = 'kept'")["rows"]]
    pages = [ask(api, "clips", like=EXAMPLE, where="status = 'kept'", offset=k, limit=8) for k in (0, 8, 16)]
    assert [row["clip_id"] for page in pages for row in page["rows"]] == everything
    assert REJECTED not in everything and len(everything) == len(TITLES) - 3


def test_the_map_is_the_first_two_principal_components_and_a_rectangle_a_filter(api: Api, built: Path) -> None:
    drawn = ask(api, "map")
    rows = [row for row in rows_of(built) if row["video_embedding"]]
    vectors = np.array([row["video_embedding"] for row in rows])
    centred = vectors - vectors.mean(axis=0)
    _, variances, right = np.linalg.svd(centred, full_matrices=False)
    assert drawn["clip"] == [row["clip_id"] for row in rows] and drawn["rows"] == len(TITLES)
    points = np.array([drawn["x"], drawn["y"]]).T
    assert np.abs(points) == pytest.approx(np.abs(centred @ right[:2].T), abs=1e-4)
    assert drawn["variance_share"] == pytest.approx((variances[:2] ** 2).sum() / (variances**2).sum(), abs=1e-3)
    inside = {name for name, x, y in zip(drawn["clip"], drawn["x"], drawn["y"], strict=True) if x > 0 and y > 0}
    listed = ask(api, "clips", box="0,0,9,9")
    assert {row["clip_id"] for row in listed["rows"]} == inside and 0 < len(inside) < len(rows)
    assert ask(api, "count", box=ALL)["kept"] == len(TITLES) - 2
    told = {one["value"]: one["clips"] for one in drawn["values"]}
    assert told == {"kept": len(rows) - 1, "rejected": 1}
    assert [drawn["values"][k]["value"] for k in drawn["value"]] == [row["status"] for row in rows]


def test_a_map_of_many_clips_shows_a_sample_and_its_rectangle_holds_all(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart, "MOST_DRAWN", 10)
    answers = [ask(Api(Dataset.open(str(built))), "map") for _ in range(2)]
    assert answers[0] == answers[1]
    assert (answers[0]["drawn"], answers[0]["clips"], len(answers[0]["x"])) == (10, len(TITLES) - 1, 10)
    assert ask(Api(Dataset.open(str(built))), "clips", box=ALL)["clips"] == len(TITLES) - 1


def test_rare_values_are_told_together(api: Api) -> None:
    values = ask(api, "map", colour="stage")["values"]
    assert {one["value"] for one in values} == {"none", "few_letters"}


BAD: dict[str, tuple[dict[str, str], str]] = {
    "no such clip": ({"like": "nobody"}, "no clip nobody"),
    "a clip without an embedding": ({"like": UNEMBEDDED}, f"clip {UNEMBEDDED}: has nothing to compare by video embed"),
    "an unknown measure": ({"like": EXAMPLE, "by": "taste"}, "by=taste: clips can be compared by folder.video, "),
    "half a rectangle": ({"box": "0,1"}, "box=0,1: write four numbers"),
    "a rectangle of words": ({"box": "nan,0,1,inf"}, "write four numbers"),
}


@pytest.mark.parametrize(("asked", "told"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared_is_told_in_one_line(api: Api, asked: dict[str, str], told: str) -> None:
    with pytest.raises(SourceError) as raised:
        ask(api, "clips", **asked)
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / NAME).unlink(), "no embeddings there"),
        (
            lambda folder: [file.write_bytes(b"PAR1") for file in folder.glob("*.parquet")],
            "cannot be read as embeddings",
        ),
        (lambda folder: [file.unlink() for file in folder.glob("*.parquet")], "has no embedding of a clip of this"),
        (lambda folder: lengthen(folder / "000001.parquet"), "the embeddings are of several models"),
    ],
)
def test_a_folder_that_is_damaged_is_told_in_one_line(
    built: Path, folder: Path, tmp_path: Path, damage: Any, told: str
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(SourceError, match=told):
        ask(Api(Dataset.open(str(built)), embeddings=Storage(str(tmp_path))), "map")


def lengthen(file: Path) -> None:
    vector: npt.NDArray[np.float32] = np.ones((1, 5), np.float32)
    table = {"clip_id": ["c004"], "modality": ["video"], "embedding": vector.tolist()}
    write(Storage(str(file.parent)), file.name, pa.table(table))


def test_category_columns_are_those_of_few_values(built: Path) -> None:
    assert {"status", "stage", "reason"} <= set(ManifestTable(Dataset.open(str(built))).categories())
