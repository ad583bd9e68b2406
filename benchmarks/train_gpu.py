"""`benchmarks/train.py --gpu`: the trainer itself on a GPU, with and without each switch.

ViT-L/14 from random weights, 8 frames of 224 x 224, batch 1024, half of the patches dropped, bf16, against the texts of
a frozen CLIP ViT-L text tower. `Trainer`, `Loader`, `Texts` and the recipe are those of `vidal train`; what is
synthetic is what the clips show, and, unless a row says ``tars``, that every step has the batch of the first.

The ceiling is what 790 TFLOP/s, a matrix product's rate on an H200, allow. A forward pass counts 1, its backward pass
2 (LoRA: 1, as frozen weights have no gradients), and GradCache one more forward, although the trainer saves that of the
chunks it keeps: 309 clips/s full, 412 LoRA. MFU counts useful FLOP only: neither masked patches nor recomputation.
``waits`` is the share of the time in which the trainer waits for a batch, ``start_s`` the first step, in which layers
are compiled.

``open_clip`` is its tower on the same frames as images, under amp and compiled, in the two passes of its
``--accum-freq``; a clip is the mean of its images. Its patches are dropped anew in the second pass, as it does.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from figures import log
from loader import write_set
from torch import nn

import vidal
from vidal.train.assemble import build_encoder
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.distributed import World
from vidal.train.flops import forward_flops, training_flops
from vidal.train.loop import Trainer
from vidal.train.optim import Optimisation
from vidal.train.parallel import matmul_precision, prepared
from vidal.train.preprocessing import transforms_of
from vidal.train.recipe import TrainRecipe
from vidal.train.texts import Texts
from vidal.train.towers.settings import VisionSettings

H200_FLOPS = 790e12
PAIR = ("text", "video")
_PASSES = {"full": 3, "lora": 2}
_LARGE = {"hidden_size": 1024, "layers": 24, "heads": 16, "patch_size": 14, "image_size": 224}
_SMALL = {"hidden_size": 32, "layers": 2, "heads": 2, "patch_size": 16, "image_size": 64}

ROWS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, 2 chunks kept": {"kept_chunks": 2},
    "full, float8": {"float8": True},
    "full, not compiled": {"compile": False, "chunk_size": 32},
    "full, 128 tokens": {"patch_dropout": 0.5035},
    "full, 128 tokens, 2 chunks kept": {"patch_dropout": 0.5035, "kept_chunks": 2},
    "full, tars": {"is_from_tars": True},
    "full, text tower in the step": {"text_cache": False},
    "lora": {"tune": "lora"},
    "lora, 3 chunks kept": {"tune": "lora", "kept_chunks": 3},
    "lora, not compiled": {"tune": "lora", "compile": False, "chunk_size": 32},
    "lora, frozen in float32": {"tune": "lora", "stores_bases": True},
    "lora, 128 tokens": {"tune": "lora", "patch_dropout": 0.5035},
    "open_clip, full": {"is_open_clip": True},
}
"""Each row: what it sets otherwise than ``full``."""
# A class token and 128 patches are 129 tokens, of which tiles of 64 or 128 hold the last one alone.


def recipe_of(
    text: Path, *, tiny: bool, batch: int, workers: int, tune: str = "full", compile: bool = True, chunk_size: int = 64,
    kept_chunks: int = 1, patch_dropout: float = 0.5, text_cache: bool = True, float8: bool = False,
) -> TrainRecipe:  # fmt: skip
    return TrainRecipe.model_validate({
        "text": {"model": str(text), "cache": text_cache, "views": "caption"},
        "towers": {"video": {
            "sizes": _SMALL if tiny else _LARGE, "frames": 8, "patch_dropout": patch_dropout, "tune": tune,
            "transform": {"frames": 8, "size": 64 if tiny else 224},
        }},
        "batch_size": batch, "chunk_size": min(chunk_size, 3) if tiny else chunk_size, "kept_chunks": kept_chunks,
        "precision": "bf16", "float8": float8, "compile": compile and not tiny,
        "steps": 1000, "optimiser": {"lr": 1e-4}, "data": {"workers": workers},
    })  # fmt: skip


def text_folder(folder: Path, *, tiny: bool) -> Path:
    """A CLIP folder with random weights, of which only the text tower is read, and CLIP's vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPConfig, CLIPModel

    tokenizer, width = SimpleTokenizer(), 32 if tiny else 768
    text = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2 if tiny else 12,
            "num_attention_heads": width // 16 if tiny else 12, "vocab_size": len(tokenizer.encoder)}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
              "image_size": 32, "patch_size": 32}  # fmt: skip
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).save_pretrained(folder)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({names.get(t, t): n for t, n in tokenizer.encoder.items()}))
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
    return folder


def of_trainer(
    folder: Path, work: Path, device: torch.device, steps: int, *, tiny: bool, batch: int, workers: int,
    is_from_tars: bool = False, stores_bases: bool = False, **switches: Any,
) -> dict[str, Any]:  # fmt: skip
    """One row of the table."""
    recipe, here = recipe_of(work, tiny=tiny, batch=batch, workers=workers, **switches), World(device=device)
    torch.manual_seed(0)
    with torch.device(device):
        encoder = build_encoder(recipe)
    encoder.to(device)
    texts = Texts(encoder.text_tower(), here, recipe.precision)
    samples = vidal.open(str(folder))
    if recipe.text.cache:
        texts.cache(work / "cache", samples.column("caption").to_pylist())
    towers = prepared(encoder, recipe, here, stores_bases=stores_bases)
    optimisation = Optimisation(encoder, recipe.optimiser, 1000)
    plan = SamplePlan([SidesPlan(sides=PAIR, sizes=(len(samples),))], batch_size=batch, seed=0, steps=1000)
    stop = threading.Event()
    loader = Loader(
        [samples], {PAIR: [np.arange(len(samples))]}, plan, transforms_of(recipe.transforms, encoder),
        recipe.text.views, seed=0, workers=workers, device=device, tokenize=texts.tokenize, stop=stop,
    )  # fmt: skip
    batches = iter(loader)
    if not is_from_tars:
        first = next(batches)
        batches = (dataclasses.replace(first, step=step) for step in itertools.count())
    trainer = Trainer(recipe, encoder, towers, optimisation, texts, here, stop)
    with matmul_precision(recipe.precision):
        found = timed(trainer, batches, device, steps)
    vision = encoder.tower("video").settings
    return found | shares(found["clips_per_s"], vision, recipe.towers["video"].tune, recipe.chunk_size or batch, batch)


