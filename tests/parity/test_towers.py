"""Towers equal transformers' CLIPModel, timm's ViT and open_clip's patch dropout on random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.clip_folders import clip_folder, clip_tokenizer
from vidal.errors import ModelError
from vidal.train import load_encoder
from vidal.train.towers.encoder import TowerSettings, VisionSettings, VisionTower, tower_from
from vidal.train.towers.timm_vit import vit_settings, vit_state
from vidal.train.towers.weights import put, resize_positions

TOLERANCE = 1e-5


def of_transformers(folder: Path, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        image = model.get_image_features(pixel_values=pixels)
        text = model.get_text_features(input_ids=ids, attention_mask=mask)
    return tuple(x if isinstance(x, Tensor) else x.pooler_output for x in (image, text))


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 97, (3, 12), generator=g)
    mask = torch.ones_like(ids)
    for row, end in enumerate((11, 4, 7)):
        ids[row, end:] = 0
        ids[row, end] = 98
        mask[row, end + 1 :] = 0
    return torch.randn(3, 3, 32, 32, generator=g), ids, mask


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_clip_folder_gives_what_transformers_gives(
    tmp_path: Path, activation: str, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    folder = clip_folder(tmp_path, activation)
    pixels, ids, mask = inputs
    image, text = of_transformers(folder, pixels, ids, mask)
    encoder = load_encoder(folder)
    with torch.no_grad():
        for modality in ("image", "depth", "infrared", "video"):
            torch.testing.assert_close(encoder.encode(modality, pixels), image, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(encoder.encode_text(ids, mask), text, atol=TOLERANCE, rtol=0)
        clip = torch.stack([pixels, pixels.flip(0)], dim=2)
        torch.testing.assert_close(encoder.encode("video", clip), (image + image.flip(0)) / 2, atol=TOLERANCE, rtol=0)


def test_a_saved_clip_loads_in_transformers_with_equal_outputs(
    tmp_path: Path, inputs: tuple[Tensor, Tensor, Tensor]
) -> None:
    from vidal.train.towers.encoder import Encoder
    from vidal.train.towers.export import save_folder
    from vidal.train.towers.text import TextTower

    text = TextTower.load(clip_folder(tmp_path / "clip"))
    depth = TowerSettings(model=str(tmp_path / "clip"), tune="lora")
    encoder = Encoder.build({"depth": depth}, text, pairs={("text", "depth"): None}).eval()
    with torch.no_grad():
        for name, parameter in encoder.towers.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.1)
    pixels, ids, mask = inputs
    image, words = of_transformers(save_folder(encoder, tmp_path / "out"), pixels, ids, mask)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode("depth", pixels), image, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(encoder.encode_text(ids, mask), words, atol=TOLERANCE, rtol=0)


def test_tokens_equal_open_clips(tmp_path: Path) -> None:
    from open_clip import tokenize

    from vidal.train.towers.export import save_folder

    clip_tokenizer(clip_folder(tmp_path / "clip"))
    texts = ["a photo of a dog", "Über-cool: 3 cats, naïve?", "word " * 100, ""]
    theirs = tokenize(texts, context_length=16)
    encoder = load_encoder(tmp_path / "clip")
    for one in (encoder, load_encoder(save_folder(encoder, tmp_path / "out"))):
        ids, mask = one.text_tower().tokenize(texts)
        assert ids.shape == (4, 16)
        assert torch.equal(ids * mask, theirs)
    assert ids[0, :7].tolist() == [49406, 320, 1125, 539, 320, 1929, 49407]


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_small_patch32_224", "vit_base_patch32_clip_quickgelu_224"]
)
def test_a_timm_vit_gives_timms_features(name: str) -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, depth=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    settings = vit_settings(model, name)
    tower = VisionTower(settings).eval()
    put(tower, vit_state(model, name) | {"visual_projection.weight": torch.eye(settings.hidden_size)}, name)
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(tower(pixels), model.forward_features(pixels)[:, 0], atol=TOLERANCE, rtol=0)


PER_FRAME = {"frames": 4, "temporal": True, "class_embedding_per_frame": True}
IDENTITY = {"temporal_init": "identity"}

# settings, input, weights of the folder that cannot stay as they are, whether step 0 is the folder's model
STARTS: list[tuple[dict[str, Any], tuple[int, ...], set[str], bool]] = [
    ({}, (2, 3, 32, 32), set(), True),
    ({"image_size": (24, 56)}, (2, 3, 24, 56), {"position_embedding"}, False),
    ({"frames": 4, "temporal": True}, (2, 3, 4, 32, 32), set(), False),
    ({"frames": 4, "temporal": True} | IDENTITY, (2, 3, 4, 32, 32), set(), True),
    (PER_FRAME | IDENTITY, (2, 3, 4, 32, 32), {"class_embedding", "patch_embedding"}, True),
]


@pytest.mark.parametrize(("settings", "shape", "changed", "is_base"), STARTS)
def test_a_clip_folder_is_a_start_for_every_modality(
    tmp_path: Path, settings: dict[str, Any], shape: tuple[int, ...], changed: set[str], is_base: bool
) -> None:
    folder = clip_folder(tmp_path)
    base = load_encoder(folder)
    tower = tower_from(TowerSettings(model=str(folder), **settings)).eval()
    state, theirs = tower.state_dict(), base.tower("image").state_dict()
    assert {name.split(".")[1] for name in theirs if not torch.equal(theirs[name], state[name])} == changed
    for name in state.keys() - theirs.keys():
        if ".temporal_attn.q_proj" in name:
            assert torch.equal(state[name], theirs[name.replace("temporal_attn", "self_attn")])
    pixels = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        embedding = tower(pixels)
        if is_base:
            torch.testing.assert_close(embedding, base.encode("video", pixels), atol=TOLERANCE, rtol=0)


def test_a_projection_to_another_space_is_drawn_anew(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    tower = tower_from(str(folder), projection_dim=7)
    assert tower(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_a_timm_name_is_a_start_for_another_input_and_space() -> None:
    tower = tower_from(TowerSettings(model="timm:vit_tiny_patch16_224", image_size=(32, 64)), projection_dim=24).eval()
    assert tower(torch.zeros(2, 3, 32, 64)).shape == (2, 24)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_tiny_patch16_225", "no such model"),
        ("resnet18", "class token"),
        ("vit_base_patch16_siglip_224", "class token"),
        ("deit3_small_patch16_224", "plain ViT"),
    ],
)
def test_a_timm_model_that_is_no_plain_vit_is_rejected(name: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        tower_from(f"timm:{name}")


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("size", [32, 40, 56])
def test_patch_dropout_keeps_as_many_patches_as_open_clips(p: float, size: int) -> None:
    from open_clip.transformer import PatchDropout

    tower = VisionTower(
        VisionSettings(hidden_size=16, layers=1, heads=2, patch_size=8, image_size=size, patch_dropout=p)
    )
    theirs = PatchDropout(p).train()(torch.zeros(2, tower.settings.patches + 1, 4))
    keep = tower.train().draw_keep(2, "cpu", None)
    assert keep is not None
    assert keep.shape == (2, theirs.shape[1] - 1)


@pytest.mark.parametrize("grid", [(4, 4), (9, 74), (3, 10)])
def test_positions_are_resized_as_open_clip_resizes_them(grid: tuple[int, int]) -> None:
    from types import SimpleNamespace

    from open_clip.model import resize_pos_embed

    table = torch.randn(1 + 16 * 16, 8, generator=torch.Generator().manual_seed(0))
    state = {"visual.positional_embedding": table}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
    ours = resize_positions(table, grid, (16, 16))
    torch.testing.assert_close(ours, state["visual.positional_embedding"], atol=1e-6, rtol=0)
