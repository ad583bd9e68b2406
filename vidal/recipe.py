"""A recipe: a YAML file that describes how stages turn a source into a dataset, checked before anything runs.

name: shorts
source: {list: candidates.csv}
shards: {size: 128, seed: 0}
stages:
  - fetch
  - probe
  - too_long: {max_s: 20}
  - media
  - fingerprints
  - duplicates        # a global decision: everything before it runs first, over all shards
  - depth: {model: vinvino02/glpn-nyu}

A line ``half: bfloat16`` (or ``true`` for float16, ``false`` for neither) is for every stage that has this setting and
does not set it itself: the precision of its model on a GPU.

A line ``modalities: [my_package.normals:NORMALS]`` registers a modality of your own for the build. The dataset records
it, so that its readers know the modality too.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vidal import extras
from vidal import modality as modalities
from vidal.addresses import WEB_SCHEMES
from vidal.clip import SCHEMA_VERSION
from vidal.dataset.removals import lists_of
from vidal.errors import RecipeError
from vidal.flow import check_flow
from vidal.overrides import EXAMPLE, from_folder, resolve_paths, stage_settings, with_overrides
from vidal.record import Column
from vidal.settings import parse_override, read_yaml, validate
from vidal.sources import SOURCES
from vidal.sources.source import Source
from vidal.stage import Decision, Stage, Step, digest
from vidal.stages import named_step, step_class

_KEYS = ("name", "source", "shards", "engine", "removals", "modalities", "half", "stages")
_SECRETS: dict[str, str] = {}
"""Secrets that the environment gave, by the name of the variable."""
_DOTTED = re.compile(r"(?!(?:vidal|package):)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_NO_STAGE = "`stages` must be a list of at least one stage; it may be empty only where the source merges datasets"


class Shards(BaseModel):
    """How the candidates are divided into shards."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(128, ge=1, le=100_000)
    """Candidates per shard."""
    seed: int = 0
    """Seed of the shuffle."""


class EngineSettings(BaseModel):
    """How a build runs; excluded from the fingerprint, as none of it changes a byte of the output."""

    model_config = ConfigDict(extra="forbid")

    window: int = Field(16, ge=1)
    """Clips of a shard that a worker holds in memory at once; while those of one shard wait for their hosts, it makes
    a second one."""
    gpu_workers: int | None = Field(None, ge=1)
    """Workers per GPU group; one per GPU by default."""
    dashboard: bool = False
    """Start Ray's dashboard."""
    object_store_bytes: int = Field(512 * 1024**2, ge=100 * 1024**2)
    """Size of the object store of a Ray cluster that the run starts, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """The stages between two global decisions."""

    stages: tuple[Stage, ...]
    decision: Decision | None
    """The decision over the manifest that the stages wrote; None in the last phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A validated recipe; made by `load`, or by `check` from a mapping."""

    name: str
    source: Source
    shards: Shards
    engine: EngineSettings
    steps: tuple[Step, ...]
    removals: tuple[str, ...]
    """Files of clips that no dataset may contain; applied at every run, hence excluded from the fingerprint. A dataset
    remembers where they are, so that `retry`, `grow`, `refilter` and `add` apply them, and builds that start from it
    and name no other."""
    modalities: dict[str, str]
    """``package.module:NAME`` of each modality that is not built in, by layer: the recipe's and the source's."""
    definition: dict[str, Any]
    """The mapping that the recipe was read from, without secrets and what changes no byte of the output."""
    secrets: tuple[str, ...]
    """Names of the settings that hold a secret, such as ``fetch.cookies``."""

    @property
    def stages(self) -> list[Stage]:
        return [step for step in self.steps if isinstance(step, Stage)]

    def phases(self) -> list[Phase]:
        """Return the stages, split at each global decision; the last phase has no decision."""
        phases: list[Phase] = []
        stages: list[Stage] = []
        for step in self.steps:
            if isinstance(step, Decision):
                phases.append(Phase(stages=tuple(stages), decision=step))
                stages = []
            elif isinstance(step, Stage):
                stages.append(step)
        return [*phases, Phase(stages=tuple(stages), decision=None)]

    def stages_to_run(self, phase: Phase) -> list[Stage]:
        """The stages of a phase, told where the source's relative urls start; where that is changes no byte."""
        base = self.source.base()
        return [
            stage.model_copy(update={"base": base}) if base and "base" in type(stage).model_fields else stage
            for stage in phase.stages
        ]

    def layers(self, up_to_phase: int | None = None) -> list[str]:
        """Return the layers of the source and those that the stages write, of phases up to ``up_to_phase`` if given."""
        phases = self.phases()[: None if up_to_phase is None else up_to_phase + 1]
        written = [layer for phase in phases for stage in phase.stages for layer in stage.layers]
        return list(dict.fromkeys([*self.source.layers(), *written]))

    def columns(self, steps: Sequence[Step] | None = None) -> dict[str, Column]:
        """Return the columns that the source's dataset and the given steps (by default all) declare, by name."""
        declared = self.source.declared()
        for step in self.steps if steps is None else steps:
            declared.update(step.columns)
        return declared

    def resolved(self, steps: Sequence[Step] | None = None) -> dict[str, Any]:
        """Return everything that the output depends on, as JSON values: source, shards, identity of each step."""
        return {
            "source": self.source.identity(),
            "shards": self.shards.model_dump(),
            "stages": [step.identity() for step in (self.steps if steps is None else steps)],
        }


