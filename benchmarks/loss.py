"""What a contrastive loss of a large batch costs with all logits at once and in tiles (`loss.tile_rows`).

    python benchmarks/loss.py                    batches of 4096 and 8192, 512 values, on the CPU
    python benchmarks/loss.py --batch 32768 --tile 2048

Forward and backward pass of InfoNCE in float32, each way in a process of its own, whose peak memory is what it adds to
the features and torch; value and gradients are compared.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch
from figures import options, show
from torch import Tensor

from vidal.train.loss import LossSettings, contrastive_loss


def cost(rows: int, width: int, tile_rows: int | None, repeat: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    text = torch.randn(rows, width)
    features = [(text + 2 * torch.randn(rows, width)).requires_grad_(), text.requires_grad_()]
    scale = torch.tensor(14.3, requires_grad=True)
    settings, valid = LossSettings(tile_rows=tile_rows), torch.ones(rows, dtype=torch.bool)

    def step(some: slice) -> tuple[Tensor, ...]:
        loss = contrastive_loss(settings, features[0][some], features[1][some], scale, None, valid[some])
        return loss.detach(), *torch.autograd.grad(loss, [*features, scale])

    # What the first pass loads and allocates by itself is no part of the peak.
    step(slice(64))
    before, seconds = peak_mib(), []
    for _ in range(repeat):
        started = time.perf_counter()
        found = step(slice(rows))
        seconds.append(time.perf_counter() - started)
    return {"peak_mib": peak_mib() - before, "s": statistics.median(seconds), "found": [x.numpy() for x in found]}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3, help="passes, of whose times the median is printed")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    batches, width, tile = ([256], 16, 64) if given.quick else (given.batch, given.width, given.tile)
    figures: dict[str, Any] = {"width": width, "tile_rows": tile, "threads": given.threads}
    for rows in batches:
        ways = {}
        for name, tile_rows in (("at once", None), ("in tiles", tile)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                ways[name] = pool.apply(cost, (rows, width, tile_rows, given.repeat, given.threads))
        pairs = zip(*(map(torch.from_numpy, way.pop("found")) for way in ways.values()), strict=True)
        apart = [float((tiled - plain).norm() / plain.norm()) for plain, tiled in pairs]
        figures[f"batch {rows}"] = {**ways, "loss apart": apart[0], "gradients apart": max(apart[1:])}
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
