"""What counts in a loss and what does not: invalid rows, chunks, duplicates, settings that are rejected."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidal.train.loss import LossSettings, contrastive_loss, duplicate_negatives, info_nce, sigmoid

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
    losses = [sigmoid(a, b, scale, bias, valid, group=group, chunk_rows=size) for size in (ROWS, chunk_rows)]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-14)
    grads = [torch.autograd.grad(loss, (a, b, scale)) for loss in losses]
    for got, wanted in zip(grads[1], grads[0], strict=True):
        assert torch.allclose(got, wanted, atol=1e-14, rtol=0)


def test_sigmoid_keeps_no_more_than_a_chunk_of_logits() -> None:
    rows = 64
    a, b = torch.randn(rows, 3, requires_grad=True), torch.randn(rows, 3)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        sigmoid(a, b, torch.tensor(1.0), torch.tensor(0.0), chunk_rows=4)
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
    assert torch.equal(info_nce(a, b, scale.float()), info_nce(a.float(), b.float(), scale.float()))


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
