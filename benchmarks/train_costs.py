"""`benchmarks/train.py --costs`: what a step costs beside its arithmetic, counted on a CPU for what a GPU would see.

Bytes that are copied to the device for a clip with a text of 77 tokens, by modality; times in a step that the CPU would
wait for a GPU; casts in a layer under autocast; bytes that a layer with attention across frames copies, or that its
norms and sums read out of order, for each value that goes through it; and how long the training process tokenises, with
the embeddings cached and without. Trainer, loader and towers are those of `vidal train`.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from loader import write_set
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from train_gpu import text_folder

import vidal
from vidal import modality as modalities
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.data.loader import Batch, Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.rows import layout
from vidal.train.distributed import World
from vidal.train.loop import StepResult, Trainer
from vidal.train.optim import Optimisation
from vidal.train.parallel import prepared
from vidal.train.preprocessing import transforms_of
from vidal.train.texts import Texts
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import LoraSettings, Tune, VisionSettings
from vidal.train.towers.text import TextTower
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower

PAIR = ("text", "depth")
_LAYERS = ("video", "depth", "infrared", "audio")
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
_CAPTIONS = 1024
_TOKENS = 77
_STEPS = 3
_SIZES = {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}


class Counted(TorchDispatchMode):
    """Counts operations by name, and as ``waits`` those that a GPU's host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.transposed_bytes = 0
        """Of whole tensors that are copied, or that a norm or a sum reads in another order than they lie in."""
        self.is_counting = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # The size of a selection by a mask is known on the device alone.
        selects = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if self.is_counting:
            self.count.update([name, *(["waits"] if name in _WAITS or selects else [])])
            if name in ("clone", "copy_"):
                self.transposed_bytes += result.nbytes
            if name in ("add", "native_layer_norm"):
                strided = [x for x in args if isinstance(x, Tensor) and not x.is_contiguous()]
                self.transposed_bytes += sum(x.nbytes for x in strided)
        return result


@contextmanager
def counted_waits(optimisation: Optimisation) -> Iterator[Counted]:
    """Within the block, what is counted as ``waits`` are those of training steps."""
    counted, step, tolist = Counted(), optimisation.step, Tensor.tolist

    def uncounted_step() -> None:
        # AdamW reads its counter of steps, which is on the CPU where the optimiser is not fused.
        counted.is_counting = False
        step()
        counted.is_counting = True

    def counted_tolist(tensor: Tensor) -> Any:
        counted.count["waits"] += counted.is_counting
        return tolist(tensor)

    with patch.object(optimisation, "step", uncounted_step), patch.object(Tensor, "tolist", counted_tolist), counted:
        yield counted


def bytes_to_the_device() -> dict[str, dict[str, float]]:
    """By modality, the bytes of a clip, with a text, as workers prepare it, and if they did so in float32."""
    found = {}
    for layer in _LAYERS:
        transform = modalities.get(layer).transform()
        size = layout(("text", layer), _CAPTIONS, {layer: transform}, _TOKENS).size / _CAPTIONS
        values = torch.zeros(1, *transform.prepared_shape, dtype=getattr(torch, transform.prepared_dtype))
        finished = transform.finish(values, None)
        found[layer] = {"now": size, "in float32": size - values.nbytes + finished.nbytes}
    return found


def casts_of_a_layer(mode: Tune, *, stores_bases: bool = False) -> float:
    """Casts in a layer's forward pass under autocast, of a tower as a bf16 run prepares it."""
    counts = []
    for layers in (1, 3):
        tower = VisionTower(VisionSettings(**{**_SIZES, "layers": layers}, projection_dim=16))
        tune(tower, mode, LoraSettings(rank=2))
        recipe = _recipe("none", {"sizes": _SIZES, "tune": mode})
        prepared(Encoder({"depth": tower}, None), recipe, World(), stores_bases=stores_bases)
        with Counted() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
            tower(torch.randn(2, 3, 32, 32))
        counts.append(counted.count["_to_copy"])
    return (counts[1] - counts[0]) / 2


