"""Losses against open_clip's: value and every gradient. Several ranks are in `test_world_sizes`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vidal.train.loss import LossSettings, contrastive_loss

ROWS, WIDTH = 8, 5


def material(seed: int = 0, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    a, b = (torch.randn(rows, WIDTH, dtype=torch.float64, requires_grad=True) for _ in range(2))
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    return a, b, scale, bias


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, of, allow_unused=True))


@pytest.mark.parametrize("local", [True, False])
def test_info_nce_is_open_clips_with_its_gradients(local: bool) -> None:
    from open_clip.loss import ClipLoss

    a, b, scale, _ = material()
    ours = contrastive_loss(LossSettings(local=local), a, b, scale)
    theirs = ClipLoss()(F.normalize(a, dim=-1), F.normalize(b, dim=-1), scale)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-14)
    for mine, wanted in zip(gradients(ours, a, b, scale), gradients(theirs, a, b, scale), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-14, rtol=0)


def test_sigmoid_is_open_clips_with_its_gradients() -> None:
    from open_clip.loss import SigLipLoss

    a, b, scale, bias = material()
    ours = contrastive_loss(LossSettings(kind="sigmoid"), a, b, scale, bias)
    theirs = SigLipLoss()(F.normalize(a, dim=-1), F.normalize(b, dim=-1), scale, bias)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-14)
    for mine, wanted in zip(gradients(ours, a, b, scale, bias), gradients(theirs, a, b, scale, bias), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-14, rtol=0)


def test_random_features_start_at_the_logarithm_of_the_batch() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(256, 64), torch.randn(256, 64)
    loss = contrastive_loss(LossSettings(), a, b, torch.tensor(1.0))
    assert loss.item() == pytest.approx(math.log(256), abs=0.05)


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_a_row_that_is_not_valid_is_as_if_it_were_not_there(kind: str) -> None:
    a, b, scale, bias = material()
    valid = torch.tensor([True, False, True, True, False, True, True, True])
    settings = LossSettings.model_validate({"kind": kind})
    whole = contrastive_loss(settings, a, b, scale, bias, valid)
    rest = contrastive_loss(settings, a[valid], b[valid], scale, bias, torch.ones(6, dtype=torch.bool))
    assert whole.item() == pytest.approx(rest.item(), abs=1e-14)
    got = gradients(whole, a, b)
    assert torch.allclose(got[0], gradients(rest, a, b)[0], atol=1e-14)
    assert (got[0][~valid] == 0).all() and (got[1][~valid] == 0).all()


@pytest.mark.parametrize("kind", ["info_nce", "sigmoid"])
def test_a_batch_without_a_valid_row_gives_zero_and_no_nan(kind: str) -> None:
    a, b, scale, bias = material()
    loss = contrastive_loss(
        LossSettings.model_validate({"kind": kind}), a, b, scale, bias, torch.zeros(ROWS, dtype=torch.bool)
    )
    assert loss.item() == 0
    assert all(torch.isfinite(g).all() for g in gradients(loss, a, b, scale) if g is not None)


def test_known_duplicates_are_no_negatives_where_they_are_masked() -> None:
    a, b, scale, _ = material()
    group = torch.tensor([1, 1, 2, 3, 4, 5, 6, 7])
    masked = contrastive_loss(LossSettings(mask_duplicates=True), a, b, scale, None, torch.ones(ROWS).bool(), group)
    logits = scale * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
    logits = logits.clone()
    logits[0, 1] = logits[1, 0] = -torch.inf
    target = torch.arange(ROWS)
    by_hand = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    assert masked.item() == pytest.approx(by_hand.item(), abs=1e-14)
