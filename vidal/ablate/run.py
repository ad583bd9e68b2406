"""`ablate`: trains every arm with every seed, and compares them on the same held-out clips.

OUT/untrained.csv             clip_id: the clips that no arm trains on
OUT/ARM/arm.json              what the arm trains with and is evaluated on; a changed arm is refused
OUT/ARM/seed-0/               its training run
OUT/ARM/seed-0.json           its hits, once the run is finished and evaluated
OUT/ablation.svg, chosen.yaml the plot, and the recipe of the chosen arm

A run whose hits are there is not trained again, and one that was interrupted is resumed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vidal.ablate.arms import Design, Training
from vidal.ablate.plot import plot
from vidal.ablate.queries import Queries, hold_out
from vidal.ablate.result import Ablation, Scored, compare
from vidal.ablate.score import score
from vidal.dataset.removals import load as load_removals
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, SourceError, UserError
from vidal.settings import differences
from vidal.train import material
from vidal.train.distributed import world
from vidal.train.material import Material
from vidal.train.recipe import TrainRecipe, completed
from vidal.train.run import train

# What changes no result, and the seed, of which an arm has several.
_OF_NO_ARM = {"name", "seed", "checkpoints", "log", "kept_chunks"}


def ablate(design: Design, out: Path, console: Console, *, seeds: int = 3, device: str = "auto") -> Ablation:
    """Train and evaluate every arm with ``seeds`` seeds in the folder ``out``, or what of it is not done yet.

    Raises `UserError` under torchrun, `OutputError` where ``out`` has other arms of these names, `SourceError` for an
    arm with fewer clips than a batch, and KeyboardInterrupt once an interrupted run has written its checkpoint.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("an ablation trains small runs one by one, in one process; start it without torchrun")
    addresses = list(dict.fromkeys(address for training in design.trainings.values() for address in training.data))
    queries = hold_out(addresses, design.evaluate, design.base.text.views, design.base.data.heldout)
    storage = Storage(str(out.expanduser()))
    folder = storage.local_path()
    folder.mkdir(parents=True, exist_ok=True)
    untrained = folder / "untrained.csv"
    with untrained.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["clip_id"], *([clip] for clip in queries.untrained)])
    clips: dict[str, int] = {}
    for name, training in design.trainings.items():
        data = _material(name, training, untrained)
        # A clip that several kinds of step train on is one.
        clips[name] = sum(
            len(np.unique(np.concatenate(of_dataset))) for of_dataset in zip(*data.index.values(), strict=True)
        )
        _claim(folder / name / "arm.json", _identity(training, data, queries))
    scored: dict[str, list[Scored]] = {name: [] for name in design.trainings}
    # Seed by seed, so that what is finished when a run is interrupted compares all arms.
    for seed in range(design.base.seed, design.base.seed + seeds):
        for name, training in design.trainings.items():
            kept = folder / name / f"seed-{seed}.json"
            if not kept.exists():
                run = folder / name / f"seed-{seed}"
                one = _trained(_settings(training.recipe, folder, seed), training, run, untrained, queries, device)
                storage.write(str(kept.relative_to(folder)), one.model_dump_json().encode())
                console.print(f"{name}, seed {seed}: trained and evaluated", highlight=False, soft_wrap=True)
            scored[name].append(Scored.model_validate_json(kept.read_bytes()))
    ablation = compare(design, scored, clips, queries)
    storage.write("ablation.svg", plot(ablation).encode())
    storage.write("chosen.yaml", ablation.chosen_recipe(design).encode())
    return ablation


def _settings(recipe: TrainRecipe, folder: Path, seed: int) -> TrainRecipe:
    """The recipe of one run: every batch is full, and texts are encoded once for all runs."""
    # What is held out is on the list of removals, as clusters may differ between the datasets of arms.
    data = recipe.data.model_copy(update={"heldout": 0.0, "drop_last": True})
    cache = str(folder / "text_cache") if recipe.text.cache is True else recipe.text.cache
    text = recipe.text.model_copy(update={"cache": cache})
    return recipe.model_copy(update={"seed": seed, "data": data, "text": text, "eval": None})


def _material(name: str, training: Training, untrained: Path) -> Material:
    """What an arm trains on, opened before any arm is trained: what is wrong with the last is known at the start."""
    recipe = training.recipe
    data = material.gather(
        training.data, list(recipe.loss_weights()), recipe.text.views, where=training.where, heldout=0.0,
        skip_damaged=False, cache_bytes=recipe.data.cache_bytes, removals=load_removals(untrained),
    )  # fmt: skip
    for parts in data.index.values():
        if (found := sum(map(len, parts))) < recipe.batch_size:
            raise SourceError(f"arm {name}: {found} clips do not fill a batch of {recipe.batch_size}; lower batch_size")
    return data


def _identity(training: Training, data: Material, queries: Queries) -> dict[str, Any]:
    held_out = {queries.clips.samples.clip_id(n): texts for n, texts in queries.clips.captions.items()}
    digest = hashlib.sha256(json.dumps([held_out, queries.untrained]).encode()).hexdigest()[:16]
    recipe = training.recipe.model_dump(mode="json", exclude=_OF_NO_ARM)
    # A dataset may have moved since, but its contents must be the same.
    datasets = {str(i): {k: v for k, v in one.items() if k != "address"} for i, one in enumerate(data.identity())}
    return {"recipe": recipe, "where": training.where, "data": datasets, "held_out": digest}


def _claim(path: Path, identity: dict[str, Any]) -> None:
    if path.exists():
        written = json.loads(path.read_bytes())
        if (recipe := completed(written["recipe"])) is not None:
            written["recipe"] = recipe.model_dump(mode="json", exclude=_OF_NO_ARM)
        changed = differences(written, identity)
        if changed:
            why = "; ".join(changed[:3])
            raise OutputError(
                f"{path.parent}: holds another arm of this name: {why}; delete it, or choose another --out"
            )
        return
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(identity, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _trained(
    recipe: TrainRecipe, training: Training, run: Path, untrained: Path, queries: Queries, device: str
) -> Scored:
    started, cpu = time.perf_counter(), _cpu_s()
    result = train(
        recipe, training.data, str(run), Console(quiet=True), where=training.where, resume=True, removals=untrained,
        quiet=True, device=device,
    )  # fmt: skip
    if result.was_interrupted:
        raise KeyboardInterrupt
    # What the steps before a resume cost is not known.
    is_whole = not result.resumed_at
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
    with world(device) as here, torch.inference_mode():
        return Scored(
            directions=score(run, recipe, queries, here), cpu_s=cpu_s if is_whole else None,
            gpu_s=wall_s if is_whole and here.is_gpu else None,
        )  # fmt: skip


def _cpu_s() -> float:
    """Processor time of this process and of its ended children, the loader's workers."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
