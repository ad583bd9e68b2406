"""A recipe: a YAML file that maps a source through stages to a data set, checked before anything runs.

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

A line ``modalities: [my_package.normals:NORMALS]`` makes a modality of your own known to the build, and is recorded for
all that read its dataset.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vidal import extras
from vidal import modality as modalities
from vidal.clip import SCHEMA_VERSION
from vidal.crawl.files import WEB_SCHEMES
from vidal.errors import RecipeError
from vidal.flow import check_flow
from vidal.record import Column
from vidal.settings import parse_override, put, read_yaml, validate
from vidal.sources import SOURCES
from vidal.sources.source import Source
from vidal.stage import Decision, Stage, Step, digest
from vidal.stages import named_step, step_class

_KEYS = ("name", "source", "shards", "engine", "removals", "modalities", "stages")
_EXAMPLE = "shards.size=4 or too_long.max_s=30"


class Shards(BaseModel):
    """How the plan is cut."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(128, ge=1, le=100_000)
    """Candidates per shard."""
    seed: int = 0
    """Seed of the shuffle."""


class EngineSettings(BaseModel):
    """How the work is run; changes no byte of the output, so it is no part of the fingerprint."""

    model_config = ConfigDict(extra="forbid")

    window: int = Field(16, ge=1)
    """Clips of a shard that are in memory at once in a worker."""
    gpu_workers: int | None = Field(None, ge=1)
    """Workers of a GPU group; by default one per GPU."""
    dashboard: bool = False
    """Start Ray's dashboard."""
    object_store_bytes: int = Field(512 * 1024**2, ge=100 * 1024**2)
    """Object store of the Ray that the run starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Stages between two global decisions; ``decision`` is made over what they wrote."""

    stages: tuple[Stage, ...]
    decision: Decision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A checked recipe."""

    name: str
    source: Source
    shards: Shards
    engine: EngineSettings
    steps: tuple[Step, ...]
    removals: str | None
    """File that lists what is to be in no data set; applied whenever the recipe runs, so no part of its identity."""
    modalities: dict[str, str]
    """By layer, the ``package.module:NAME`` of each modality that is not vidal's own: the recipe's and the source's."""
    definition: dict[str, Any]
    """The mapping it was read from, without what changes no byte of the output and without secrets."""
    secrets: tuple[str, ...]
    """The settings that hold a secret, such as ``fetch.cookies``: their names alone."""

    @property
    def stages(self) -> list[Stage]:
        return [step for step in self.steps if isinstance(step, Stage)]

    def phases(self) -> list[Phase]:
        """The stages, cut at each global decision."""
        phases: list[Phase] = []
        stages: list[Stage] = []
        for step in self.steps:
            if isinstance(step, Decision):
                phases.append(Phase(stages=tuple(stages), decision=step))
                stages = []
            elif isinstance(step, Stage):
                stages.append(step)
        return [*phases, Phase(stages=tuple(stages), decision=None)]

    def layers(self, up_to_phase: int | None = None) -> list[str]:
        """The layers that stages of the first phases write, and those that the source brings."""
        phases = self.phases()[: None if up_to_phase is None else up_to_phase + 1]
        brought = self.source.layers()
        written = [layer for phase in phases for stage in phase.stages for layer in stage.layers]
        return list(dict.fromkeys([*brought, *written]))

    def columns(self, steps: Sequence[Step] | None = None) -> dict[str, Column]:
        """The columns that these steps declare, by default all, and those that came with the source."""
        declared = self.source.declared()
        for step in self.steps if steps is None else steps:
            declared.update(step.columns)
        return declared

    def resolved(self, steps: Sequence[Step] | None = None) -> dict[str, Any]:
        """Everything that the output depends on."""
        return {
            "source": self.source.identity(),
            "shards": self.shards.model_dump(),
            "stages": [step.identity() for step in (self.steps if steps is None else steps)],
        }


def fingerprint(resolved: dict[str, Any]) -> str:
    """Identity of the output: schema, stages with versions, settings and models, source; no resources."""
    return digest({"schema": SCHEMA_VERSION, **resolved})


def load(path: str | Path, overrides: Iterable[str] = (), *, is_crawl: bool = False) -> Recipe:
    """Read and check a recipe file; ``overrides`` are ``key.path=value``. Raises `RecipeError`.

    A crawl's list is other people's: unless the recipe says otherwise it names addresses of the web and nothing else.
    """
    path = Path(path)
    raw = read_yaml(path, "`source` and `stages`")
    if isinstance(raw.get("source"), dict) and "crawl" in raw["source"]:
        raw["source"] = {"dataset": raw["source"].get("into")}
    _resolve_source_paths(raw, path.parent)
    for override in overrides:
        _override(raw, override)
    _resolve_source_paths(raw, Path())
    if is_crawl and (fetch := _stage_settings(raw, "fetch")) is not None:
        fetch.setdefault("schemes", list(WEB_SCHEMES))
    return check(raw, str(path))


