"""Search: words, an image or audio find the clip that they are of, and a wrong question is one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vidal
from tests.learned import CLIPS, small_run, small_set
from vidal.dataset.dataset import Dataset
from vidal.dataset.storage import Storage
from vidal.errors import SourceError, UserError, VidalError
from vidal.retrieval.embed import NAME, embed
from vidal.retrieval.search import search
from vidal.train import load_encoder
from vidal.train.preprocessing import transforms_for
from vidal.train.towers.export import save_folder
from vidal.view.api import Api, Parameters


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    data = small_set(folder / "set")
    embed(data, small_run(data, folder / "run"), str(folder / "e"), device="cpu")
    ds = vidal.open(data)
    (folder / "audio.flac").write_bytes(ds.read(5, "audio", ["flac"])["flac"])
    (folder / "image.JPG").write_bytes(ds.read(5, "video", ["frame.2.jpg"])["frame.2.jpg"])
    (folder / "torn.flac").write_bytes((folder / "audio.flac").read_bytes()[:300])
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture
def embeddings(material: Path, tmp_path: Path) -> Path:
    shutil.copytree(material / "e", tmp_path / "e")
    return tmp_path / "e"


def test_audio_finds_its_own_clip_first(material: Path) -> None:
    ds = vidal.open(str(material / "set"))
    first, *others = search(str(material / "audio.flac"), str(material / "e"), modality="audio", top=3)
    assert (first.clip_id, first.modality, first.data) == (ds.clip_id(5), "audio", str(material / "set"))
    assert first.score == pytest.approx(1, abs=1e-5) and first.text == ds.row(5)["caption"]
    assert len(others) == 2 and all(hit.score <= first.score for hit in others)


@pytest.mark.parametrize("top", [1, 7, 500])
def test_words_give_the_best_clips_each_once_as_a_full_comparison_would(material: Path, top: int) -> None:
    words = "a calm harbour at dawn"
    table = pq.read_table(material / "e" / "000000.parquet")
    wanted = load_encoder(material / "run").encode_texts([words]).numpy()[0]
    scores = np.stack(table.column("embedding").to_numpy()) @ (wanted / np.linalg.norm(wanted))
    best: dict[str, float] = {}
    for clip_id, score in zip(table.column("clip_id").to_pylist(), scores, strict=True):
        best[clip_id] = max(float(score), best.get(clip_id, -2.0))
    expected = sorted(best, key=lambda clip_id: (-best[clip_id], clip_id))[:top]
    hits = search(words, str(material / "e"), top=top)
    assert [hit.clip_id for hit in hits] == expected and len(hits) == min(top, CLIPS)
    assert [hit.score for hit in hits] == pytest.approx([best[clip_id] for clip_id in expected], abs=1e-6)


def in_the_viewer(data: Path, embeddings: Path, **asked: str) -> Any:
    api = Api(Dataset.open(str(data)), embeddings=Storage(str(embeddings)))
    body = api.answers["clips"](Parameters({name: [value] for name, value in asked.items()}))
    return json.loads(b"".join(body.blocks(0, body.size - 1)))["rows"]


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_viewer_finds_by_words_what_search_finds(material: Path, modality: str) -> None:
    words = "a calm harbour at dawn"
    rows = in_the_viewer(material / "set", material / "e", words=words, by=f"folder.{modality}")
    hits = search(words, str(material / "e"), modality=modality, top=CLIPS)
    assert [row["likeness"] for row in rows] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert {row["clip_id"] for row in rows} == {hit.clip_id for hit in hits}
    some = in_the_viewer(material / "set", material / "e", words=words, by=f"folder.{modality}", where="shard = 0")
    assert some == [row for row in rows if row["shard"] == 0]


@pytest.mark.parametrize(
    ("checkpoint", "told"),
    [
        ("somebody/clip-that-is-not-here", "is not on this machine, and is not fetched for a search"),
        ("other", "is not the encoder that"),
    ],
)
def test_the_viewer_takes_no_other_encoder_and_fetches_none(
    material: Path, embeddings: Path, checkpoint: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(material)
    if checkpoint == "other":
        small_run(str(material / "set"), material / "other", seed=1)
    info = json.loads((embeddings / NAME).read_text())
    (embeddings / NAME).write_text(json.dumps({**info, "checkpoint": checkpoint}))
    with pytest.raises(VidalError, match=told):
        in_the_viewer(material / "set", embeddings, words="dawn", by="folder.video")


def test_an_image_is_asked_of_the_modality_named(material: Path) -> None:
    hits = search(str(material / "image.JPG"), str(material / "e"), modality="audio", top=4)
    assert len(hits) == 4 and {hit.modality for hit in hits} == {"audio"}


@pytest.mark.parametrize(
    ("query", "keys", "said"),
    [
        (" ", {}, "the query is empty"),
        ("nowhere.wav", {}, "nowhere.wav: cannot be read: No such file"),
        ("torn.flac", {}, "torn.flac: cannot be read: "),
        ("text.png", {}, "text.png: cannot be read: "),
        ("words", {"modality": "depth"}, "--modality depth: these embeddings are of video, audio"),
    ],
)
def test_a_wrong_question_is_one_line(material: Path, query: str, keys: dict[str, str], said: str) -> None:
    asked = str(material / query) if query.endswith(("flac", "png")) else query
    with pytest.raises(UserError) as caught:
        search(asked, str(material / "e"), **keys)  # type: ignore[arg-type]
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_another_encoder_is_rejected(material: Path, tmp_path: Path) -> None:
    other = small_run(str(material / "set"), tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"other: is not the encoder that .* was made with"):
        search("words", str(material / "e"), checkpoint=other)


def test_embeddings_that_are_not_there_empty_or_damaged_are_one_line(embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no embeddings there"):
        search("words", str(tmp_path / "nowhere"))
    shard = embeddings / "000000.parquet"
    pq.write_table(pq.read_table(shard).slice(0, 0), shard)
    with pytest.raises(SourceError, match=r"holds no embedding of audio; run `vidal embed`"):
        search("words", str(embeddings), modality="audio")
    for harm in (pa.table({"x": [1]}), None):
        pq.write_table(harm, shard) if harm is not None else shard.write_bytes(b"PAR1")
        with pytest.raises(SourceError, match=r"000000\.parquet: cannot be read as embeddings"):
            search("words", str(embeddings))
    (embeddings / NAME).write_text(json.dumps({"identity": 3}))
    with pytest.raises(SourceError, match=r"embeddings\.json: not of embeddings"):
        search("words", str(embeddings))


def test_hits_are_given_without_texts_where_the_dataset_is_gone(embeddings: Path, tmp_path: Path) -> None:
    info = json.loads((embeddings / NAME).read_text())
    (embeddings / NAME).write_text(json.dumps(info | {"data": str(tmp_path / "moved")}))
    hits = search("words", str(embeddings), top=2)
    assert [hit.text for hit in hits] == ["", ""]


def test_an_export_prepares_inputs_as_its_run_does(material: Path, tmp_path: Path) -> None:
    out = save_folder(load_encoder(material / "run"), tmp_path / "out")
    exported, run = transforms_for(load_encoder(out)), transforms_for(load_encoder(material / "run"))
    assert exported == run and run
    result = embed(str(material / "set"), str(out), str(tmp_path / "e"), device="cpu")
    ours, theirs = (pq.read_table(folder / "000000.parquet") for folder in (tmp_path / "e", material / "e"))
    assert result.rows == theirs.num_rows and ours.column("embedding").equals(theirs.column("embedding"))
    assert ours.schema.metadata[b"vidal.preprocessing"] == theirs.schema.metadata[b"vidal.preprocessing"]


def test_embeddings_of_other_preprocessing_are_rejected(embeddings: Path, material: Path, tmp_path: Path) -> None:
    out = save_folder(load_encoder(material / "run"), tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    modality = next(iter(config["vidal"]["preprocessing"]))
    config["vidal"]["preprocessing"][modality]["mean"] = 0.25 if modality == "audio" else [0.25, 0.25, 0.25]
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=rf"other preprocessing than .*{modality}.mean: ") as caught:
        search("a calm harbour", str(embeddings), checkpoint=str(out))
    assert "\n" not in str(caught.value)
