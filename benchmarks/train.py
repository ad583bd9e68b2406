"""How fast a training step is: beside open_clip's on the CPU, and against the arithmetic ceiling on a GPU.

    python benchmarks/train.py                          one small ViT, both trainers' steps in turn, the ratio
    python benchmarks/train.py --gpu [--tune lora]      ViT-L/14, 8 x 224², batch 1024, mask .5, bf16, synthetic data
    python benchmarks/train.py --gpu --quick --device cpu   the same at toy size, to see that it runs

Both trainers start from the same weights and see the same pixels and text, so their losses agree.

The ceiling is what 790 TFLOP/s allow. A forward pass counts 1, its backward pass 2 (LoRA: 1, no gradients of frozen
weights), and GradCache one more forward: 309 clips/s full, 412 LoRA. MFU counts useful FLOP only: neither masked
patches nor recomputation.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from figures import options, show
from torch import Tensor, nn

from vidal.train import gradcache
from vidal.train.loss import info_nce
from vidal.train.optim import Optimisation, OptimiserSettings
from vidal.train.towers.encoder import MAX_LOGIT_SCALE
from vidal.train.towers.flops import forward_flops, training_flops
from vidal.train.towers.settings import LoraSettings, VisionSettings
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

H200_FLOPS = 790e12
_PASSES = {"full": 3, "lora": 2}
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
            sides, lambda a, b: info_nce(a, b, scale.exp()), rows=len(pixels), chunk_size=None, device=pixels.device
        )
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


def ceiling(settings: VisionSettings, how: str, *, is_cached: bool) -> float:
    """Clips/s if the whole step ran at 790 TFLOP/s, in the facts' counting of passes."""
    return H200_FLOPS / forward_flops(settings, masked=True).total / (_PASSES[how] + is_cached)


def on_gpu(
    how: str, device: torch.device, *, tiny: bool, rows: int, chunk: int, compile: bool, steps: int
) -> dict[str, object]:
    """The case of the ceiling; the first steps are warm-up and are not counted."""
    large = {"hidden_size": 1024, "layers": 24, "heads": 16, "patch_size": 14, "image_size": 224, "projection_dim": 768}
    small = {"hidden_size": 32, "layers": 2, "heads": 2, "patch_size": 8, "image_size": 32, "projection_dim": 16}
    settings = VisionSettings(**(small if tiny else large), frames=8, patch_dropout=0.5)
    rows, chunk = (8, 3) if tiny else (rows, chunk)
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
    for _ in range(_WARM_UP + steps):
        started = _now(device)
        optimisation.begin(0)
        keep = tower.draw_keep(rows, device, None)
        sides = [gradcache.Side(encode=lambda part, keep=keep: encode(part, keep), defer_sync=nullcontext),
                 gradcache.Side(embeddings=text)]  # fmt: skip
        loss = gradcache.backward(
            sides, lambda a, b: info_nce(a, b, scale.exp()), rows=rows, chunk_size=chunk, device=device
        )
        optimisation.clip()
        optimisation.step()
        seconds.append(_now(device) - started)
    step_s = statistics.median(seconds[_WARM_UP:])
    clips_per_s = rows / step_s
    useful = training_flops(settings, "lora" if how == "lora" else "full", lora)
    limit = ceiling(settings, how, is_cached=chunk < rows)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name, "torch": torch.__version__, "tower": settings.model_dump(include={*large}), "batch": rows,
        "frames": 8, "mask": 0.5, "precision": "bf16", "tune": how, "lora_rank": lora.rank if how == "lora" else None,
        "chunk": chunk, "compile": compile, "data": "synthetic", "warm_up_steps": _WARM_UP, "steps": steps,
        "step_s": step_s, "slowest_step_s": max(seconds[_WARM_UP:]), "loss": float(loss),
        "clips_per_s": clips_per_s, "frames_per_s": 8 * clips_per_s,
        "ceiling_clips_per_s": limit, "share_of_ceiling": clips_per_s / limit,
        "useful_gflop_per_clip": useful / 1e9, "mfu_of_790": useful * clips_per_s / H200_FLOPS,
        "memory_GiB": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }  # fmt: skip


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--tune", choices=["full", "lora"], default="full")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=15, help="steps of each trainer, in turns")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.gpu:
        figures = on_gpu(
            given.tune, torch.device(given.device), tiny=given.quick, rows=given.batch, chunk=given.chunk,
            compile=given.compile, steps=given.steps,
        )  # fmt: skip
    else:
        figures = beside_open_clip(2 if given.quick else given.repeat, given.threads, tiny=given.quick)
    show(figures, as_json=given.json)


if __name__ == "__main__":
    main()
