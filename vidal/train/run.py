"""`train`: one training run, from a recipe and datasets to a folder of checkpoints."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vidal.dataset.lock import Lock
from vidal.dataset.removals import Removals
from vidal.dataset.removals import load as load_removals
from vidal.errors import ModelError, OutputError
from vidal.train import float8, material
from vidal.train.assemble import build_encoder
from vidal.train.checkpoint import Checkpoint, Checkpoints
from vidal.train.checkpoint_writer import CheckpointWriter
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan, modalities_of
from vidal.train.data.plan_texts import texts_of_plan
from vidal.train.distributed import World, barrier, from_all, from_main, position, world
from vidal.train.evaluate.held_out import HeldOut
from vidal.train.flops import peak_flops, step_flops
from vidal.train.full_state import full_state
from vidal.train.health import Health
from vidal.train.logs import RunLog, progress_bar
from vidal.train.loop import StepResult, Trainer
from vidal.train.material import Material
from vidal.train.optim import Optimisation
from vidal.train.parallel import as_written, matmul_precision, prepared
from vidal.train.preprocessing import transforms_of
from vidal.train.recipe import TrainRecipe
from vidal.train.run_folder import RunFolder, RunInfo
from vidal.train.teachers import Teachers
from vidal.train.texts import Texts
from vidal.train.towers.encoder import Encoder

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True, kw_only=True)
class TrainResult:
    """The outcome of a call of `train`."""

    out: str
    steps: int
    """Completed steps, those before a resume included."""
    resumed_at: int
    """Steps that were completed before this call."""
    loss: float | None = None
    """Loss of the last step; None if there was nothing left to do."""
    broken: int = 0
    broken_clips: list[str] = field(default_factory=list)
    """Ids of the samples that could not be read, once per occurrence."""
    skipped: int = 0
    """Samples in damaged shards."""
    held_out: int = 0
    was_interrupted: bool = False

    def count(self, step: StepResult) -> None:
        """Add a completed step."""
        self.steps, self.loss = step.step + 1, step.loss
        self.broken += len(step.broken)
        self.broken_clips += [broken.clip_id for broken in step.broken]

    def lines(self) -> Iterator[str]:
        line = f"{self.out}: {self.steps} steps"
        line += f" (resumed at {self.resumed_at})" if self.resumed_at else ""
        line += f", loss {self.loss:.4f}" if self.loss is not None else ", nothing left to do"
        line += f", {self.held_out} samples held out" if self.held_out else ""
        line += f", {self.skipped} in damaged shards skipped" if self.skipped else ""
        line += f", {self.broken} broken samples ({', '.join(self.broken_clips[:3])} …)" if self.broken else ""
        yield line

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def train(
    recipe: TrainRecipe, data: Sequence[str], out: str, console: Console, *, where: str | None = None,
    resume: bool = False, skip_damaged: bool = False, removals: Path | None = None, quiet: bool = False,
    device: str = "auto",
) -> TrainResult:  # fmt: skip
    """Run or resume a training run in the folder or at the address ``out``, on this rank.

    ``data`` are paths or addresses of datasets, ``where`` filters their manifests, ``device`` is ``auto``, ``cpu`` or
    ``cuda``. Raises `VidalError`; checkpoints that were complete stay so.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = RunFolder(out)
    with world(device) as here, matmul_precision(recipe.precision):
        float8.check(recipe, here.device)
        data_of_run = material.gather(
            data, list(recipe.loss_weights()), recipe.text.views, where=where, heldout=recipe.data.heldout,
            skip_damaged=skip_damaged, cache_bytes=recipe.data.cache_bytes,
            removals=load_removals(removals) if removals else Removals(),
        )  # fmt: skip
        teachers = Teachers.load(recipe.distil, recipe, data_of_run) if recipe.distil is not None else None
        encoder = build_encoder(recipe)
        info = RunInfo(
            recipe=recipe.model_dump(mode="json"), where=where, data=data_of_run.identity(), encoder=encoder.describe(),
            teachers=teachers.identity() if teachers is not None else [],
        )  # fmt: skip
        if here.is_main:
            folder.claim(info, resume=resume)
            folder.write_split(data_of_run.split())
            folder.path.mkdir(parents=True, exist_ok=True)
        with Lock(folder.storage) if here.is_main else nullcontext() as lock:
            # No rank looks for checkpoints, or writes a text, before the folder is known to be this run's.
            barrier()
            device_encoder = encoder.to(here.device)
            return _Run(recipe, folder, data_of_run, device_encoder, here, console, lock, teachers, quiet=quiet).go()


