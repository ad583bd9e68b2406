"""Thresholds on stored numbers: how many clips they keep, and what to write into a recipe or a command for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ValidationError

from vidal.dataset.dataset import Dataset
from vidal.errors import SourceError
from vidal.record import from_row
from vidal.stage import Stage
from vidal.stages import CATALOGUE, step_class
from vidal.view.queries import ManifestTable

_BOUND = re.compile(r"(?P<column>\w+)(?P<sign><=|>=)(?P<limit>-?[\d.]+(?:e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)
_FILTERS = "vidal.stages.filters."
_BINS = 40
_OUTLIERS_PERCENT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A threshold: a clip passes if its number is at most, or at least, the limit, or if it has none."""

    column: str
    is_upper: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``blur<=0.3``; raises `SourceError`."""
        match = _BOUND.fullmatch(text.replace(" ", ""))
        try:
            if match is None:
                raise ValueError
            return cls(column=match["column"], is_upper=match["sign"] == "<=", limit=float(match["limit"]))
        except ValueError:
            raise SourceError(f"bound {text[:80]}: write COLUMN<=NUMBER or COLUMN>=NUMBER, such as blur<=0.3") from None

    @property
    def condition(self) -> str:
        """The condition of the clips that pass."""
        return f"({self.column} {'<=' if self.is_upper else '>='} {self.limit:.12g} or {self.column} is null)"

    def passes(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return a mask of the numbers that pass; a missing one is no reason to reject, as in every filter."""
        within = values <= self.limit if self.is_upper else values >= self.limit
        return within | np.isnan(values)


def counts(table: ManifestTable, bounds: Sequence[Bound], among: npt.NDArray[np.int64] | None) -> dict[str, Any]:
    """Return how many kept clips (of ``among``, or of all) there are, and pass all bounds, and each one alone."""
    chosen = table.is_kept()
    if among is not None:
        mask = np.zeros(len(table), np.bool_)
        mask[among] = True
        chosen = chosen & mask
    passing, alone = chosen, []
    for bound in bounds:
        passes = bound.passes(table.numbers(bound.column)) & chosen
        alone.append({"column": bound.column, "clips": int(passes.sum())})
        passing = passing & passes
    return {"kept": int(chosen.sum()), "clips": int(passing.sum()), "each": alone}


def histogram(table: ManifestTable, column: str) -> dict[str, Any]:
    """Return how the numbers of a column are spread: bins of equal width, for kept and for other clips.

    The first and the last bin also have the outliers, half a percent on either side.
    """
    values = table.numbers(column)
    known = np.isfinite(values)
    finite = values[known]
    figures = {"column": column, "clips": len(finite), "missing": len(values) - len(finite)}
    if not len(finite):
        return {**figures, "min": None, "max": None, "edges": [], "kept": [], "others": []}
    low, high = np.percentile(finite, [_OUTLIERS_PERCENT, 100 - _OUTLIERS_PERCENT])
    # Bins have a width also where all numbers are the same.
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    kept = table.is_kept()[known]
    inside = np.clip(finite, edges[0], edges[-1])
    parts = {name: np.histogram(inside[mask], edges)[0].tolist() for name, mask in (("kept", kept), ("others", ~kept))}
    return {**figures, "min": float(finite.min()), "max": float(finite.max()), "edges": edges.tolist(), **parts}


def as_recipe(dataset: Dataset, bounds: Sequence[Bound]) -> dict[str, Any]:
    """Return what applies the bounds: a condition for any ``--where``, and what filters of the recipe decide on them.

    ``stages`` is a patch of the recipe and ``command`` a command line of `vidal refilter`, for the bounds that a filter
    of the recipe decides on; ``without_stage`` has the columns of the others.
    """
    found, without = decided_by(dataset, bounds)
    patch = [{stage: {setting: limit}} for stage, setting, limit in found]
    sets = [word for setting in as_settings(found) for word in ("--set", setting)]
    return {
        "where": " and ".join(bound.condition for bound in bounds),
        "stages": yaml.safe_dump({"stages": patch}, sort_keys=False) if patch else "",
        "command": shlex.join(["vidal", "refilter", dataset.storage.address, *sets]) if sets else "",
        "without_stage": without,
    }


def decided_by(dataset: Dataset, bounds: Sequence[Bound]) -> tuple[list[tuple[str, str, float]], list[str]]:
    """Return stage, setting and limit of the bounds that a filter of the recipe decides on, and the others' columns."""
    settings = {bound: _setting(dataset, bound) for bound in bounds}
    found = [(*place, bound.limit) for bound, place in settings.items() if place is not None]
    return found, [bound.column for bound, place in settings.items() if place is None]


def as_settings(found: Sequence[tuple[str, str, float]]) -> list[str]:
    """Return limits as `vidal refilter` takes them: ``too_static.min_motion=14``."""
    return [f"{stage}.{setting}={limit:.12g}" for stage, setting, limit in found]


def _setting(dataset: Dataset, bound: Bound) -> tuple[str, str] | None:
    """Return the stage and the setting of the recipe that are this very bound."""
    for stage in dataset.info.recipe.get("stages", []):
        # Vidal's own filters only: they need no extra, and a stage that a dataset names may be a stranger's code.
        if not CATALOGUE.get(stage["name"], "").startswith(_FILTERS):
            continue
        kind = step_class(stage["name"])
        if issubclass(kind, Stage) and bound.column in kind.reads:
            settings = stage.get("settings") or {}
            for name in settings:
                if name in kind.model_fields and _is_bound(kind, settings, name, bound):
                    return stage["name"], name
    return None


def _is_bound(kind: type[Stage], settings: dict[str, Any], name: str, bound: Bound) -> bool:
    """Whether a filter with the limit as one of its settings keeps a clip at it, and rejects one beyond for it."""
    is_whole = bound.limit.is_integer()
    limit: float = int(bound.limit) if is_whole else bound.limit
    beyond = limit + (1 if bound.is_upper else -1)
    try:
        stage = kind(**{**settings, name: limit})
    except ValidationError:
        return False
    # With audio, as a share of damaged audio counts only for a clip that has some.
    at, after = (from_row({"has_audio": True, bound.column: value}) for value in (limit, beyond))
    stage.process(at)
    stage.process(after)
    return at.is_open and not after.is_open and (after.decided_value, after.decided_limit) == (beyond, limit)