def fingerprint(resolved: dict[str, Any]) -> str:
    """Return the identity of a build's output, sixteen hex digits: the hash of the resolved recipe and the schema."""
    return digest({"schema": SCHEMA_VERSION, **resolved})


def load(path: str | Path, overrides: Iterable[str] = (), *, is_crawl: bool = False) -> Recipe:
    """Read and validate a recipe file; ``overrides`` are ``key.path=value``. Raises `RecipeError`.

    The list of a crawl is untrusted: unless the recipe says otherwise, only web addresses are allowed in it.

    Example: ``load("recipes/shorts.yaml", ["too_long.max_s=15"])``.
    """
    path = Path(path)
    raw = read_yaml(path, "`source` and `stages`")
    if isinstance(raw.get("source"), dict) and "crawl" in raw["source"]:
        # The crawl has run by now (`crawl_first`).
        raw["source"] = {"dataset": raw["source"].get("into")}
    # Paths in the file start from its folder, those of overrides from the current one.
    resolve_paths(raw, path.parent)
    raw = with_overrides(raw, overrides)
    resolve_paths(raw, Path())
    if is_crawl and (fetch := stage_settings(raw, "fetch")) is not None:
        fetch.setdefault("schemes", list(WEB_SCHEMES))
    return check(raw, str(path))


def steps_of(path: str | Path, overrides: Iterable[str] = ()) -> tuple[Step, ...]:
    """Return the steps of a recipe file whose source need not exist yet. Raises `RecipeError`."""
    raw = with_overrides(read_yaml(Path(path), "`source` and `stages`"), overrides)
    return tuple(_steps(raw, str(path)))


def steps_again(definition: dict[str, Any], place: str) -> tuple[Step, ...]:
    """Return the steps of the recipe stored in a dataset whose source may be gone. Raises `RecipeError`."""
    _check_modules(definition, place)
    modalities.load_all(definition.get("modalities"), place)
    return tuple(_steps(definition, place))


def again(definition: dict[str, Any], overrides: Iterable[str], place: str) -> Recipe:
    """Return the recipe stored in a dataset, with overrides for what is not stored in it. Raises `UserError`."""
    _check_modules(definition, place)
    raw = with_overrides(definition, overrides)
    resolve_paths(raw, Path())
    return check(raw, place)


def _check_modules(definition: Mapping[str, Any], place: str) -> None:
    """Raise `UserError` for a module that a dataset's recipe names and the caller does not allow.

    A dataset may be a stranger's, and to import a module is to run it: that of a stage, a modality, or of a model in
    any setting.
    """
    texts = chain.from_iterable(_texts(definition.get(key)) for key in ("stages", "modalities"))
    modalities.require_allowed((text for text in texts if _DOTTED.fullmatch(text)), place)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value if isinstance(value, list) else chain(value, value.values()):
            yield from _texts(part)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlFirst:
    """A crawl whose dataset is the source of a recipe: ``source: {crawl: RECIPE, into: DIR}``."""

    recipe: str
    into: str


def crawl_first(path: str | Path, overrides: Iterable[str] = ()) -> CrawlFirst | None:
    """Return the crawl that has to run before the recipe; None if its source is no crawl. Raises `RecipeError`."""
    source = read_yaml(Path(path), "`source` and `stages`").get("source")
    # An override of the source takes the place of the crawl, which then need not run.
    if not isinstance(source, dict) or "crawl" not in source or any("source." in text for text in overrides):
        return None
    if not isinstance(source.get("into"), str):
        raise RecipeError(f"{path}: source.crawl requires `into`, the folder or address of the crawl's dataset")
    return CrawlFirst(
        recipe=str(Path(path).parent / source["crawl"]), into=from_folder(source["into"], Path(path).parent)
    )


