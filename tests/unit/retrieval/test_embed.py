"""Embeddings on disk: every clip once, written whole, kept when they are there, and never of two encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import vidal
from tests.learned import CLIPS, erase, small_run, small_set
from tools.rendering import learning_set
from vidal.dataset.embeddings import text_key
from vidal.errors import OutputError, SourceError
from vidal.retrieval.embed import NAME, embed, identity
from vidal.retrieval.search import search
from vidal.train import load_encoder
from vidal.train.data.text_views import TextViews
from vidal.train.evaluate.embeddings import embed_samples
from vidal.train.evaluate.metrics import normalised
from vidal.train.preprocessing import transforms_of
from vidal.train.recipe import check
from vidal.train.run_folder import RunFolder


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    small_run(small_set(folder / "set"), folder / "run")
    return folder


@pytest.fixture
def data(material: Path, tmp_path: Path) -> Path:
    shutil.copytree(material / "set", tmp_path / "set")
    return tmp_path / "set"


def test_every_clip_has_one_unit_row_for_each_modality(material: Path, tmp_path: Path) -> None:
    result = embed(str(material / "set"), str(material / "run"), str(tmp_path / "e"), device="cpu")
    assert (result.rows, result.shards, result.shards_there, result.broken) == (2 * CLIPS, 1, 0, [])
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["000000.parquet", NAME]
    table = pq.read_table(tmp_path / "e" / "000000.parquet")
    assert table.column_names == ["clip_id", "modality", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    rows = np.stack(table.column("embedding").to_numpy())
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-5
    samples, encoder = vidal.open(str(material / "set")), load_encoder(material / "run")
    transforms = transforms_of(check(RunFolder(material / "run").read().recipe, "run").transforms, encoder)
    wanted = embed_samples([encoder], samples, range(CLIPS), "audio", transforms["audio"])
    ours = {row["clip_id"]: row["embedding"] for row in table.to_pylist() if row["modality"] == "audio"}
    assert len(ours) == CLIPS
    assert np.abs(np.stack([ours[samples.clip_id(n)] for n in range(CLIPS)]) - normalised(wanted.rows[0])).max() < 1e-6


def test_texts_have_rows_by_their_keys_and_a_search_is_for_clips_alone(material: Path, tmp_path: Path) -> None:
    arguments, views = (
        (str(material / "set"), str(material / "run"), str(tmp_path / "e")),
        TextViews.named("caption,raw"),
    )
    embed(*arguments, views=views, half=True, device="cpu")
    table, encoder = pq.read_table(tmp_path / "e" / "000000.parquet"), load_encoder(material / "run")
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 384)
    rows = {(row["clip_id"], row["text"]): row["embedding"] for row in table.to_pylist() if row["modality"] == "text"}
    samples = vidal.open(str(material / "set"))
    texts = {(samples.clip_id(n), text) for n in range(CLIPS) for text in views.every(samples.row(n))}
    assert {(clip_id, text_key(text)) for clip_id, text in texts} == rows.keys() and len(texts) > CLIPS
    clip_id, text = min(texts)
    wanted = normalised(encoder.encode_texts([text]).numpy())[0]
    assert np.abs(np.asarray(rows[clip_id, text_key(text)], np.float32) - wanted).max() < 1e-3
    info = json.loads((tmp_path / "e" / NAME).read_text())
    assert info["views"] == ["caption", "raw"] and info["logit_scale"].keys() == {"text-video", "text-audio"}
    hits = search(text, str(tmp_path / "e"), top=3)
    assert len(hits) == 3 and {hit.modality for hit in hits} <= {"video", "audio"}
    with pytest.raises(OutputError, match="embeddings of another choice of texts"):
        embed(*arguments, half=True, device="cpu")


def test_a_shard_says_which_encoder_made_it(material: Path, tmp_path: Path) -> None:
    embed(str(material / "set"), str(material / "run"), str(tmp_path / "e"), device="cpu")
    metadata = pq.read_schema(tmp_path / "e" / "000000.parquet").metadata
    wanted = identity(load_encoder(material / "run")).encode()
    assert metadata[b"vidal.identity"] == wanted and metadata[b"vidal.is_normalised"] == b"true"
    assert json.loads((tmp_path / "e" / NAME).read_text())["identity"] == wanted.decode()


def test_what_is_there_is_left_and_what_is_missing_is_made(
    tmp_path: Path, material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_set, "SHARD_SIZE", 20)
    learning_set.write(str(tmp_path / "set"), clips=30, scenes=4, size=16, workers=1)
    arguments = (str(tmp_path / "set"), str(material / "run"), str(tmp_path / "e"))
    first = embed(*arguments, device="cpu")
    assert (first.shards, first.rows) == (2, 60)
    before = (tmp_path / "e" / "000000.parquet").stat().st_mtime_ns
    lost = (tmp_path / "e" / "000001.parquet").read_bytes()
    (tmp_path / "e" / "000001.parquet").unlink()
    second = embed(*arguments, device="cpu")
    assert (second.shards, second.shards_there, second.rows) == (1, 1, 20)
    assert (tmp_path / "e" / "000000.parquet").stat().st_mtime_ns == before
    assert (tmp_path / "e" / "000001.parquet").read_bytes() == lost


def test_embeddings_of_another_encoder_or_choice_are_not_mixed(material: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "e")
    embed(str(material / "set"), str(material / "run"), out, device="cpu")
    other = small_run(str(material / "set"), tmp_path / "other", seed=1)
    with pytest.raises(OutputError, match="embeddings of another encoder; choose another --out"):
        embed(str(material / "set"), other, out, device="cpu")
    with pytest.raises(OutputError, match="embeddings of another --where"):
        embed(str(material / "set"), str(material / "run"), out, where="clip_id < 's003'", device="cpu")


def test_swapped_weights_are_another_encoder(material: Path) -> None:
    encoder = load_encoder(material / "run")
    found = {identity(encoder)}
    for weight in (encoder.tower("audio").visual_projection.weight, next(encoder.text_tower().parameters())):
        weight.data = weight.data.flip(0)
        found.add(identity(encoder))
    assert len(found) == 3


def test_a_broken_sample_is_named_also_by_a_run_that_finds_its_shard_there(
    material: Path, data: Path, tmp_path: Path
) -> None:
    ds = vidal.open(str(data))
    erase(data, ds.clip_id(4), "audio")
    for rows in (2 * CLIPS - 1, 0):
        result = embed(str(data), str(material / "run"), str(tmp_path / "e"), device="cpu")
        assert result.rows == rows and [broken.clip_id for broken in result.broken] == [ds.clip_id(4)]


def test_a_dataset_without_the_encoders_modalities_is_rejected(material: Path, data: Path, tmp_path: Path) -> None:
    info = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(info | {"layers": ["depth"]}))
    with pytest.raises(SourceError, match=r"has depth; the encoder of .* supports video, audio"):
        embed(str(data), str(material / "run"), str(tmp_path / "e"), device="cpu")
    assert not (tmp_path / "e").exists()
