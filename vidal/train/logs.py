"""`RunLog`: the metrics of a run, written to ``log.jsonl``, the terminal, and optionally TensorBoard and W&B."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from vidal.dataset.storage import Storage
from vidal.errors import RecipeError, VidalError, storage_errors

NAME = "log.jsonl"
WANDB = "wandb.json"
_PLAIN_EVERY_S = 10.0
"""Least time between two lines where there is no terminal to draw a bar on."""


class RunLog:
    """A context manager that logs steps and events.

    When a run is resumed, lines after its checkpoint are removed from the file, so that each step occurs once. Raises
    `RecipeError` if the package of W&B is asked for and not installed.
    """

    def __init__(
        self, folder: Path, console: Console, *, total_steps: int, start_step: int, every_steps: int,
        tensorboard: bool = False, wandb: str | None = None, quiet: bool = False,
        recipe: Mapping[str, Any] | None = None, storage: Storage | None = None,
    ) -> None:  # fmt: skip
        """``wandb`` is the project of W&B, in which a resumed run goes on; ``recipe`` is its configuration there.

        ``storage`` is the run's, where ``folder`` is only a place to write in: `publish` uploads the log to it.
        """
        self._path = folder / NAME
        self._open = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._folder, self._storage = folder, storage or Storage(str(folder))
        # First, because its package may be missing: nothing has been opened or truncated yet.
        self._wandb: Any = None
        if wandb:
            try:
                from wandb import init
            except ImportError:
                raise RecipeError(
                    "log.wandb: package wandb is not installed; run `pip install wandb`, or unset it"
                ) from None
            self._wandb = init(
                project=wandb, dir=str(folder), id=_wandb_id(self._storage), config=dict(recipe or {}),
                # Not "must": a run logged offline is not at W&B yet. A resume may change some settings.
                resume="allow", allow_val_change=True,
            )  # fmt: skip
            self._open.callback(self._wandb.finish)
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            # Hides what a killed run wrote after its checkpoint, just as it is removed from log.jsonl.
            writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step or None)
            self._writer = self._open.enter_context(writer)
        with storage_errors(str(self._path)):
            _truncate(self._storage, folder, start_step)
            # Line-buffered: a killed run leaves a line of every completed step.
            self._file: IO[str] = self._path.open("a", buffering=1, encoding="utf-8")
        self._console, self._quiet, self._every = console, quiet, every_steps
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = total_steps
        self._printed_s = 0.0
        if console.is_terminal and not quiet:
            progress = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"), BarColumn(), TextColumn("{task.description}"),
                TimeRemainingColumn(), console=console,
            )  # fmt: skip
            self._progress = self._open.enter_context(progress)
            self._task = self._progress.add_task("", total=total_steps, completed=start_step)

    def step(self, numbers: dict[str, Any]) -> None:
        """Log the metrics of one step: ``step``, ``pair``, ``loss``, ``lr`` and the rates.

        A step that trains several pairs has their ``losses`` and ``scales``, too.
        """
        self.event("step", numbers)
        losses = numbers.get("losses", {})
        each = " ".join(f"{pair} {loss:.4f}" for pair, loss in losses.items()) or numbers["pair"]
        line = (
            f"{each} loss {numbers['loss']:.4f} {numbers['samples_per_s']:.1f} samples/s "
            f"data {numbers['data_share']:.0%} lr {numbers['lr']:.2e}"
        ) + (f" MFU {numbers['mfu']:.1%}" if numbers.get("mfu") else "")
        done = numbers["step"] + 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, description=line)
        elif not self._quiet and (done == self._total or time.monotonic() - self._printed_s > _PLAIN_EVERY_S):
            self._printed_s = time.monotonic()
            self._console.print(f"step {done}/{self._total} {line}", soft_wrap=True, highlight=False)
        if numbers["step"] % self._every == 0 or done == self._total:
            scalars = {k: v for k, v in numbers.items() if isinstance(v, (int, float)) and k != "step"}
            # One curve per pair: the losses of different pairs differ in scale.
            for pair, loss in (losses or {numbers["pair"]: numbers["loss"]}).items():
                scalars[f"loss/{pair}"] = loss
            scalars |= {f"scale/{pair}": scale for pair, scale in numbers.get("scales", {}).items()}
            self._plot(numbers["step"], scalars)

    def evaluation(self, numbers: dict[str, Any]) -> None:
        """Log an evaluation: ``step``, ``clips``, ``mean_R@1``, ``is_best``, and ``R@1`` by direction."""
        self.event("eval", numbers)
        self._plot(numbers["step"], {f"eval/{name}": value for name, value in numbers["R@1"].items()})
        if not self._quiet:
            best = ", the best so far" if numbers["is_best"] else ""
            line = f"step {numbers['step'] + 1}/{self._total} R@1 {numbers['mean_R@1']:.1%} of {numbers['clips']} clips"
            self._console.print(line + best, soft_wrap=True, highlight=False)

    def _plot(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log to TensorBoard and W&B."""
        for name, value in scalars.items() if self._writer is not None else ():
            self._writer.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=step)

    def event(self, kind: str, values: dict[str, Any]) -> None:
        """Append a line to ``log.jsonl``; numbers that are not finite become null."""
        with storage_errors(str(self._path)):
            # Strict JSON, in which there is no NaN: Python alone could read a line with one.
            line = json.dumps({"event": kind, **_plain(values)}, allow_nan=False) + "\n"
            # Checkpoints are logged by the thread that writes them.
            with self._lock:
                self._file.write(line)

    def publish(self) -> None:
        """Upload ``log.jsonl`` and TensorBoard's files, where the run is in an object store."""
        if self._storage.is_local:
            return
        with self._lock:
            data = self._path.read_bytes()
        self._storage.write(NAME, data)
        if self._writer is not None:
            self._writer.flush()
        for file in (self._folder / "tensorboard").glob("*"):
            self._storage.write(f"tensorboard/{file.name}", file.read_bytes())

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        with self._open, storage_errors(str(self._path)):
            self._file.close()
        # Not in place of the error that ends the run.
        with contextlib.suppress(*([VidalError] if error is not None else [])):
            self.publish()


@contextlib.contextmanager
def progress_bar(console: Console, what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of the number done and their total; on a terminal it shows them, unless ``quiet``."""
    columns = (TextColumn(f"{what} {{task.completed:,.0f}}/{{task.total:,.0f}}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=1)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _wandb_id(storage: Storage) -> str:
    """Return the id of the run at W&B, which the folder of the run keeps."""
    try:
        return str(json.loads(storage.read(WANDB))["id"])
    except FileNotFoundError:
        new = secrets.token_hex(8)
        storage.write(WANDB, json.dumps({"id": new}).encode())
        return new


def _truncate(storage: Storage, folder: Path, start_step: int) -> None:
    """Remove the lines that a killed run wrote after the resumed checkpoint, and an incomplete last line.

    The file in the folder is made from that of the storage, whatever was in it.
    """
    try:
        text = storage.read(NAME).decode(errors="replace")
    except FileNotFoundError:
        text = ""
    kept = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            if int(json.loads(line).get("step", -1)) < start_step:
                kept.append(line)
    Storage(str(folder)).write(NAME, "".join(f"{line}\n" for line in kept).encode())


def _plain(value: Any) -> Any:
    """Convert to JSON values: scalars of numpy and torch to Python's, and NaN and infinity to null."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    # Of a scalar of numpy or torch, without importing either here.
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