def copies_across_frames() -> float:
    """`Counted.transposed_bytes` of a layer with attention across frames, for each value of its input."""
    copied = []
    for layers in (1, 3):
        tower = VisionTower(VisionSettings(**{**_SIZES, "layers": layers}, projection_dim=16, frames=8, temporal=True))
        with Counted() as counted, torch.autocast("cpu", dtype=torch.bfloat16):
            tower(torch.randn(2, 3, 8, 32, 32))
        copied.append(counted.transposed_bytes)
    return (copied[1] - copied[0]) / 2 / (2 * 8 * 17 * _SIZES["hidden_size"])


def _recipe(text: str, tower: Mapping[str, Any], **more: Any) -> recipes.TrainRecipe:
    return recipes.check({
        "text": {"model": text}, "towers": {"depth": tower}, "batch_size": 8, "steps": _STEPS, "precision": "bf16",
        **more,
    }, "costs.yaml")  # fmt: skip


def steps(text: Path, folder: Path, *, is_cached: bool) -> tuple[int, float]:
    """The waits of a step, and the seconds that this process tokenised in it; a worker prepares the batches."""
    recipe = _recipe(str(text), {"sizes": _SIZES, "patch_dropout": 0.5}, chunk_size=3)
    samples, encoder, here = vidal.open(str(folder)), build_encoder(recipe), World()
    texts, views = Texts(encoder.text_tower(), here, recipe.precision), recipe.text.views
    if is_cached:
        texts.cache(folder / "cache", ["", *(one for row in samples.rows(views.columns) for one in views.every(row))])
    plan = SamplePlan([SidesPlan(sides=PAIR, sizes=(len(samples),))], batch_size=8, seed=0, steps=_STEPS)
    batches: list[Batch] = list(Loader(
        [samples], {PAIR: [np.arange(len(samples))]}, plan, transforms_of(recipe.transforms, encoder), views, seed=0,
        workers=1, tokenize=texts.tokenize,
    ))  # fmt: skip
    optimisation, tokenised_s, tokenize = Optimisation(encoder, recipe.optimiser, _STEPS), 0.0, TextTower.tokenize

    def timed(tower: TextTower, of: Sequence[str]) -> tuple[Tensor, Tensor]:
        nonlocal tokenised_s
        started = time.perf_counter()
        result = tokenize(tower, of)
        tokenised_s += time.perf_counter() - started
        return result

    towers = prepared(encoder, recipe, here, stores_bases=True)
    trainer = Trainer(recipe, encoder, towers, optimisation, texts, here, Event())
    with patch.object(TextTower, "tokenize", timed), counted_waits(optimisation) as counted:
        done: list[StepResult] = list(trainer.steps(iter(batches)))
    return counted.count["waits"] // len(done), tokenised_s / len(done)


def costs() -> dict[str, Any]:
    """The table."""
    with tempfile.TemporaryDirectory() as scratch:
        text = text_folder(Path(scratch, "text"), tiny=True)
        write_set(Path(scratch, "set"), 16, 16, 0, 1, layers=["depth"])
        (cached_waits, cached_s), (waits, tokenised_s) = (
            steps(text, Path(scratch, "set"), is_cached=is_cached) for is_cached in (True, False)
        )
        tower, started = TextTower.load(text), time.perf_counter()
        tower.tokenize([f"a calm harbour at dawn, number {number}" for number in range(_CAPTIONS)])
        here_s = time.perf_counter() - started
    return {
        "bytes to the device, a clip": bytes_to_the_device(),
        "waits for the device, a step": {"texts cached": cached_waits, "text tower in the step": waits},
        "casts, a layer": {"full": casts_of_a_layer("full"), "lora": casts_of_a_layer("lora")},
        "bytes transposed, a value and layer with attention across frames": copies_across_frames(),
        "tokenising in the training process, s a step": {
            "texts cached": cached_s, "text tower in the step": tokenised_s, "1,024 captions, if it did": here_s,
        },
    }  # fmt: skip
