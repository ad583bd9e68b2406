"""What counts in a loss and what does not: invalid rows, chunks, duplicates, settings that are rejected."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidal.train.loss import (
    LossSettings,
    PairTerms,
    Taught,
    contrastive_loss,
    contrastive_losses,
    duplicate_negatives,
)

ROWS, WIDTH = 10, 5


def material() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    a, b = (torch.randn(ROWS, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    return a, b, torch.tensor(7.0, dtype=torch.float64, requires_grad=True), torch.tensor(-3.0, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
@pytest.mark.parametrize("holds", [float("nan"), float("inf"), 0.0, 1e30])
def test_a_row_that_is_not_valid_may_hold_anything(kind: str, holds: float) -> None:
    a, b, scale, bias = material()
    valid = torch.ones(ROWS, dtype=torch.bool)
    valid[[2, 7]] = False
    spoilt = [side.detach().masked_fill(~valid[:, None], holds).requires_grad_() for side in (a, b)]
    settings = LossSettings.model_validate({"kind": kind})
    losses = [contrastive_loss(settings, p, q, scale, bias, valid) for p, q in ((a, b), spoilt)]
    assert torch.equal(losses[0], losses[1])
    whole = torch.autograd.grad(losses[0], (a, b, scale))
    for got, wanted in zip(torch.autograd.grad(losses[1], (*spoilt, scale)), whole, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("chunk_rows", [1, 3, 5, 10, 64])
def test_sigmoid_in_chunks_is_sigmoid_at_once(chunk_rows: int) -> None:
    a, b, scale, bias = material()
    valid = torch.arange(ROWS) != 4
    group = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 7])
    settings = [LossSettings(kind="sigmoid", mask_duplicates=True, tile_rows=size) for size in (ROWS, chunk_rows)]
    losses = [contrastive_loss(each, a, b, scale, bias, valid, group) for each in settings]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-14)
    grads = [torch.autograd.grad(loss, (a, b, scale)) for loss in losses]
    for got, wanted in zip(grads[1], grads[0], strict=True):
        assert torch.allclose(got, wanted, atol=1e-14, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"local": False}, {"mask_duplicates": True}, {"kind": "sigmoid"}])
@pytest.mark.parametrize("tile_rows", [1, 3, ROWS])
@pytest.mark.parametrize("invalid", [[], [4, 9], [*range(ROWS)]], ids=["all valid", "two invalid", "none valid"])
def test_a_tiled_loss_is_the_plain_one_with_its_gradients(
    settings: dict[str, object], tile_rows: int, invalid: list[int]
) -> None:
    a, b, scale, bias = material()
    valid = torch.ones(ROWS, dtype=torch.bool).index_fill(0, torch.tensor(invalid, dtype=torch.int64), False)
    group = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 7])
    losses = [
        contrastive_loss(LossSettings.model_validate({**settings, "tile_rows": size}), a, b, scale, bias, valid, group)
        for size in (None, tile_rows)
    ]
    assert (losses[0] > 0) == (len(invalid) < ROWS)
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-13)
    grads = [torch.autograd.grad(loss, (a, b, scale)) for loss in losses]
    for got, wanted in zip(grads[1], grads[0], strict=True):
        assert torch.allclose(got, wanted, atol=1e-13, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_in_float32_a_tiled_loss_is_the_plain_one_within_its_rounding(scale: float) -> None:
    torch.manual_seed(0)
    text = torch.randn(300, 64)
    sides = [
        (text + torch.randn(300, 64)).requires_grad_(),
        text.requires_grad_(),
        torch.tensor(scale).requires_grad_(),
    ]
    found = []
    for tile_rows in (None, 128):
        settings = LossSettings(tile_rows=tile_rows)
        loss = contrastive_loss(settings, *sides, None, torch.ones(300, dtype=torch.bool))
        found.append((loss, *torch.autograd.grad(loss, sides)))
    for plain, tiled in zip(*found, strict=True):
        assert (tiled - plain).norm() <= 1e-5 * plain.norm() + 1e-7


def test_a_tiled_divergence_from_a_teacher_is_the_plain_one() -> None:
    a, b, scale, bias = material()
    torch.manual_seed(1)
    teacher = [torch.randn(ROWS, 3, dtype=torch.float64) for _ in range(2)]
    taught = Taught(image=teacher[0], text=teacher[1], known=torch.arange(ROWS) != 3, logit_scale=20.0)
    terms = PairTerms(sides=(0, 1), logit_scale=scale, logit_bias=bias, teachers=[taught], distil_weight=0.7)
    found = []
    for tile_rows in (None, 3):
        (loss,) = contrastive_losses(LossSettings(tile_rows=tile_rows), [a, b], [terms], torch.arange(ROWS) != 5)
        found.append((loss, *torch.autograd.grad(loss, (a, b, scale))))
    for plain, tiled in zip(*found, strict=True):
        assert torch.allclose(tiled, plain, atol=1e-14, rtol=0)


@pytest.mark.parametrize("tile_rows", [None, 4])
def test_a_tiled_loss_keeps_no_logits(tile_rows: int | None) -> None:
    rows = 64
    a, b = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 3)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        settings = LossSettings(tile_rows=tile_rows)
        contrastive_loss(settings, a, b, torch.tensor(1.0), None, torch.ones(rows, dtype=torch.bool))
    assert (max(kept) >= rows * rows) == (tile_rows is None)


def test_sigmoid_keeps_no_more_than_a_chunk_of_logits() -> None:
    rows = 64
    a, b = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 3)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        settings = LossSettings(kind="sigmoid", tile_rows=4)
        contrastive_loss(settings, a, b, torch.tensor(1.0), torch.tensor(0.0))
    assert 0 < sum(kept) < rows * rows


@pytest.mark.parametrize("how", ["info_nce", "sigmoid"])
def test_length_of_an_embedding_does_not_matter(how: str) -> None:
    a, b, scale, bias = material()
    settings = LossSettings.model_validate({"kind": how})
    valid = torch.ones(ROWS, dtype=torch.bool)
    one, other = (contrastive_loss(settings, a * k, b / k, scale, bias, valid) for k in (1.0, 17.0))
    assert one.item() == pytest.approx(other.item(), abs=1e-14)


def test_half_precision_embeddings_are_scored_in_float32() -> None:
    a, b, scale, _ = (x.detach().bfloat16() for x in material())
    half, single = (contrastive_loss(LossSettings(), *pair, scale.float()) for pair in ((a, b), (a.float(), b.float())))
    assert torch.equal(half, single)


@pytest.mark.parametrize(("groups", "pairs"), [
    ([1, 2, 3, 4], 0), ([1, 1, 3, 4], 2), ([1, 1, 1, 4], 6), ([1, 1, 3, 3], 4), ([1, 1, 3], 2), ([], 0),
])  # fmt: skip
def test_duplicates_that_count_against_each_other_are_counted(groups: list[float], pairs: int) -> None:
    assert duplicate_negatives(groups) == pairs


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_duplicates_count_unless_masked_and_an_invalid_one_never(kind: str) -> None:
    a, b, scale, bias = material()
    valid, group = torch.ones(ROWS, dtype=torch.bool), torch.tensor([1, 1, *range(2, ROWS)])
    apart = torch.arange(ROWS)
    plain, masked = (LossSettings.model_validate({"kind": kind, "mask_duplicates": m}) for m in (False, True))
    loss = {
        "plain": contrastive_loss(plain, a, b, scale, bias, valid, group).item(),
        "masked": contrastive_loss(masked, a, b, scale, bias, valid, group).item(),
        "apart": contrastive_loss(masked, a, b, scale, bias, valid, apart).item(),
    }
    assert loss["plain"] == loss["apart"] > loss["masked"]
    valid = valid.clone()
    valid[1] = False
    of_rest = [contrastive_loss(s, a, b, scale, bias, valid, group).item() for s in (plain, masked)]
    assert of_rest[0] == pytest.approx(of_rest[1], abs=1e-15)
