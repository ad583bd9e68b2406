"""Train the small colour-to-infrared generator on rendered scenes and write its checkpoint folder.

    python -m tools.rendering.train_infrared --out DIR --seed 0 --frames 2000 --steps 450

The generator is the one of sRGB-TIR at small sizes, trained supervised: the content encoder of colour and the decoder
of thermal under one fixed style. The loss is L1, L2 and L1 of gradients against the written rule of `thermal.py`, so
the result imitates that rule and nothing else: it is SYNTHETIC, without radiometric meaning.
"""

import argparse
import copy
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tools.rendering.frames import CHOOSING_SEEDS, Chunk, held_out_frames, held_out_library, picks, rendering
from tools.rendering.scenes import Frame
from tools.rendering.thermal import infrared
from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig

BATCH = 8
CROP_PX = 112
STYLE_SEED = 0
SMALL = SrgbTirConfig(dim=8, mlp_dim=32, style_dim=8, n_downsample=2, n_res=4)


def augmented(rng: np.random.Generator, chunk: Chunk, rows: list[int]) -> tuple[Tensor, Tensor]:
    """rgb (b, 3, 112, 112) and infrared (b, 1, 112, 112) in [-1, 1]: cropped, flipped, blurred, noisy, re-exposed."""
    h, w = chunk.target.shape[1:]
    top, left = int(rng.integers(h - CROP_PX + 1)), int(rng.integers(w - CROP_PX + 1))
    window = (rows, slice(top, top + CROP_PX), slice(left, left + CROP_PX))
    rgb = torch.from_numpy(chunk.rgb[window]).permute(0, 3, 1, 2).float() / 255
    target = torch.from_numpy(chunk.target[window])[:, None].float() / 127.5 - 1
    if rng.random() < 0.5:
        rgb, target = rgb.flip(-1), target.flip(-1)
    if rng.random() < 0.3:
        rgb = nn.functional.avg_pool2d(rgb, 3, 1, 1, count_include_pad=False)
    exposure = torch.from_numpy(rng.uniform(0.6, 1.3, (len(rows), 1, 1, 1)).astype(np.float32))
    white = torch.from_numpy(rng.uniform(0.92, 1.08, (len(rows), 3, 1, 1)).astype(np.float32))
    speckle = torch.from_numpy(rng.standard_normal(rgb.shape, np.float32)) * float(rng.uniform(0, 0.06))
    return (rgb * exposure * white + speckle).clamp(0, 1) * 2 - 1, target


def loss(guess: Tensor, target: Tensor) -> Tensor:
    """L1 and L2 plus L1 of horizontal and vertical steps, which keeps outlines; guess has three alike channels.

    L1 alone settles on the commonest temperature wherever colour leaves any doubt.
    """
    error = guess - target
    return (
        error.abs().mean()
        + 5 * error.square().mean()
        + error.diff(dim=-1).abs().mean()
        + error.diff(dim=-2).abs().mean()
    )


def score(g: SrgbTir, frames: list[Frame], *, seed: int) -> dict[str, float]:
    """Mean and root mean square grey difference to the rule, both for the best constant grey too, and the mean
    correlation with the rule within a frame.

    `seed` is that of the first frame, as the rule draws each object's departure from it.
    """
    truths = [infrared(frame, seed + number).astype(np.float32) for number, frame in enumerate(frames)]
    guesses = [grey(g, frame.rgb) for frame in frames]
    every = np.concatenate([truth.ravel() for truth in truths])
    pairs = list(zip(guesses, truths, strict=True))
    return {
        "grey_error": float(np.mean([np.abs(guess - truth).mean() for guess, truth in pairs])),
        "constant_grey_error": float(np.abs(every - np.median(every)).mean()),
        "rms": float(np.sqrt(np.mean([np.square(guess - truth).mean() for guess, truth in pairs]))),
        "constant_rms": float(every.std()),
        "correlation": float(np.mean([np.corrcoef(guess.ravel(), truth.ravel())[0, 1] for guess, truth in pairs])),
        "frames": len(frames),
    }


def grey(g: SrgbTir, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(h, w) grey 0 to 255 of an rgb image (h, w, 3) in the one style that training used."""
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    return np.asarray((g.translate(pixels, g.style(STYLE_SEED)).mean(1)[0] + 1) * 127.5, np.float32)


def save(g: SrgbTir, folder: Path) -> None:
    """weights.safetensors in fp16 with the two domains' keys, and config.json with the sizes under "gen"."""
    folder.mkdir(parents=True, exist_ok=True)
    state = g.state_dict().items()
    named = {("b." if k.startswith("enc_content.") else "a.") + k: v.half().contiguous() for k, v in state}
    save_file(named, folder / "weights.safetensors")
    (folder / "weights.safetensors").chmod(0o644)
    sizes = {k: v for k, v in asdict(g.config).items() if k != "channels"}
    config = {"gen": {**sizes, "activ": "relu", "pad_type": "reflect"}, "style_seed": STYLE_SEED}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng([args.seed, 4])
    choosing = held_out_frames(held_out_library(args.textures), first=CHOOSING_SEEDS, count=16, honest=True)
    g = SrgbTir(SMALL)
    style = g.style(STYLE_SEED)
    mean = copy.deepcopy(g).eval()
    optimizer = torch.optim.AdamW(g.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, args.steps, pct_start=0.06)
    best, started = float("inf"), time.monotonic()
    with rendering(args.textures, "infrared", seed=args.seed, frames=args.frames, workers=args.workers) as chunks:
        plan = picks(args.seed + 1, len(chunks), steps=args.steps, batch=BATCH)
        for step, (number, rows) in enumerate(plan, 1):
            rgb, target = augmented(rng, chunks[number].result(), rows)
            value = loss(g.decode(g.encode_content(rgb), style), target)
            optimizer.zero_grad()
            torch.autograd.backward(value)
            nn.utils.clip_grad_norm_(g.parameters(), 5)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for slow, fast in zip(mean.parameters(), g.parameters(), strict=True):
                    slow.lerp_(fast, 1 - min(0.98, step / (step + 10)))
            if step % args.every and step < args.steps:
                continue
            result = score(mean, choosing, seed=CHOOSING_SEEDS)
            line = {
                "step": step,
                "loss": round(value.item(), 4),
                **{name: round(number, 3) for name, number in result.items()},
            }
            print(json.dumps({**line, "minutes": round((time.monotonic() - started) / 60, 1)}), flush=True)
            if result["grey_error"] < best:
                best = result["grey_error"]
                save(mean, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--textures", type=Path, default=Path("build/synthetic"), help="packages, images and renders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="rendering processes")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
