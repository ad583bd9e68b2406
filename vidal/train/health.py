"""`Health`: stops a run that has diverged, or whose samples cannot be read."""

from __future__ import annotations

from collections import deque

from vidal.errors import DivergedError, SourceError
from vidal.train.checkpoint_writer import CheckpointWriter
from vidal.train.loop import StepResult
from vidal.train.recipe import TrainRecipe

_WINDOW_SAMPLES = 512
"""Samples over which the share of broken ones is measured; a shorter run is checked at its end."""


class Health:
    """Checks every step; all ranks see the same numbers, so they stop together."""

    def __init__(self, recipe: TrainRecipe, writer: CheckpointWriter | None) -> None:
        """``writer`` is that of the main rank, which alone renames checkpoints."""
        self._max_nan_steps, self._max_broken_share = recipe.max_nan_steps, recipe.max_broken_share
        self._writer = writer
        self._window: deque[tuple[int, int]] = deque()

    def check(self, step: StepResult, *, is_last: bool) -> None:
        """Raise `DivergedError` if the loss stays not finite, `SourceError` if too many samples are broken."""
        self._window.append((len(step.broken), step.samples + len(step.broken)))
        while sum(read for _, read in list(self._window)[1:]) >= _WINDOW_SAMPLES:
            self._window.popleft()
        broken, read = (sum(column) for column in zip(*self._window, strict=True))
        if (read >= _WINDOW_SAMPLES or is_last) and broken > self._max_broken_share * read:
            example = f" ({step.broken[0].clip_id}: {step.broken[0].why})" if step.broken else ""
            raise SourceError(
                f"step {step.step}: {broken} of the last {read} samples cannot be read{example}; repair the data, "
                "or raise max_broken_share"
            )
        if step.bad_steps < self._max_nan_steps and not (step.bad_steps and is_last):
            return
        # The weights before the first bad step led to these losses: nothing may resume from them.
        first_bad = step.step - step.bad_steps + 1
        checkpoints = self._writer.settled() if self._writer is not None else None
        aside = checkpoints.set_aside(first_bad) if checkpoints is not None else []
        latest = checkpoints.latest() if checkpoints is not None else None
        start = f"resumes from checkpoint {latest.name}" if latest else "starts over: no earlier checkpoint exists"
        raise DivergedError(
            f"step {step.step} ({step.name}): loss {step.loss}, gradient norm {step.grad_norm}, "
            f"{step.bad_steps} such steps in a row; lower optimiser.lr, or inspect its clips "
            f"({', '.join(step.clip_ids)[:200]}). "
            + (f"Checkpoint {', '.join(aside)} led to this and was set aside. " if aside else "")
            + f"--resume --set optimiser.lr=… {start}"
        )
