"""1, 2 and 4 ranks take the same step: losses as open_clip's on each rank, gradients through DDP and GradCache."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch._dynamo  # DDP imports it: here once, and not in every rank anew
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import on_ranks
from vidal.train import gradcache
from vidal.train.distributed import World
from vidal.train.gradcache import Side
from vidal.train.loss import LossSettings, contrastive_loss
from vidal.train.totals import StepTotals
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.vit import VisionTower

ROWS, WIDTH = 12, 6
SIZES = VisionSettings(
    hidden_size=16, layers=1, heads=2, patch_size=4, image_size=16, projection_dim=WIDTH, patch_dropout=0.5
)
# All count; the counts of four ranks are 3, 1, 2, 0.
VALID = {"full": [True] * ROWS, "uneven": [True] * 4 + [False] * 2 + [True, False, True] + [False] * 3}


class Tower(nn.Module):
    """Leaves patches out by a mask that it is handed, and pixels by a dropout of its own, drawn row by row."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.vit = VisionTower(SIZES).double()

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        out: Tensor = self.vit(torch.cat([self.dropout(row) for row in x.split(1)]), keep)
        return out


class CountedDdp:
    """A tower under DDP that counts its all-reduces; on one rank the tower itself."""

    def __init__(self, tower: Tower, ranks: int) -> None:
        self.reduced = 0
        self.forward: nn.Module = tower
        self.deferred: dict[str, Any] = {}
        if ranks > 1:
            ddp = DistributedDataParallel(tower)
            ddp.register_comm_hook(None, self._hook)
            self.forward, self.deferred = ddp, {"defer_sync": ddp.no_sync}

    def _hook(self, state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations, and not as text
        self.reduced += 1
        return allreduce_hook(dist.group.WORLD, bucket)


def step(
    rank: int,
    ranks: int,
    kind: str,
    valid: list[bool],
    chunk_size: int | None,
    both: bool,
    dropout: float = 0.0,
    tile_rows: int | None = None,
) -> dict[str, Tensor]:
    """Every gradient of one step, as the optimiser of a rank sees it."""
    torch.manual_seed(0)
    towers = [Tower(dropout), Tower(dropout)]
    scale, bias = (nn.Parameter(torch.tensor(x, dtype=torch.float64)) for x in (2.0, -3.0))
    x, y = (torch.randn(ROWS, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    text = torch.randn(ROWS, WIDTH, dtype=torch.float64)
    keep = towers[0].vit.draw_keep(ROWS, "cpu", None)
    assert keep is not None
    share = ROWS // ranks
    mine = slice(rank * share, (rank + 1) * share)
    torch.manual_seed(rank)
    wrapped = [CountedDdp(tower, ranks) for tower in (towers if both else towers[:1])]
    sides = [
        Side(encode=lambda rows, t=t, p=p[mine], k=keep[mine]: t.forward(p[rows], k[rows]), **t.deferred)
        for t, p in zip(wrapped, (x, y), strict=False)
    ]
    sides += [] if both else [Side(embeddings=text[mine])]
    settings = LossSettings.model_validate({"kind": kind, "tile_rows": tile_rows})
    counts = torch.tensor(valid)[mine]
    loss = gradcache.backward(
        sides, lambda a, b: contrastive_loss(settings, a, b, scale.exp(), bias, counts), rows=share,
        chunk_size=chunk_size, device=torch.device("cpu"),
    )  # fmt: skip
    totals = StepTotals(
        loss[None], [scale, bias], group=torch.arange(share), valid=counts, broken=~counts, interrupted=False,
        here=World(rank=rank, size=ranks),
    )  # fmt: skip
    named = {"scale": scale, "bias": bias}
    named |= {f"{n}.{name}": p for n, tower in enumerate(towers) for name, p in tower.named_parameters()}
    found = {name: p.grad for name, p in named.items() if p.grad is not None}
    return {
        "loss": torch.tensor(totals.read(loss).losses[0], dtype=torch.float64),
        **found,
        "reduced": torch.tensor([t.reduced for t in wrapped]),
    }


def assert_equal(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name in wanted.keys() - {"reduced"}:
        assert torch.allclose(got[name], wanted[name], atol=1e-12, rtol=0), name


CASES = [*itertools.product(("info_nce", "sigmoid"), VALID, (None, 2), (False, True), (None,)),
         *(("info_nce", valid, None, True, 2) for valid in VALID)]  # fmt: skip


def all_steps(rank: int, ranks: int) -> list[dict[str, Tensor]]:
    return [step(rank, ranks, kind, VALID[valid], *how, tile_rows=tile) for kind, valid, *how, tile in CASES]


@pytest.fixture(scope="module")
def steps() -> dict[int, list[list[dict[str, Tensor]]]]:
    """By number of ranks, what each rank had in each case: one start of the ranks, which costs more than all steps."""
    return {ranks: on_ranks(ranks, all_steps) for ranks in (1, 2, 4)}


@pytest.mark.parametrize("case", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_ranks_under_ddp_take_the_step_of_one_process(
    case: int, steps: dict[int, list[list[dict[str, Tensor]]]]
) -> None:
    kind, valid, _, both, _ = CASES[case]
    alone = step(0, 1, kind, VALID[valid], None, both)
    assert alone["0.vit.visual_projection.weight"].abs().max() > 1e-3
    for ranks, of_ranks in steps.items():
        assert len(of_ranks) == ranks
        for given in of_ranks:
            assert_equal(given[case], alone)
            # One bucket holds such a tower, so one all-reduce is one for the whole step, however many chunks.
            assert given[case]["reduced"].tolist() == [int(ranks > 1)] * (2 if both else 1)


@pytest.mark.parametrize("both", [False, True], ids=["text-modality", "modality-modality"])
def test_chunks_of_one_row_or_more_than_the_batch_take_the_same_step(both: bool) -> None:
    alone = step(0, 1, "info_nce", VALID["uneven"], None, both)
    for chunk_size in (1, 100):
        for given in on_ranks(2, step, "info_nce", VALID["uneven"], chunk_size, both):
            assert_equal(given, alone)


@pytest.mark.parametrize("both", [False, True], ids=["text-modality", "modality-modality"])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunks_draw_the_dropout_of_the_whole_share_on_every_rank(chunk_size: int, both: bool) -> None:
    whole = on_ranks(2, step, "info_nce", VALID["uneven"], None, both, 0.4)
    for given, wanted in zip(on_ranks(2, step, "info_nce", VALID["uneven"], chunk_size, both, 0.4), whole, strict=True):
        assert_equal(given, wanted)
    without = step(0, 1, "info_nce", VALID["uneven"], None, both)
    assert not torch.allclose(whole[0]["loss"], without["loss"], atol=1e-3)


def per_rank(rank: int, ranks: int, kind: str, how: str) -> dict[str, Tensor]:
    """Our loss and gradients on this rank, and open_clip's."""
    from open_clip.loss import ClipLoss, SigLipLoss

    torch.manual_seed(5)
    a, b = (torch.randn(ROWS, WIDTH, dtype=torch.float64) for _ in range(2))
    share = slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
    found: dict[str, Tensor] = {}
    for whose in ("ours", "theirs"):
        p, q = (side[share].clone().requires_grad_() for side in (a, b))
        scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (7.0, -3.0))
        if whose == "ours":
            settings = LossSettings.model_validate({"kind": kind, "local": how != "global"})
            loss = contrastive_loss(settings, p, q, scale, bias, torch.ones(len(p), dtype=torch.bool))
        elif kind == "info_nce":
            clip = ClipLoss(local_loss=how == "local", gather_with_grad=True, rank=rank, world_size=ranks)
            loss = clip(F.normalize(p, dim=-1), F.normalize(q, dim=-1), scale)
        else:
            siglip = SigLipLoss(rank=rank, world_size=ranks, dist_impl=how)
            loss = siglip(F.normalize(p, dim=-1), F.normalize(q, dim=-1), scale, bias)
        loss.backward()
        parts = {"loss": loss.detach(), "a": p.grad, "b": q.grad, "scale": scale.grad}
        found |= {f"{whose}.{name}": value for name, value in parts.items() if value is not None}
    return found


HOW = [("info_nce", "local"), ("info_nce", "global"), ("sigmoid", "bidir"), ("sigmoid", "gather")]


def all_per_rank(rank: int, ranks: int) -> list[dict[str, Tensor]]:
    return [per_rank(rank, ranks, *case) for case in HOW]


@pytest.mark.parametrize("ranks", [2, 4])
def test_each_rank_has_the_loss_and_gradients_of_open_clips(ranks: int) -> None:
    for of_a_rank in on_ranks(ranks, all_per_rank):
        for given, case in zip(of_a_rank, HOW, strict=True):
            for name in ("loss", "a", "b", "scale"):
                assert torch.allclose(given[f"ours.{name}"], given[f"theirs.{name}"], atol=1e-14, rtol=0), (case, name)