def timed(trainer: Trainer, batches: Iterator[Batch], device: torch.device, steps: int) -> dict[str, Any]:
    results = trainer.steps(batches)
    start_s = next(results).wall_s
    next(results)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    done = list(itertools.islice(results, steps))
    wall_s = sum(step.wall_s for step in done)
    return {
        "clips_per_s": sum(step.samples for step in done) / wall_s, "waits": sum(step.data_s for step in done) / wall_s,
        "start_s": start_s, "loss": done[-1].loss,
        "memory_GiB": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }  # fmt: skip


def ceiling(settings: VisionSettings, how: str, *, is_cached: bool) -> float:
    """Clips/s if the whole step ran at 790 TFLOP/s, in the facts' counting of passes."""
    return H200_FLOPS / forward_flops(settings, masked=True).total / (_PASSES[how] + is_cached)


def shares(clips_per_s: float, settings: VisionSettings, how: Any, chunk: int, batch: int) -> dict[str, float]:
    return {
        "share_of_ceiling": clips_per_s / ceiling(settings, how, is_cached=chunk < batch),
        "mfu_of_790": training_flops(settings, how) * clips_per_s / H200_FLOPS,
    }


def of_open_clip(device: torch.device, steps: int, *, tiny: bool, batch: int, chunk: int = 64) -> dict[str, Any]:
    """Its tower and loss, in the steps of its train_one_epoch with ``--accum-freq``."""
    from open_clip.loss import ClipLoss
    from open_clip.transformer import VisionTransformer

    size, frames, dim, chunk = (_SMALL, 8, 32, 3) if tiny else (_LARGE, 8, 768, chunk)
    side = size["image_size"]
    with torch.device(device):
        tower = VisionTransformer(
            image_size=side, patch_size=size["patch_size"], width=size["hidden_size"], layers=size["layers"],
            heads=size["heads"], mlp_ratio=4.0, output_dim=dim, patch_dropout=0.5,
        ).train()  # fmt: skip
        scale = nn.Parameter(torch.tensor(2.66))
    images = torch.randn(batch, frames, 3, side, side, device=device, dtype=torch.bfloat16)
    text, criterion = F.normalize(torch.randn(batch, dim, device=device), dim=-1), ClipLoss()
    adamw = torch.optim.AdamW([*tower.parameters(), scale], lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    # Block by block, as ours: its whole tower took more than two minutes to compile.
    for block in () if tiny else tower.transformer.resblocks:
        block.compile(dynamic=False)
    parts = [slice(first, min(first + chunk, batch)) for first in range(0, batch, chunk)]

    def encode(rows: slice) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            features = tower(images[rows].flatten(0, 1))
        return F.normalize(features.float().unflatten(0, (-1, frames)).mean(1), dim=-1)

    def step() -> float:
        adamw.zero_grad()
        with torch.no_grad():
            features = [encode(rows) for rows in parts]
        for number, rows in enumerate(parts):
            whole = torch.cat([*features[:number], encode(rows), *features[number + 1 :]])
            loss = criterion(whole, text, scale.exp())
            loss.backward()
        nn.utils.clip_grad_norm_([*tower.parameters(), scale], 1.0)
        adamw.step()
        return float(loss.detach())

    seconds = []
    for _ in range(2 + steps):
        started = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - started)
    vision = VisionSettings(**size, frames=frames, patch_dropout=0.5, projection_dim=dim)
    clips_per_s = batch * steps / sum(seconds[2:])
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        "clips_per_s": clips_per_s,
        "waits": 0.0,
        "start_s": seconds[0],
        "loss": loss,
        "memory_GiB": memory,
    } | shares(clips_per_s, vision, "full", chunk, batch)


def on_gpu(
    rows: list[str], device: torch.device, *, batch: int, workers: int, steps: int, tiny: bool
) -> dict[str, Any]:
    """The rows of the table; each starts anew."""
    batch, workers = (8, 1) if tiny else (batch, workers)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    table: dict[str, Any] = {"device": name, "torch": torch.__version__, "batch": batch, "workers": workers}
    with tempfile.TemporaryDirectory() as scratch:
        work = text_folder(Path(scratch, "text"), tiny=tiny)
        write_set(Path(scratch, "set"), batch, max(batch // 16, 4), 1000, workers, [PAIR[1]])
        for row in rows:
            switches = dict(ROWS[row])
            if switches.get("float8") and find_spec("torchao") is None:
                log(f"without {row}: pip install 'vidal[float8]'")
                continue
            torch.compiler.reset()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            if switches.pop("is_open_clip", False):
                table[row] = of_open_clip(device, steps, tiny=tiny, batch=batch)
            else:
                table[row] = of_trainer(
                    Path(scratch, "set"), work, device, steps, tiny=tiny, batch=batch, workers=workers, **switches
                )
            log(f"{row}: {table[row]}")
    return table
