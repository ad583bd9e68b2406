"""`Health`: ends a run whose steps teach nothing any more, as the numbers are lost or the samples cannot be read."""

from __future__ import annotations

from collections import deque

from vidal.errors import DivergedError, SourceError
from vidal.train.checkpoint import Checkpoints
from vidal.train.loop import StepResult
from vidal.train.recipe import TrainRecipe

_WINDOW_SAMPLES = 512
"""Samples over which the share of broken ones is taken; a shorter run is judged at its end."""


class Health:
    """Looks at every step; the same on every rank, so that all of them end together."""

    def __init__(self, recipe: TrainRecipe, checkpoints: Checkpoints, *, is_main: bool) -> None:
        self._max_nan_steps, self._max_broken_share = recipe.max_nan_steps, recipe.max_broken_share
        self._checkpoints, self._is_main = checkpoints, is_main
        self._window: deque[tuple[int, int]] = deque()

    def check(self, step: StepResult, *, is_last: bool) -> None:
        """Raises `DivergedError` for numbers that stay without value, `SourceError` where most samples are broken."""
        self._check_broken(step, is_last=is_last)
        if step.bad_steps >= self._max_nan_steps or (step.bad_steps and is_last):
            raise DivergedError(self._diverged(step))

    def _check_broken(self, step: StepResult, *, is_last: bool) -> None:
        self._window.append((len(step.broken), step.samples + len(step.broken)))
        while sum(read for _, read in list(self._window)[1:]) >= _WINDOW_SAMPLES:
            self._window.popleft()
        broken, read = (sum(column) for column in zip(*self._window, strict=True))
        if (read >= _WINDOW_SAMPLES or is_last) and broken > self._max_broken_share * read:
            example = next((b for b in step.broken), None)
            named = f" ({example.clip_id}: {example.why})" if example else ""
            raise SourceError(
                f"step {step.step}: {broken} of the last {read} samples cannot be read{named}; mend the data, "
                "or raise max_broken_share"
            )

    def _diverged(self, step: StepResult) -> str:
        """What to say; checkpoints whose weights gave these numbers are set aside first."""
        began = step.step - step.bad_steps + 1
        aside = self._checkpoints.set_aside(began) if self._is_main else []
        latest = self._checkpoints.latest() if self._is_main else None
        place = f"step {step.step} ({'-'.join(step.pair)})"
        kept = (
            f"goes on from checkpoint {latest.path.name}" if latest else "begins anew, there is no earlier checkpoint"
        )
        return (
            f"{place}: loss {step.loss}, gradient norm {step.grad_norm}, {step.bad_steps} such steps in a row; lower "
            f"optimiser.lr, or look at its clips ({', '.join(step.clip_ids)[:200]}). "
            + (f"Checkpoint {', '.join(aside)} gave these numbers and is set aside. " if aside else "")
            + f"--resume --set optimiser.lr=… {kept}"
        )
