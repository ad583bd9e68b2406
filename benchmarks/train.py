"""How fast a training step is: beside open_clip's on the CPU, and against the arithmetic ceiling on a GPU.

    python benchmarks/train.py                          one small ViT, both trainers' steps in turn, the ratio
    python benchmarks/train.py --gpu [--rows full lora]     the trainer itself on a GPU, with and without each switch
    python benchmarks/train.py --gpu --quick --device cpu   the same at toy size, to see that it runs
    python benchmarks/train.py --costs                  what a step costs beside its arithmetic, counted on a CPU

On the CPU, both trainers start from the same weights and see the same pixels and text, so their losses agree. What
``--gpu`` measures is in `benchmarks/train_gpu.py`, what ``--costs`` counts in `benchmarks/train_costs.py`.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from figures import options, show
from torch import Tensor, nn
from train_costs import costs
from train_gpu import ROWS, on_gpu

from vidal.train import gradcache
from vidal.train.loss import LossSettings, contrastive_loss
from vidal.train.optim import Optimisation, OptimiserSettings
from vidal.train.towers.encoder import MAX_LOGIT_SCALE
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.vit import VisionTower

_WARM_UP = 3
_CPU_TOWER = {"width": 384, "layers": 6, "heads": 6, "patch": 16, "image": 128}
_TINY_TOWER = {"width": 32, "layers": 2, "heads": 2, "patch": 16, "image": 32}


def ours(size: dict[str, int], pixels: Tensor, text: Tensor, start: nn.Module) -> Callable[[], float]:
    tower = VisionTower(VisionSettings(
        hidden_size=size["width"], layers=size["layers"], heads=size["heads"], patch_size=size["patch"],
        image_size=size["image"], projection_dim=text.shape[1],
    ))  # fmt: skip
    tower.load_state_dict(under_our_names(start))
    scale = nn.Parameter(torch.tensor(2.66))
    model = nn.ModuleDict({"tower": tower})
    model.register_parameter("logit_scale", scale)
    optimisation = Optimisation(model, OptimiserSettings(lr=1e-4, clip_norm=1.0), 10_000)

    def step() -> float:
        optimisation.begin(0)
        sides = [gradcache.Side(encode=lambda rows: tower(pixels[rows])), gradcache.Side(embeddings=text)]
        loss = gradcache.backward(
            sides, lambda a, b: contrastive_loss(LossSettings(), a, b, scale.exp()), rows=len(pixels),
            chunk_size=None, device=pixels.device,
        )  # fmt: skip
        optimisation.clip()
        optimisation.step()
        with torch.no_grad():
            scale.clamp_(0, MAX_LOGIT_SCALE)
        return float(loss.detach())

    return step


def open_clip_tower(size: dict[str, int], width: int) -> nn.Module:
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(
        image_size=size["image"], patch_size=size["patch"], width=size["width"], layers=size["layers"],
        heads=size["heads"], mlp_ratio=4.0, output_dim=width,
    )  # fmt: skip


def under_our_names(tower: nn.Module) -> dict[str, Tensor]:
    """open_clip's weights; its fused qkv is cut in three, and its projection is the other way round."""
    plain = {
        "class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
    }  # fmt: skip
    parts = (
        ("transformer.resblocks.", "encoder.layers."), ("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm"),
        (".attn.", ".self_attn."), (".ln_", ".layer_norm"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
    )  # fmt: skip
    state: dict[str, Tensor] = {}
    for key, value in tower.state_dict().items():
        name = plain.get(key, key)
        for old, new in parts:
            name = name.replace(old, new)
        if "in_proj_" in name:
            pieces = zip("qkv", value.chunk(3), strict=True)
            state |= {name.replace("in_proj_", f"{which}_proj."): piece.clone() for which, piece in pieces}
        elif name == "proj":
            state["visual_projection.weight"] = value.T.clone()
        else:
            state[name] = value.clone()
    return state


def theirs(pixels: Tensor, text: Tensor, tower: nn.Module) -> Callable[[], float]:
    """A step as open_clip's train_one_epoch takes it in float32, clamp of the temperature included."""
    from open_clip.loss import ClipLoss

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
        with torch.no_grad():
            scale.clamp_(0, MAX_LOGIT_SCALE)
        return float(loss.detach())

    return step


def beside_open_clip(repeat: int, threads: int, *, tiny: bool) -> dict[str, object]:
    torch.set_num_threads(threads)
    size, rows = (_TINY_TOWER, 8) if tiny else (_CPU_TOWER, 32)
    start = open_clip_tower(size, 256)
    pixels, text = torch.randn(rows, 3, size["image"], size["image"]), torch.randn(rows, 256)
    steps = {"vidal": ours(size, pixels, text, start), "open_clip": theirs(pixels, text, start)}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    # Warm-up; the losses after a step or two show that both did the same.
    losses = {name: [step() for _ in range(_WARM_UP)] for name, step in steps.items()}
    for number in range(repeat):
        # Who goes first changes, so that neither always finds the caches as the other left them.
        for name in sorted(steps, reverse=bool(number % 2)):
            started = time.perf_counter()
            steps[name]()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "tower": size, "batch": rows, "threads": threads, "repeat": repeat, "warm_up_losses": losses,
        "median_s": medians, "best_s": best, "steps_per_s": {name: 1 / s for name, s in medians.items()},
        "ratio_by_median": medians["open_clip"] / medians["vidal"], "ratio_by_best": best["open_clip"] / best["vidal"],
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--costs", action="store_true")
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="those to measure, with --gpu"
    )
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1) - 2))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=2, help="that are timed, of each row")
    parser.add_argument("--repeat", type=int, default=15, help="steps of each trainer, in turns")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.costs:
        figures = costs()
    elif given.gpu:
        figures = on_gpu(
            given.rows, torch.device(given.device), batch=given.batch, workers=given.workers, steps=given.steps,
            tiny=given.quick,
        )  # fmt: skip
    else:
        figures = beside_open_clip(2 if given.quick else given.repeat, given.threads, tiny=given.quick)
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
