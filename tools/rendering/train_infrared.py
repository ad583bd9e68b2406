"""Train the small colour-to-infrared network on rendered scenes and write its checkpoint folder.

    python -m tools.rendering.train_infrared --out DIR --seed 0 --frames 4000 --steps 2400

The backbone stays as ImageNet left it; the decoder learns the written rule of `thermal.py` and, beside it, the class of
each surface. Captions are drawn over a part of the colour frames and not over the target. The checkpoint written is the
one with the least root mean square error on the choosing renders, which training never sees. The result imitates that
rule and nothing else: it is SYNTHETIC, without radiometric meaning. Shape letters: b batch, h and w pixels.
"""

import argparse
import copy
import json
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tools.rendering.evaluate_infrared import score_renders
from tools.rendering.frames import CHOOSING_SEEDS, CHUNK, Chunk, held_out_frames, held_out_library, picks, rendering
from tools.rendering.materials import Material
from tools.rendering.overlays import with_caption
from tools.rendering.thermal import CLASSES, class_levels
from tools.rendering.train_depth import imagenet_weights
from vidal.models.infrared import ImageToImageTranslator
from vidal.models.small_infrared import GROUPS, SmallInfraredConfig, SmallInfraredForImageToImage, processor

BATCH = 12
RATE = 2e-3
DROPPED = {"features": 0.1, "whole": 0.5}
"""Share of coarse feature channels, and of the vector that describes a whole picture, hidden from the decoder in
training: it is by these that a decoder knows a picture again."""
EVIDENCE: tuple[tuple[int | None, float], ...] = (
    (Material.BODY, 1.0), (CLASSES - 1, 1.0), (Material.VEHICLE, 0.7), (None, 0), (None, 0), (Material.BACKDROP, 0.5),
    (Material.PLANT, 0.5), (None, 0), (None, 0),
)  # fmt: skip
"""What each of `GROUPS`, and the rest of ImageNet, speaks for before training: few rendered animals look real."""
CONFIDENCE: tuple[tuple[int | None, float], ...] = ((None, 0), (CLASSES - 1, 2.0))
"""How much more they count after training than it left them: ImageNet makes out real people, by their clothes, better
than rendered ones."""
SIZES = {(160, 224): (160, 224), (192, 192): (160, 160), (224, 160): (224, 160), (160, 288): (160, 288)}
"""Rendered (h, w) to trained (h, w): multiples of 32 whose short side is what the processor gives."""


def augmented(rng: np.random.Generator, chunk: Chunk, rows: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """rgb (b, 3, h, w) in [-1, 1], grey (b, h / 2, w / 2) in [0, 1] and class (b, h / 2, w / 2)."""
    size = SIZES[chunk.target.shape[1:3]]
    half = (size[0] // 2, size[1] // 2)
    colours, greys, classes = [], [], []
    for row in rows:
        rgb, target = _cropped(rng, chunk.rgb[row], chunk.target[row])
        if rng.random() < 0.4:
            rgb, _ = with_caption(rng, np.ascontiguousarray(rgb))
        colour = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255
        grey, kind = (torch.from_numpy(np.ascontiguousarray(target[..., n]))[None, None].float() for n in (0, 1))
        colours.append(F.interpolate(colour, size, mode="bilinear", antialias=True)[0])
        greys.append(F.interpolate(grey / 255, half, mode="bilinear", antialias=True)[0, 0])
        classes.append(F.interpolate(kind, half, mode="nearest")[0, 0].long())
    return _recoloured(rng, torch.stack(colours)) * 2 - 1, torch.stack(greys), torch.stack(classes)


def _cropped(rng: np.random.Generator, *images: np.ndarray) -> list[np.ndarray]:
    h, w = images[0].shape[:2]
    share = rng.uniform(0.5, 1.0) if rng.random() < 0.6 else 1.0
    ch, cw = int(h * share), int(w * share)
    top, left = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
    step = -1 if rng.random() < 0.5 else 1
    return [image[top : top + ch, left : left + cw][:, ::step] for image in images]


def _recoloured(rng: np.random.Generator, rgb: Tensor) -> Tensor:
    """Saturation, contrast, exposure, white balance, gamma, blur and noise, drawn per image."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(rgb), channels, 1, 1)).astype(np.float32))

    grey = rgb.mean(1, keepdim=True)
    rgb = grey + (rgb - grey) * draw(0.4, 1.4)
    centre = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - centre) * draw(0.6, 1.3) + centre * draw(0.6, 1.4) * draw(0.9, 1.1, 3)
    rgb = rgb.clamp(0, 1) ** draw(0.7, 1.5)
    if rng.random() < 0.3:
        rgb = F.avg_pool2d(rgb, 3, 1, 1, count_include_pad=False)
    speckle = torch.from_numpy(rng.standard_normal(rgb.shape, np.float32))
    return (rgb + speckle * draw(0.0, 0.05)).clamp(0, 1)


def loss(logits: Tensor, grey: Tensor, target: Tensor, classes: Tensor) -> Tensor:
    """0.5 x L1 + 6 x L2 + 0.5 x L1 of steps between neighbours + 0.2 x cross entropy of the surface class.

    L1 alone settles on the commonest temperature wherever colour leaves any doubt.
    """
    error = grey - target
    return (
        0.5 * error.abs().mean()
        + 6 * error.square().mean()
        + 0.5 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
        + 0.2 * F.cross_entropy(logits, classes)
    )


def translator(model: SmallInfraredForImageToImage) -> ImageToImageTranslator:
    """The network as the infrared stage runs it."""
    return ImageToImageTranslator(model=model, processor=processor(), device=torch.device("cpu"), dtype=torch.float32)


def save(model: SmallInfraredForImageToImage, folder: Path) -> None:
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


class Views:
    """Training frames, augmented once and passed through the frozen backbone once: most of a step otherwise.

    In memory, as halves, a frame takes 0.6 MB.
    """

    def __init__(self, model: SmallInfraredForImageToImage, rng: np.random.Generator) -> None:
        self._model, self._rng = model, rng
        self._known: dict[int, tuple[list[Tensor], Tensor, Tensor]] = {}

    def batch(self, number: int, chunk: Future[Chunk], rows: list[int]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features, grey and class of frames of that chunk, half of the batches mirrored."""
        if number not in self._known:
            self._known[number] = self._made(chunk.result())
        features, grey, classes = self._known[number]
        chosen = [x[rows].float() for x in features], grey[rows], classes[rows]
        if self._rng.random() < 0.5:
            return chosen
        return [x.flip(-1) for x in chosen[0]], chosen[1].flip(-1), chosen[2].flip(-1)

    def _made(self, chunk: Chunk) -> tuple[list[Tensor], Tensor, Tensor]:
        parts = []
        for first in range(0, CHUNK, BATCH):
            rgb, grey, classes = augmented(self._rng, chunk, range(CHUNK)[first : first + BATCH])
            features = self._model.features(rgb.contiguous(memory_format=torch.channels_last))
            parts.append(([x.half() for x in features], grey, classes))
        features = [torch.cat(level) for level in zip(*(part[0] for part in parts), strict=True)]
        return features, torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])