def newest_of_all_ranks(checkpoints: Checkpoints) -> Checkpoint | None:
    """Return the newest undamaged checkpoint that rank 0 sees, on every rank; None if it sees none.

    Raises `OutputError` on all ranks if one of them has no such checkpoint: it would train on from other weights.
    """
    rank, _ = position()
    found = checkpoints.latest() if rank == 0 else None
    step = from_main(found.step if found is not None else None)
    if step is not None and rank > 0:
        found = checkpoints.named(str(step))
    without = [other for other, has in enumerate(from_all([found is not None or step is None])) if not has]
    if without:
        raise OutputError(
            f"{checkpoints.folder}: rank {without[0]} does not see the checkpoint of {step} steps that rank 0 resumes "
            "from; give all machines one folder, on a shared disk or in a store"
        )
    return found


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self, recipe: TrainRecipe, folder: RunFolder, data: Material, encoder: Encoder, here: World,
        console: Console, lock: Lock | None, teachers: Teachers | None, *, quiet: bool,
    ) -> None:  # fmt: skip
        self.recipe, self.folder, self.data, self.encoder, self.here = recipe, folder, data, encoder, here
        self.console, self.quiet, self.teachers = console, quiet, teachers
        weights = tuple(recipe.data.weights) if recipe.data.weights else None
        self.plan = SamplePlan(
            [SidesPlan(sides=s, sizes=tuple(map(len, data.index[s])), weights=weights) for s in recipe.loss_weights()],
            batch_size=recipe.batch_size, seed=recipe.seed, epochs=recipe.epochs, steps=recipe.steps, ranks=here.size,
            shares=recipe.step_shares(), drop_last=recipe.data.drop_last,
        )  # fmt: skip
        kept = recipe.checkpoints
        self.checkpoints = Checkpoints(folder.address, kept.keep_last, kept.keep_every, lock, work=folder.path)
        # The towers of another run may change or go, so a run that starts from them stores all of its weights.
        self.bases = encoder.base_digests() if recipe.init_from is None else {}
        latest = newest_of_all_ranks(self.checkpoints)
        self.start = latest.step if latest is not None else 0
        if latest is not None:
            try:
                encoder.load_trainable_state(latest.model(), latest.address, latest.bases())
            except ModelError as error:
                raise OutputError(f"{latest.address}: does not match the towers of the recipe ({error})") from None
        # Before the optimiser, whose state has the layout of the parameters; after loading, which takes full tensors.
        self.towers = prepared(encoder, recipe, here, stores_bases=not self.bases)
        self.optimisation = Optimisation(encoder, recipe.optimiser, self.plan.steps)
        if latest is not None:
            self.optimisation.load_state(latest.optimiser())

    def go(self) -> TrainResult:
        recipe, here = self.recipe, self.here
        result = TrainResult(
            out=self.folder.address, steps=self.start, resumed_at=self.start, skipped=self.data.skipped,
            held_out=self.data.held,
        )  # fmt: skip
        if self.start >= self.plan.steps:
            # A finished run: the same command again is no error.
            return result
        held_out = HeldOut(recipe, recipe.eval, self.folder, self.data) if recipe.eval is not None else None
        # Before the run's own progress bar. Ctrl-C then ends it at once: what it has written is kept.
        texts = self._texts(held_out.clips.texts() if held_out is not None else ())
        with _interrupts() as interrupted, self._log() as log, self._writer(log) as writer:
            trainer = Trainer(
                recipe, self.encoder, self.towers, self.optimisation, texts, here, interrupted, self.teachers
            )
            health = Health(recipe, writer)
            is_due, step = False, None
            loader = Loader(
                self.data.samples, self.data.index, self.plan, transforms_of(recipe.transforms, self.encoder),
                recipe.text.views, seed=recipe.seed, rank=here.rank, ranks=here.size, workers=recipe.data.workers,
                start_step=self.start, device=here.device, tokenize=texts.tokenize, stall_s=recipe.data.stall_s,
                stop=interrupted,
            )  # fmt: skip
            for step in trainer.steps(iter(loader)):
                result.count(step)
                if log is not None:
                    self._log_step(log, step)
                is_last = result.steps == self.plan.steps
                health.check(step, is_last=is_last)
                result.was_interrupted = step.was_interrupted
                is_due |= is_last or result.was_interrupted or result.steps % recipe.checkpoints.every_steps == 0
                # A checkpoint waits for a step with a finite loss, which shows that its weights are usable.
                best = None
                if held_out is not None and step.is_finite and (is_last or result.steps % held_out.every_steps == 0):
                    best = self._evaluate(held_out, texts, result.steps, log, writer)
                if (is_due or best is not None) and step.is_finite:
                    self._save(result.steps, writer, best)
                    is_due = False
                if result.was_interrupted:
                    return result
            if result.steps < self.plan.steps:
                # Interrupted while it waited for samples.
                result.was_interrupted = True
                if step is not None and step.is_finite:
                    self._save(result.steps, writer)
        return result

    def _evaluate(
        self, held_out: HeldOut, texts: Texts, steps: int, log: RunLog | None, writer: CheckpointWriter | None
    ) -> float | None:
        """The score of the weights that a checkpoint would be evaluated with, if it is the best of the run."""
        encode = self.encoder.encode_texts if self.encoder.trains_text else texts.encode
        with self.optimisation.averaged(), as_written(self.recipe, self.here):
            score = held_out.score(self.encoder, encode, self.here.device)
        best = from_main(writer.settled().best() if writer is not None else None)
        is_best = best is None or score.mean_recall > best[1] or steps == best[0]
        if log is not None:
            log.evaluation({
                "step": steps - 1, "clips": score.clips, "mean_R@1": score.mean_recall, "is_best": is_best,
                "R@1": score.recall,
            })  # fmt: skip
        return score.mean_recall if is_best else None

    def _writer(self, log: RunLog | None) -> AbstractContextManager[CheckpointWriter | None]:
        return CheckpointWriter(self.checkpoints, log, self.bases) if log is not None else nullcontext()

    def _save(self, steps: int, writer: CheckpointWriter | None, best: float | None = None) -> None:
        if writer is not None:
            # Before the copies are made: those of two checkpoints would be in memory.
            writer.settled()
        # On every rank, though only the main one writes: gathering sharded parameters is a collective.
        model = full_state(self.encoder.trainable_state(with_bases=not self.bases))
        optimiser = self.optimisation.state()
        if writer is not None:
            writer.save(steps, model, optimiser, best)

    def _texts(self, evaluated: Iterable[str]) -> Texts:
        recipe = self.recipe
        texts = Texts(self.encoder.text_tower(), self.here, recipe.precision)
        if (
            recipe.text.cache is False
            or self.encoder.trains_text
            or not any("text" in modalities_of(sides) for sides in self.data.index)
        ):
            return texts
        folder = self.folder.path / "text_cache" if recipe.text.cache is True else Path(recipe.text.cache)
        needed = texts_of_plan(
            self.data.samples, self.data.index, self.plan, recipe.text.views, recipe.seed, self.start
        )
        started = time.perf_counter()
        with progress_bar(self.console, "texts", quiet=self.quiet or not self.here.is_main) as show:
            encoded = texts.cache(folder.expanduser(), itertools.chain(needed, evaluated), show)
        if encoded and self.here.is_main and not self.quiet:
            line = f"text cache: {encoded:,} texts encoded in {time.perf_counter() - started:.1f} s"
            self.console.print(line, soft_wrap=True, highlight=False)
        return texts

    def _log(self) -> AbstractContextManager[RunLog | None]:
        if not self.here.is_main:
            return nullcontext()
        settings = self.recipe.log
        log = RunLog(
            self.folder.path, self.console, total_steps=self.plan.steps, start_step=self.start,
            every_steps=settings.every_steps, tensorboard=settings.tensorboard, wandb=settings.wandb, quiet=self.quiet,
            recipe=self.recipe.model_dump(mode="json"), storage=self.folder.storage,
        )  # fmt: skip
        # Once: the log of a resumed run has them.
        for modality in self.recipe.towers if self.start == 0 else ():
            if drawn := self.encoder.tower(modality).drawn:
                log.event("drawn", {"modality": modality, "tensors": list(drawn)})
        return log

    def _log_step(self, log: RunLog, step: StepResult) -> None:
        flops = step_flops(self.recipe, self.encoder, step.sides) * step.samples / step.wall_s / self.here.size
        peak = peak_flops(self.here.device, self.recipe.precision)
        losses, scales = ({"-".join(pair): x for pair, x in of.items()} for of in (step.losses, step.scales))
        of_pairs = {"scale": scales[step.name]} if len(scales) == 1 else {"losses": losses, "scales": scales}
        log.step({
            "step": step.step, "pair": step.name, "epoch": step.epoch, "loss": step.loss, "lr": step.lr,
            "grad_norm": step.grad_norm, **of_pairs, "samples": step.samples,
            "duplicate_negatives": step.duplicate_negatives,
            "samples_per_s": step.samples / step.wall_s, "data_share": step.data_s / step.wall_s,
            "flops": flops, "mfu": flops / peak if peak else None, "is_finite": step.is_finite,
        })  # fmt: skip
        for broken in step.broken:
            log.event(
                "broken", {"step": step.step, "clip_id": broken.clip_id, "data": broken.dataset, "why": broken.why}
            )
        if not step.is_finite:
            log.event("not_finite", {"step": step.step, "pair": step.name})


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; the run then ends after the current step, with a checkpoint."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # Python lets only the main thread set handlers.
        yield interrupted
        return
    before = {number: signal.signal(number, lambda *_: interrupted.set()) for number in _SIGNALS}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
