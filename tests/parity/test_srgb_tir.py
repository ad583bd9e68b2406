"""The generator equals the reference implementation of MUNIT on the weights and outputs in fixtures/srgb_tir."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig, load_srgb_tir

FOLDER = Path(__file__).parent / "fixtures" / "srgb_tir"


@pytest.fixture(scope="module")
def g() -> SrgbTir:
    return load_srgb_tir(FOLDER / "translation_weights.pt")


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FOLDER / "io.safetensors")


def test_content_and_infrared_equal_the_reference(g: SrgbTir, reference: dict[str, Tensor]) -> None:
    content = g.encode_content(reference["rgb"])
    torch.testing.assert_close(content, reference["content"], atol=1e-5, rtol=0)
    infrared = g.translate(reference["rgb"], reference["style"])
    torch.testing.assert_close(infrared, reference["infrared"], atol=1e-5, rtol=0)


def test_each_image_of_a_batch_is_translated_with_its_own_style(g: SrgbTir, reference: dict[str, Tensor]) -> None:
    alone = g.translate(reference["rgb"][1:], reference["style"][1:])
    torch.testing.assert_close(alone, reference["infrared"][1:], atol=1e-5, rtol=0)
    assert (g.translate(reference["rgb"][1:], reference["style"][:1]) - alone).abs().max() > 1e-3


def test_safetensors_in_half_precision_load_as_float32(
    tmp_path: Path, g: SrgbTir, reference: dict[str, Tensor]
) -> None:
    stored = torch.load(FOLDER / "translation_weights.pt", weights_only=True)
    save_file({f"{d}.{k}": v.half() for d in "ab" for k, v in stored[d].items()}, tmp_path / "weights.safetensors")
    half = load_srgb_tir(tmp_path / "weights.safetensors", FOLDER / "config.json")
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    torch.testing.assert_close(
        half.translate(reference["rgb"], reference["style"]), reference["infrared"], atol=0.05, rtol=0
    )


@pytest.mark.parametrize("hw", [(40, 64), (64, 40), (41, 67), (43, 43)])
def test_any_aspect_gives_its_own_size_back(g: SrgbTir, hw: tuple[int, int]) -> None:
    rgb = torch.rand(1, 3, *hw, generator=torch.Generator().manual_seed(0)) * 2 - 1
    infrared = g.translate(rgb, g.style(0))
    assert infrared.shape == rgb.shape
    assert infrared.abs().max() <= 1


def test_padding_extends_the_image_by_reflection_and_is_cut_off(g: SrgbTir) -> None:
    rgb = torch.rand(1, 3, 40, 62, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mirrored = torch.cat([rgb, rgb[..., [60, 59]]], -1)
    torch.testing.assert_close(g.translate(rgb, g.style(0)), g.translate(mirrored, g.style(0))[..., :62])


def test_a_style_depends_on_its_seed_alone(g: SrgbTir) -> None:
    torch.manual_seed(1)
    first = g.style(5)
    torch.manual_seed(2)
    assert torch.equal(first, g.style(5))
    assert not torch.equal(first, g.style(6))


def test_default_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        published = SrgbTir(SrgbTirConfig())
    assert published.enc_content.model[0].conv.weight.shape == (64, 3, 7, 7)
    assert published.mlp.model[2].fc.weight.shape == (4096, 256)
    assert published.dec.model[5].conv.weight.shape == (3, 64, 7, 7)


def test_a_file_that_lacks_a_layer_is_rejected(tmp_path: Path) -> None:
    stored = torch.load(FOLDER / "translation_weights.pt", weights_only=True)
    del stored["b"]["enc_content.model.0.conv.bias"]
    torch.save(stored, tmp_path / "broken.pt")
    with pytest.raises(RuntimeError, match=r"enc_content\.model\.0\.conv\.bias"):
        load_srgb_tir(tmp_path / "broken.pt", FOLDER / "config.json")