def with_channels_dropped(features: list[Tensor]) -> list[Tensor]:
    """Features (b, c, h, w) of the three coarsest levels with channels hidden, ImageNet's evidence never."""
    kept = list(features)
    for level, share in ((2, 0.5), (3, 1.0), (4, 1.0)):
        seen = torch.ones_like(features[level][:, :, :1, :1])
        spared = len(GROUPS) + 1 if level == 4 else 0
        seen[:, : seen.shape[1] - spared] = F.dropout(seen[:, : seen.shape[1] - spared], DROPPED["features"] * share)
        kept[level] = features[level] * seen
    return kept


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng([args.seed, 4])
    choosing = held_out_frames(held_out_library(args.textures), first=CHOOSING_SEEDS, count=64, honest=True)
    model = SmallInfraredForImageToImage(SmallInfraredConfig(channels=80, levels=tuple(class_levels())))
    model.backbone.load_state_dict(imagenet_weights())
    lean(model, EVIDENCE)
    nn.Module.to(model, memory_format=torch.channels_last)
    model.backbone.requires_grad_(False)
    model.decoder.whole.register_forward_pre_hook(
        lambda module, given: (F.dropout(given[0], DROPPED["whole"], training=module.training),)
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, args.steps, pct_start=0.06)
    mean, best, started = copy.deepcopy(model).train(False), float("inf"), time.monotonic()
    views = Views(model, rng)
    with rendering(args.textures, "infrared", seed=args.seed, frames=args.frames, workers=args.workers) as chunks:
        for step, (number, rows) in enumerate(picks(args.seed, len(chunks), steps=args.steps, batch=BATCH), 1):
            model.train()
            model.backbone.eval()  # batch statistics of ImageNet stay
            features, target, classes = views.batch(number, chunks[number], rows)
            with torch.autocast("cpu", torch.bfloat16):
                logits, grey = model.classes(with_channels_dropped(features))
            value = loss(logits.float(), grey.float(), target, classes)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            schedule.step()
            _average(mean, model, min(0.995, step / (step + 10)))
            if step % args.every and step < args.steps:
                continue
            confident = copy.deepcopy(mean)
            lean(confident, CONFIDENCE)
            result = score_renders(translator(confident), choosing, first=CHOOSING_SEEDS)
            line = {"step": step, "loss": round(value.item(), 4), **{k: round(v, 3) for k, v in result.items()}}
            print(json.dumps({**line, "minutes": round((time.monotonic() - started) / 60, 1)}), flush=True)
            if result["rms_ratio"] < best:
                best = result["rms_ratio"]
                save(confident, args.out)


@torch.no_grad()
def lean(model: SmallInfraredForImageToImage, evidence: Sequence[tuple[int | None, float]]) -> None:
    """Let each of the first groups of ImageNet classes speak for its surface class by that much more."""
    for group, (kind, weight) in enumerate(evidence):
        if kind is not None:
            model.evidence.weight[kind, group] += weight


@torch.no_grad()
def _average(mean: nn.Module, model: nn.Module, keep: float) -> None:
    for slow, fast in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - keep)
        else:
            slow.copy_(fast)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--textures", type=Path, default=Path("build/synthetic"), help="packages, images and renders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=2_400)
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