def steps_of(path: str | Path, overrides: Iterable[str] = ()) -> tuple[Step, ...]:
    """The stages alone, whose models can be looked for before there is anything to start from."""
    raw = read_yaml(Path(path), "`source` and `stages`")
    for override in overrides:
        _override(raw, override)
    return tuple(_steps(raw.get("stages"), str(path)))


def with_overrides(definition: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of the recipe that a dataset keeps, with other settings. Raises `RecipeError`."""
    raw = copy.deepcopy(definition)
    for override in overrides:
        _override(raw, override)
    return raw


def steps_again(definition: dict[str, Any], place: str) -> tuple[Step, ...]:
    """The steps alone of the recipe that a dataset keeps, whose source may be gone by now. Raises `RecipeError`."""
    modalities.load_all(definition.get("modalities"), place)
    return tuple(_steps(definition.get("stages"), place))


def again(definition: dict[str, Any], overrides: Iterable[str], place: str) -> Recipe:
    """The recipe that a dataset keeps, with the settings that it does not keep. Raises `RecipeError`."""
    raw = with_overrides(definition, overrides)
    _resolve_source_paths(raw, Path())
    return check(raw, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlFirst:
    """A crawl whose data set is the source: ``source: {crawl: RECIPE, into: DIR}``."""

    recipe: str
    into: str


def crawl_first(path: str | Path, overrides: Iterable[str] = ()) -> CrawlFirst | None:
    """The crawl that a recipe wants run before it; None for a recipe with any other source."""
    source = read_yaml(Path(path), "`source` and `stages`").get("source")
    if not isinstance(source, dict) or "crawl" not in source or any("source." in text for text in overrides):
        return None
    if not isinstance(source.get("into"), str):
        raise RecipeError(f"{path}: source.crawl needs `into`, the folder or address of the crawl's data set")
    return CrawlFirst(
        recipe=str(Path(path).parent / source["crawl"]), into=_from_folder(source["into"], Path(path).parent)
    )


def _from_folder(value: str, folder: Path) -> str:
    return value if "://" in value else str((folder / Path(value).expanduser()).resolve())


def check(raw: dict[str, Any], place: str) -> Recipe:
    """The recipe of a mapping, or one clear line about what is wrong with it."""
    unknown = sorted(set(raw) - set(_KEYS))
    if unknown:
        raise RecipeError(f"{place}: unknown key `{unknown[0]}`; a recipe has {', '.join(_KEYS)}")
    named = modalities.load_all(raw.get("modalities"), place)
    source = _source(raw.get("source"), place)
    steps = tuple(_with_schemes(step, source) for step in _steps(raw.get("stages"), place))
    extras.require({f"{place}: stages.{step.step_name()}": step.imports for step in steps})
    check_flow(source, steps, place)
    return Recipe(
        name=str(raw.get("name") or Path(place).stem),
        source=source,
        shards=validate(Shards, raw.get("shards") or {}, f"{place}: shards"),
        engine=validate(EngineSettings, raw.get("engine") or {}, f"{place}: engine"),
        steps=steps,
        removals=raw.get("removals"),
        modalities={**source.modalities(), **named},
        definition=_definition(raw),
        secrets=tuple(f"{step.step_name()}.{name}" for step in steps for name in step.secrets if getattr(step, name)),
    )


def _with_schemes(step: Step, source: Source) -> Step:
    """What a list may name is the source's word, unless the recipe has its own."""
    if getattr(step, "schemes", ()) is None:
        return step.model_copy(update={"schemes": source.schemes()})
    return step


def _definition(raw: dict[str, Any]) -> dict[str, Any]:
    """The recipe's mapping without engine settings, resources and secrets."""
    definition = copy.deepcopy({key: value for key, value in raw.items() if key not in ("engine", "removals")})
    for line in definition["stages"]:
        if isinstance(line, dict):
            for name, settings in line.items():
                for key in ("resources", *step_class(name).secrets):
                    (settings or {}).pop(key, None)
    return definition


def _source(raw: Any, place: str) -> Source:
    if not isinstance(raw, dict) or not (kinds := [kind for kind in SOURCES if kind in raw]):
        raise RecipeError(f"{place}: `source` names one of {', '.join(SOURCES)}")
    if len(kinds) > 1:
        raise RecipeError(f"{place}: `source` has both {' and '.join(kinds)}; name one")
    return validate(SOURCES[kinds[0]], raw, f"{place}: source")


def _steps(raw: Any, place: str) -> list[Step]:
    if not isinstance(raw, list) or not raw:
        raise RecipeError(f"{place}: `stages` is a list of at least one stage")
    steps: list[Step] = []
    for index, line in enumerate(raw):
        name, settings = _line(line, f"{place}: stages[{index}]")
        try:
            kind = named_step(name)
        except RecipeError as error:
            raise RecipeError(f"{place}: stages[{index}]: {error}") from None
        steps.append(validate(kind, settings, f"{place}: stages[{index}].{name}"))
    names = [step.step_name() for step in steps]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated:
        raise RecipeError(f"{place}: stage `{repeated}` stands twice; each stage stands once")
    return steps


def _line(line: Any, place: str) -> tuple[str, dict[str, Any]]:
    if isinstance(line, str):
        return line, {}
    if isinstance(line, dict) and len(line) == 1:
        name, settings = next(iter(line.items()))
        if settings is None or isinstance(settings, dict):
            return str(name), settings or {}
    raise RecipeError(f"{place}: a stage is `name` or `name: {{setting: value}}`, not {line!r}")


def _resolve_source_paths(raw: dict[str, Any], folder: Path) -> None:
    """Paths in a recipe start from the recipe's folder; addresses and overrides are taken as they are."""
    if isinstance(raw.get("removals"), str):
        raw["removals"] = _from_folder(raw["removals"], folder)
    source = raw.get("source")
    if isinstance(source, dict):
        for key, value in source.items():
            if isinstance(value, str) and key in (*SOURCES, "media"):
                source[key] = _from_folder(value, folder)


def _override(raw: dict[str, Any], text: str) -> None:
    """Apply ``shards.size=4`` or ``too_long.max_s=30``."""
    key, parsed = parse_override(text, _EXAMPLE)
    key = key.removeprefix("stages.")
    # A stage of the user's own has dots in its name.
    name = next((n for n in _stage_names(raw) if key.startswith(f"{n}.")), key.partition(".")[0])
    parts = [name, *key[len(name) + 1 :].split(".")] if key != name else [name]
    if len(parts) < 2:
        raise RecipeError(f"--set {key}: write key.path=value, such as {_EXAMPLE}")
    if parts[0] == "source" and parts[1] in SOURCES and isinstance(raw.get("source"), dict):
        raw["source"] = {k: v for k, v in raw["source"].items() if k not in SOURCES}
    target = _stage_settings(raw, parts[0]) if parts[0] not in ("source", "shards", "engine") else raw
    path = parts if target is raw else parts[1:]
    if target is None:
        near = difflib.get_close_matches(parts[0], [*_stage_names(raw), "source", "shards", "engine"], n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(_stage_names(raw))}"
        raise RecipeError(f"--set {key}: the recipe has no stage `{parts[0]}`; {hint}")
    put(target, path, parsed, key)


def _stage_names(raw: dict[str, Any]) -> list[str]:
    stages = raw.get("stages")
    lines = stages if isinstance(stages, list) else []
    return [str(name) for line in lines for name in (line if isinstance(line, dict) else [line])]


def _stage_settings(raw: dict[str, Any], name: str) -> dict[str, Any] | None:
    stages = raw.get("stages")
    if not isinstance(stages, list):
        return None
    for index, line in enumerate(stages):
        if line == name:
            settings: dict[str, Any] = {}
            stages[index] = {name: settings}
            return settings
        if isinstance(line, dict) and name in line:
            line[name] = line[name] or {}
            return line[name] if isinstance(line[name], dict) else None
    return None


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two resolved recipes, one line each."""
    before, after = _flat(old), _flat(new)
    keys = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    whole = {key for key in keys if "absent" in (before.get(key, "absent"), after.get(key, "absent"))}
    # Of a stage that only one of them has, that it has it is enough.
    keys = [key for key in keys if not any(key.startswith(f"{stage}.") for stage in whole)]
    changes = [f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}" for key in keys]
    return changes or (["the order of the stages"] if old != new else [])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        parts = {k: v for k, v in value.items() if k != "name"}
        return {k: v for key, part in parts.items() for k, v in _flat(part, f"{prefix}.{key}".strip(".")).items()}
    if isinstance(value, list) and value and all(isinstance(part, dict) and "name" in part for part in value):
        named = {part["name"]: {k: v for k, v in part.items() if k != "name"} for part in value}
        return {f"{prefix}.{name}": "present" for name in named} | _flat(named, prefix)
    return {prefix: value}
