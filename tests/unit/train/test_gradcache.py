"""GradCache gives the gradient of the whole batch, under dropout too, on one rank and on several."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo  # DDP imports it: here once, and not in every rank anew
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import on_ranks
from vidal.train import gradcache
from vidal.train.gradcache import Side
from vidal.train.loss import LossSettings, contrastive_loss
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.vit import VisionTower

ROWS = 8


class Net(nn.Module):
    """Dropout of its own, and patches left out by a mask that it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.4)
        self.vit = VisionTower(
            VisionSettings(hidden_size=16, layers=2, heads=2, patch_size=4, image_size=16, projection_dim=6,
                           patch_dropout=0.5)
        ).double()  # fmt: skip

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        embeddings: Tensor = self.vit(self.dropout(x), keep)
        return embeddings


def nets() -> tuple[Net, Net, nn.Parameter]:
    torch.manual_seed(1)
    return Net(), Net(), nn.Parameter(torch.tensor(2.0, dtype=torch.float64))


def step(chunk_size: int | None, *, both: bool, kept_chunks: int = 1) -> dict[str, Tensor]:
    """Gradients of one step; dropout draws row by row, so that chunks and the whole batch draw alike."""
    a, b, scale = nets()
    torch.manual_seed(2)
    x, y = (torch.randn(ROWS, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    keep = a.vit.draw_keep(ROWS, "cpu", torch.Generator().manual_seed(3))
    assert keep is not None
    text = torch.randn(ROWS, 6, dtype=torch.float64)
    torch.manual_seed(4)
    sides = [
        Side(encode=lambda rows: torch.cat([a(x[i : i + 1], keep[i : i + 1]) for i in range(rows.start, rows.stop)])),
        Side(encode=lambda rows: torch.cat([b(y[i : i + 1], keep[i : i + 1]) for i in range(rows.start, rows.stop)]))
        if both
        else Side(embeddings=text),
    ]
    loss = gradcache.backward(
        sides, lambda p, q: contrastive_loss(LossSettings(), p, q, scale.exp()), rows=ROWS, chunk_size=chunk_size,
        device=torch.device("cpu"), kept_chunks=kept_chunks,
    )  # fmt: skip
    named = {**{f"a.{n}": p for n, p in a.named_parameters()}, **{f"b.{n}": p for n, p in b.named_parameters()}}
    found = {name: p.grad for name, p in named.items() if p.grad is not None}
    assert scale.grad is not None
    return {"loss": loss, "scale": scale.grad, **found}


@pytest.mark.parametrize("both", [False, True], ids=["text-modality", "modality-modality"])
@pytest.mark.parametrize("chunk_size", [1, 3, 4])
def test_chunks_give_the_gradients_of_the_whole_batch_under_dropout(chunk_size: int, both: bool) -> None:
    whole, chunked = step(None, both=both), step(chunk_size, both=both)
    assert whole.keys() == chunked.keys()
    for name, wanted in whole.items():
        assert torch.allclose(chunked[name], wanted, atol=1e-12, rtol=0), name
    assert (chunked["scale"] / whole["scale"]).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("both", [False, True], ids=["text-modality", "modality-modality"])
def test_whatever_is_kept_the_results_are_the_same_bits(both: bool) -> None:
    first, *others = (step(2, both=both, kept_chunks=kept) for kept in (1, 2, 3, 100))
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(other[name], wanted) for name, wanted in first.items())


def test_the_random_state_afterwards_is_that_after_the_first_pass() -> None:
    torch.manual_seed(7)
    step(None, both=True)
    after_whole = torch.rand(1)
    torch.manual_seed(7)
    step(2, both=True)
    assert torch.equal(torch.rand(1), after_whole)


def on_a_rank(rank: int, ranks: int, chunk_size: int | None, kept_chunks: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(1)
    net = nn.Linear(5, 4).double()
    torch.manual_seed(2)
    x, text = torch.randn(ROWS, 5, dtype=torch.float64), torch.randn(ROWS, 4, dtype=torch.float64)
    rows = ROWS // ranks
    mine = slice(rank * rows, (rank + 1) * rows)
    tower: nn.Module = DistributedDataParallel(net) if ranks > 1 else net
    own, other = x[mine], text[mine]
    side = Side(encode=lambda s: tower(own[s]), **({"defer_sync": tower.no_sync} if ranks > 1 else {}))
    scale = torch.tensor(3.0, dtype=torch.float64)
    gradcache.backward(
        [side, Side(embeddings=other)], lambda p, q: contrastive_loss(LossSettings(), p, q, scale), rows=rows, chunk_size=chunk_size,
        device=torch.device("cpu"), kept_chunks=kept_chunks,
    )  # fmt: skip
    assert net.weight.grad is not None
    return {"weight": net.weight.grad}


@pytest.mark.parametrize(
    ("ranks", "chunk_size", "kept_chunks"), [(2, None, 1), (2, 1, 1), (2, 1, 2), (4, None, 1), (4, 1, 1)]
)
def test_chunks_on_ranks_under_ddp_give_what_one_process_gives(
    ranks: int, chunk_size: int | None, kept_chunks: int
) -> None:
    whole = on_a_rank(0, 1, None)["weight"]
    for part in on_ranks(ranks, on_a_rank, chunk_size, kept_chunks):
        assert torch.allclose(part["weight"], whole, atol=1e-12, rtol=0)


def bf16_step(chunk_size: int | None, *, autocast_outside: bool) -> tuple[list[Tensor], list[torch.dtype]]:
    """A step under autocast, and the types in which the loss got the embeddings."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 6))
    x, text = torch.randn(ROWS, 12), torch.randn(ROWS, 6)
    seen: list[torch.dtype] = []

    def encode(rows: slice) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings: Tensor = net(x[rows])
        return embeddings

    def loss(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a.dtype)
        return contrastive_loss(LossSettings(), a, b, torch.tensor(5.0))

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast_outside):
        gradcache.backward(
            [Side(encode=encode), Side(embeddings=text)], loss, rows=ROWS, chunk_size=chunk_size,
            device=torch.device("cpu"),
        )  # fmt: skip
    return [p.grad for p in net.parameters() if p.grad is not None], seen


@pytest.mark.parametrize("autocast_outside", [False, True])
def test_under_autocast_the_loss_sees_float32_and_every_weight_gets_its_gradient(autocast_outside: bool) -> None:
    whole, seen = bf16_step(None, autocast_outside=autocast_outside)
    chunked, also_seen = bf16_step(3, autocast_outside=autocast_outside)
    assert seen == also_seen == [torch.float32]
    assert len(whole) == len(chunked) == 4
    for got, wanted in zip(chunked, whole, strict=True):
        # A weight's gradient is summed over chunks in float32, but rounded to bf16 within one.
        assert (got - wanted).norm() < 0.02 * wanted.norm()
