"""The six LanguageBind folders give the embeddings that their authors' own code gave (fixtures/languagebind)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vidal.train import load_encoder
from vidal.train.towers.settings import LoraSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

FOLDERS = Path(__file__).parent / "fixtures" / "languagebind"
TOLERANCE = 1e-5
CASES = [
    ("depth", "depth"),
    ("infrared", "infrared"),
    ("audio", "audio"),
    ("video_lora", "video"),
    ("video_full", "video"),
    ("video_v15", "video"),
]


@pytest.mark.parametrize(("folder", "modality"), CASES)
@pytest.mark.parametrize("kind", [str, Path])
def test_embeddings_equal_the_reference(folder: str, modality: str, kind: type) -> None:
    encoder = load_encoder(kind(FOLDERS / folder))
    io = load_file(FOLDERS / folder / "io.safetensors")
    with torch.no_grad():
        embedding = encoder.encode(modality, io["pixel_values"])
        text = encoder.encode_text(io["input_ids"], io["attention_mask"])
    assert embedding.dtype == text.dtype == torch.float32
    torch.testing.assert_close(embedding, io["modality_embedding"], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(text, io["text_embedding"], atol=TOLERANCE, rtol=0)
    for ours, theirs in ((embedding, "modality"), (text, "text")):
        normalised = torch.nn.functional.normalize(ours)
        torch.testing.assert_close(normalised, io[f"{theirs}_embedding_normalised"], atol=TOLERANCE, rtol=0)
    assert not encoder.training
    assert encoder.modalities == [modality]


@pytest.mark.parametrize(
    ("folder", "rank"), [("depth", 2), ("audio", 4), ("video_lora", 4), ("video_full", None), ("video_v15", None)]
)
def test_names_and_shapes_are_the_published_ones_without_pefts_prefix(folder: str, rank: int | None) -> None:
    published = {
        name.replace("encoder.base_model.model.", "encoder.").removeprefix("vision_model."): tensor.shape
        for name, tensor in load_file(FOLDERS / folder / "model.safetensors").items()
        if name.startswith(("vision_model.", "visual_projection.")) and not name.endswith("position_ids")
    }
    encoder = load_encoder(FOLDERS / folder)
    (modality,) = encoder.modalities
    tower = VisionTower(encoder.tower(modality).settings)
    if rank:
        tune(tower, "lora", LoraSettings(rank=rank))
    assert {name: tensor.shape for name, tensor in tower.state_dict().items()} == published
