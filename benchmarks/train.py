"""How fast a training step is: beside open_clip's on the CPU, and against the arithmetic ceiling on a GPU.

    python benchmarks/train.py                          one small ViT, both trainers' steps in turn, the ratio
    python benchmarks/train.py --gpu [--tune lora]      ViT-L/14, 8 x 224², batch 1024, mask .5, bf16, synthetic data
    python benchmarks/train.py --gpu --tiny --device cpu   the same path at toy size, to see that it runs

The ceiling is that of 790 TFLOP/s with one more forward pass for GradCache: 309 clips/s full, 412 LoRA. MFU counts
useful FLOP only: neither masked patches nor recomputation.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidal.train import gradcache
from vidal.train.loss import info_nce
from vidal.train.optim import Optimisation, OptimiserSettings
from vidal.train.towers.flops import training_flops
from vidal.train.towers.lora import tune
from vidal.train.towers.settings import LoraSettings, VisionSettings
from vidal.train.towers.vit import VisionTower

H200_FLOPS = 790e12
CEILING = {"full": 309.0, "lora": 412.0}


def ours(size: dict[str, int], pixels: Tensor, text: Tensor) -> Callable[[], float]:
    torch.manual_seed(0)
    tower = VisionTower(VisionSettings(
        hidden_size=size["width"], layers=size["layers"], heads=size["heads"], patch_size=size["patch"],
        image_size=size["image"], projection_dim=text.shape[1],
    ))  # fmt: skip
    scale = nn.Parameter(torch.tensor(2.66))
    model = nn.ModuleDict({"tower": tower})
    model.register_parameter("logit_scale", scale)
    optimisation = Optimisation(model, OptimiserSettings(lr=1e-4, clip_norm=1.0), 10_000)

    def step() -> float:
        optimisation.begin(0)
        sides = [gradcache.Side(encode=lambda rows: tower(pixels[rows])), gradcache.Side(embeddings=text)]
        loss = gradcache.backward(
            sides, lambda a, b: info_nce(a, b, scale.exp()), rows=len(pixels), chunk_size=None, device=pixels.device
        )
        optimisation.clip()
        optimisation.step()
        return float(loss.detach())

    return step


def theirs(size: dict[str, int], pixels: Tensor, text: Tensor) -> Callable[[], float]:
    from open_clip.loss import ClipLoss
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    tower = VisionTransformer(
        image_size=size["image"], patch_size=size["patch"], width=size["width"], layers=size["layers"],
        heads=size["heads"], mlp_ratio=4.0, output_dim=text.shape[1],
    )  # fmt: skip
    scale, criterion = nn.Parameter(torch.tensor(2.66)), ClipLoss()
    named = [*tower.named_parameters(), ("logit_scale", scale)]
    # The groups of open_clip's own trainer.
    gain = [p for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n]
    rest = [p for n, p in named if not any(p is q for q in gain)]
    groups = [{"params": gain, "weight_decay": 0.0}, {"params": rest, "weight_decay": 0.2}]
    adamw = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6)

    def step() -> float:
        adamw.zero_grad()
        features = F.normalize(tower(pixels), dim=-1)
        loss = criterion(features, F.normalize(text, dim=-1), scale.exp())
        loss.backward()
        nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        adamw.step()
        return float(loss.detach())

    return step


def beside_open_clip(rounds: int, threads: int) -> dict[str, object]:
    torch.set_num_threads(threads)
    size = {"width": 384, "layers": 6, "heads": 6, "patch": 16, "image": 128}
    pixels, text = torch.randn(32, 3, 128, 128), torch.randn(32, 256)
    steps = {"vidal": ours(size, pixels, text), "open_clip": theirs(size, pixels, text)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "tower": size, "batch": 32, "threads": threads, "rounds": rounds, "median_s": medians, "best_s": best,
        "ratio_by_median": medians["open_clip"] / medians["vidal"], "ratio_by_best": best["open_clip"] / best["vidal"],
    }  # fmt: skip


def on_gpu(how: str, device: torch.device, *, tiny: bool, chunk: int, compile: bool, steps: int) -> dict[str, object]:
    """The case of the ceiling; the first steps are warm-up and are not counted."""
    large = {"hidden_size": 1024, "layers": 24, "heads": 16, "patch_size": 14, "image_size": 224, "projection_dim": 768}
    small = {"hidden_size": 32, "layers": 2, "heads": 2, "patch_size": 8, "image_size": 32, "projection_dim": 16}
    settings = VisionSettings(**(small if tiny else large), frames=8, patch_dropout=0.5)
    rows = 8 if tiny else 1024
    tower = VisionTower(settings).to(device).train()
    lora = LoraSettings(rank=16)
    tune(tower, "lora" if how == "lora" else "full", lora)
    if compile:
        tower.compile()
    scale = nn.Parameter(torch.tensor(2.66, device=device))
    model = nn.ModuleDict({"tower": tower})
    model.register_parameter("logit_scale", scale)
    optimisation = Optimisation(model, OptimiserSettings(lr=1e-4), 10_000)
    side = settings.height_width[0]
    pixels = torch.randn(rows, 3, 8, side, side, device=device, dtype=torch.bfloat16)
    text = torch.randn(rows, settings.projection_dim, device=device)

    def encode(part: slice, keep: Tensor | None) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            embeddings: Tensor = tower(pixels[part], None if keep is None else keep[part])
        return embeddings.float()

    seconds = []
    for _ in range(2 + steps):
        keep = tower.draw_keep(rows, device, None)
        started = _now(device)
        optimisation.begin(0)
        sides = [gradcache.Side(encode=lambda part, keep=keep: encode(part, keep), defer_sync=nullcontext),
                 gradcache.Side(embeddings=text)]  # fmt: skip
        gradcache.backward(
            sides, lambda a, b: info_nce(a, b, scale.exp()), rows=rows, chunk_size=4 if tiny else chunk, device=device
        )
        optimisation.clip()
        optimisation.step()
        seconds.append(_now(device) - started)
    step_s = statistics.median(seconds[2:])
    clips_per_s = rows / step_s
    useful = training_flops(settings, "lora" if how == "lora" else "full", lora)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name, "batch": rows, "frames": 8, "mask": 0.5, "tune": how, "chunk": 4 if tiny else chunk,
        "compile": compile, "data": "synthetic", "steps": steps, "clips_per_s": clips_per_s,
        "share_of_ceiling": None if tiny else clips_per_s / CEILING[how],
        "mfu_of_790": None if tiny else useful * clips_per_s / H200_FLOPS,
        "memory_GiB": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }  # fmt: skip


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--tune", choices=["full", "lora"], default="full")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.gpu:
        device = torch.device(given.device)
        found = on_gpu(given.tune, device, tiny=given.tiny, chunk=given.chunk, compile=given.compile, steps=given.steps)
    else:
        found = beside_open_clip(given.rounds, given.threads)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