def check(raw: dict[str, Any], place: str) -> Recipe:
    """Validate a mapping and return its recipe; raises `RecipeError`, which begins with ``place``."""
    unknown = sorted(set(raw) - set(_KEYS))
    if unknown:
        raise RecipeError(f"{place}: unknown key `{unknown[0]}`; the keys of a recipe are {', '.join(_KEYS)}")
    named_lists = raw.get("removals")
    if not isinstance(named_lists, str | list | None) or not all(isinstance(path, str) for path in lists_of(raw)):
        raise RecipeError(f"{place}: `removals` must name a file that lists the clips to leave out, or several")
    # Before the source, whose datasets may have layers of these modalities.
    named = modalities.load_all(raw.get("modalities"), place)
    kinds = [kind for kind in SOURCES if kind in raw["source"]] if isinstance(raw.get("source"), dict) else []
    if not kinds:
        raise RecipeError(f"{place}: `source` must have one of the keys {', '.join(SOURCES)}")
    if len(kinds) > 1:
        raise RecipeError(f"{place}: `source` has both {' and '.join(kinds)}; keep one")
    source = validate(SOURCES[kinds[0]], raw["source"], f"{place}: source")
    lists = lists_of(raw) or source.removals()
    # Which URL schemes a list may use is up to the source, unless the recipe sets them.
    steps = tuple(
        step.model_copy(update={"schemes": source.schemes()}) if getattr(step, "schemes", ()) is None else step
        for step in _steps(raw, place)
    )
    if not steps and len(source.earlier_datasets()) < 2:
        raise RecipeError(f"{place}: {_NO_STAGE}")
    extras.require({f"{place}: stages.{step.step_name()}": step.imports for step in steps})
    check_flow(source, steps, place)
    return Recipe(
        name=str(raw.get("name") or Path(place).stem),
        source=source,
        shards=validate(Shards, raw.get("shards") or {}, f"{place}: shards"),
        engine=validate(EngineSettings, raw.get("engine") or {}, f"{place}: engine"),
        steps=steps,
        removals=tuple(lists),
        modalities={**source.modalities(), **named},
        definition=_definition({**raw, "removals": lists[0] if len(lists) == 1 else lists} if lists else raw),
        secrets=tuple(f"{step.step_name()}.{name}" for step in steps for name in step.secrets if getattr(step, name)),
    )


def _definition(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe's mapping without engine settings, resources and secrets."""
    definition = copy.deepcopy({key: value for key, value in raw.items() if key != "engine"})
    for line in definition["stages"]:
        if isinstance(line, dict):
            for name, settings in line.items():
                # A dataset is given to others: no secret may be in it.
                for key in ("resources", *step_class(name).secrets):
                    (settings or {}).pop(key, None)
    return definition


def _with_secrets(kind: type[Step], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with secrets of the environment, ``VIDAL_FETCH_COOKIES``, where the recipe has none."""
    for name in kind.secrets:
        variable = f"VIDAL_{kind.step_name()}_{name}".upper()
        if variable in os.environ:
            # Taken out of it, so that no child process inherits it.
            _SECRETS[variable] = os.environ.pop(variable)
        if variable in _SECRETS and not settings.get(name):
            settings = {**settings, name: parse_override(f"{name}={_SECRETS[variable]}", EXAMPLE)[1]}
    return settings


def _steps(definition: Mapping[str, Any], place: str) -> list[Step]:
    raw, half = definition.get("stages"), definition.get("half")
    if not isinstance(raw, list):
        raise RecipeError(f"{place}: {_NO_STAGE}")
    if half not in (None, True, False, "bfloat16"):
        raise RecipeError(f"{place}: `half` is true (float16), bfloat16 or false, not {half!r}")
    steps: list[Step] = []
    for index, line in enumerate(raw):
        at = f"{place}: stages[{index}]"
        pairs = [(line, None)] if isinstance(line, str) else list(line.items()) if isinstance(line, dict) else []
        if len(pairs) != 1 or not isinstance(pairs[0][1], dict | None):
            raise RecipeError(f"{at}: write a stage as `name` or `name: {{setting: value}}`, not {line!r}")
        name, settings = str(pairs[0][0]), pairs[0][1]
        try:
            kind = named_step(name)
        except RecipeError as error:
            raise RecipeError(f"{at}: {error}") from None
        settings = _with_secrets(kind, settings or {})
        default = {"half": half} if half is not None and "half" in kind.model_fields else {}
        steps.append(validate(kind, {**default, **settings}, f"{at}.{name}"))
    # Rows, `--set` and a worker's notes know a step by its name alone.
    names = [step.step_name() for step in steps]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(f"{place}: stage `{repeated}` is listed twice; list each stage once")
    return steps
