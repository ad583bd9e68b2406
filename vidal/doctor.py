"""Checks whether this machine can run a recipe, fetches its models and pins them: `examine`, `pull`, `pin`."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

from vidal import extras
from vidal.clip import Clip
from vidal.dataset.storage import Storage
from vidal.errors import ModelError, OutputError, ToolError, UserError, VidalError
from vidal.models import packages
from vidal.models.auto import first_line
from vidal.models.inventory import Model, commit_of, fetch, find, of_stage
from vidal.models.openai_server import check_is_up
from vidal.settings import read_yaml
from vidal.stage import Stage, Step

_GIB = 1024**3
_COMMIT = re.compile(r"@[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    what: str
    is_well: bool
    detail: str
    is_warning: bool = False
    """Of what is well: whether it is to be mended soon."""


class Examination(list[Finding]):
    """The results of all checks."""

    @property
    def is_well(self) -> bool:
        """Whether every check passed."""
        return all(finding.is_well for finding in self)

    def lines(self) -> Iterator[str]:
        """Return a line per check: ``ok   ffmpeg: …``, ``warn`` or ``FAIL``."""
        for finding in self:
            state = "FAIL" if not finding.is_well else "warn" if finding.is_warning else "ok  "
            yield f"{state} {finding.what}: {finding.detail}"

    def as_json(self) -> dict[str, Any]:
        """Return the findings for scripts."""
        return {"ok": self.is_well, "findings": [asdict(finding) for finding in self]}


def examine(recipe: Path | None, out: str | None = None, settings: Sequence[str] = ()) -> Examination:
    """Check the machine, each stage of the recipe, and whether ``out`` can hold a dataset's lock, where they are given.

    ``settings`` are ``key.path=value``, which override the recipe's. Raises `UserError` for settings without a recipe,
    and any other `VidalError` for a bad recipe.
    """
    if settings and recipe is None:
        raise UserError("--set needs RECIPE, whose settings it overrides")
    findings = Examination(_machine())
    if out is not None:
        findings.append(examine_store(Storage(out)))
    if recipe is not None:
        findings += _models(models_of(recipe, settings)) if _is_training(recipe) else _stages(recipe, settings)
    return findings


def models_of(recipe: Path, settings: Sequence[str] = ()) -> list[Model]:
    """Return every model that a build or training recipe names; raises `VidalError`."""
    if not _is_training(recipe):
        from vidal.recipe import steps_of

        return [model for step in steps_of(recipe, settings) for model in of_stage(step)]
    from vidal.train.recipe import load as load_training

    training = load_training(recipe, list(settings))
    towers = {f"towers.{name}": tower.model for name, tower in training.towers.items()}
    named = {"text": training.text.model, **towers}
    # timm models have no folder of their own.
    return [find(part, "model", name) for part, name in named.items() if name and not name.startswith("timm:")]


def pull(recipe: Path) -> Iterator[str]:
    """Fetch the missing packages and models of a recipe, and yield a line for each; raises `VidalError`."""
    from vidal.recipe import steps_of

    # Packages first: the models inside one cannot be located until it is installed.
    steps = [] if _is_training(recipe) else steps_of(recipe)
    settings = (value for step in steps for value in step.model_dump().values())
    for package in packages.missing(value for value in settings if isinstance(value, str)):
        packages.install(package)
        yield f"installed the package {package}"
    # One stage after the other, so that a path that is not here keeps no model of an earlier stage from being fetched.
    models = (model for step in steps for model in of_stage(step)) if steps else models_of(recipe)
    for model in models:
        yield f"{model.stage}.{model.setting}: {fetch(model).sentence()}"


def pin(recipe: Path, out: Path) -> Iterator[str]:
    """Write a recipe to ``out`` with the present commit of each hub model, and yield a line for each.

    Only the models' names change: comments and layout stay. Raises `VidalError`.
    """
    pinned = {}
    for model in _to_pin(recipe):
        setting = f"{model.stage}.{model.setting}"
        pinned[setting] = f"{model.reference.partition('@')[0]}@{commit_of(model)}"
        yield f"{setting}: {pinned[setting]}"
    text = recipe.read_text(encoding="utf-8")
    # From the last to the first, as what is written is longer than what it replaces.
    for setting, value in reversed(list(_settings(yaml.compose(text)))):
        if name := pinned.get(setting.removeprefix("stages.")):
            quotes = 0 if value.style is None else 1
            start, end = value.start_mark.index + quotes, value.end_mark.index - quotes
            text = text[:start] + name + text[end:]
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error}") from error
    yield f"wrote {out}"


def _to_pin(recipe: Path) -> Iterator[Model]:
    models = models_of(recipe) if _is_training(recipe) else _findable(recipe)
    return (model for model in models if model.whereabouts == "hub" and not _COMMIT.search(model.reference))


def _findable(recipe: Path) -> Iterator[Model]:
    from vidal.recipe import steps_of

    for step in steps_of(recipe):
        # A path that is not on this machine is nothing to pin.
        with contextlib.suppress(ModelError):
            yield from of_stage(step)


def _settings(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield the key, such as ``stages.depth.model``, and the value of each setting, in the order of the text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode):
                yield f"{prefix}{key.value}", value
            yield from _settings(value, f"{prefix}{key.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _settings(item, prefix)


def _is_training(recipe: Path) -> bool:
    return "towers" in read_yaml(recipe, "`source` and `stages`, or `text` and `towers`")


def _models(models: Iterable[Model]) -> Iterator[Finding]:
    for model in models:
        remedy = "; `vidal models pull RECIPE` fetches it" if model.is_missing else ""
        what = f"model {model.stage}.{model.setting}"
        yield Finding(what=what, is_well=not model.is_missing, detail=model.sentence() + remedy)


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    cores = f"{os.cpu_count()} cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB memory free"
    yield Finding(what="machine", is_well=True, detail=cores)
    yield Finding(what="python", is_well=True, detail=platform.python_version())
    for extra, modules in extras.EXTRAS.items():
        lacking = ", ".join(extras.missing(modules))
        detail = f"{lacking} not installed; pip install 'vidal[{extra}]' adds it" if lacking else "installed"
        yield Finding(what=f"extra {extra}", is_well=True, detail=detail)
    for package in ("ray", "torch", "transformers", "pyarrow", "yt-dlp"):
        # An extra that is not installed has been listed above.
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield Finding(what=package, is_well=True, detail=metadata.version(package))
    # A machine that only reads datasets has neither.
    if not extras.missing(["ffmpeg"]):
        from vidal.media.ffmpeg import ffmpeg_identity

        try:
            yield Finding(what="ffmpeg", is_well=True, detail=ffmpeg_identity())
        except VidalError as error:
            yield Finding(what="ffmpeg", is_well=False, detail=str(error))
    if not extras.missing(["torch"]):
        import torch

        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding(what="gpu", is_well=True, detail=", ".join(gpus) or "none; every stage runs on the CPU")


def examine_store(storage: Storage) -> Finding:
    """Write, swap and delete a small file, and try what must be refused."""
    what, name = f"out {storage.address}", f"vidal-doctor-{secrets.token_hex(8)}"
    if storage.is_local and not storage.exists():
        return Finding(what=what, is_well=True, detail="no folder yet")
    try:
        first = storage.create(name, b"first")
        try:
            second = storage.swap(name, b"second", first or "")
            allowed = {
                "create": storage.create(name, b"third"),
                "replace": storage.swap(name, b"fourth", first or ""),
                "delete": storage.swap(name, None, first or ""),
            }
        finally:
            storage.remove(name)
    except VidalError as error:
        return Finding(what=what, is_well=False, detail=str(error))
    if first and second and not any(allowed.values()):
        return Finding(what=what, is_well=True, detail="of two writers at once, one is refused")
    done = ", ".join(act for act, token in allowed.items() if token)
    detail = f"ignores If-None-Match and If-Match ({done or 'a first put is refused'}): two runs could write at once"
    return Finding(what=what, is_well=False, detail=detail)


def _stages(path: Path, settings: Sequence[str]) -> Iterator[Finding]:
    from vidal.recipe import load, steps_of
    from vidal.trial import trial_clip

    # What `vidal add` takes has no source.
    has_source = "source" in read_yaml(path, "`stages`")
    stages = load(path, settings).stages if has_source else steps_of(path, settings)
    try:
        with trial_clip([stage for stage in stages if isinstance(stage, Stage)]) as clip:
            for stage in stages:
                yield from _stage(stage, clip)
    except ToolError as error:
        yield Finding(what="trial clip", is_well=False, detail=str(error))


def _stage(stage: Step, clip: Clip) -> Iterator[Finding]:
    """Report a step's models, whether they load, and the time that they take for a clip of a few seconds."""
    name = stage.step_name()
    started = time.monotonic()
    try:
        models = of_stage(stage)
        yield from _models(models)
        # Loading a missing model would wait for the hub.
        if not isinstance(stage, Stage) or any(model.is_missing for model in models):
            return
        # A request of a clip would be tried again for minutes.
        if any(model.whereabouts == "server" for model in models) and (url := getattr(stage, "server_url", "")):
            check_is_up(url)
        stage.setup()
        detail = f"ready in {time.monotonic() - started:.1f} s"
        yield from (Finding(what=f"{name} {what}", is_well=True, detail=said) for what, said in stage.facts().items())
        for warning in stage.warnings():
            yield Finding(what=name, is_well=True, is_warning=True, detail=warning)
        if doubts := stage.doubts():
            yield from (Finding(what=f"stage {name}", is_well=False, detail=doubt) for doubt in doubts)
            return
        if models:
            detail += f", {_timed(stage, clip)}"
    except VidalError as error:
        yield Finding(what=f"stage {name}", is_well=False, detail=str(error))
        return
    except Exception as error:  # a model may raise anything, and would in every clip
        yield Finding(what=f"stage {name}", is_well=False, detail=f"{type(error).__name__}: {first_line(error)}")
        return
    yield Finding(what=f"stage {name}", is_well=True, detail=detail)


def _timed(stage: Stage, clip: Clip) -> str:
    """Return how long a test clip takes, timed on the second pass, as the first one warms up."""
    for _ in range(2):
        started = time.monotonic()
        stage.process_batch([clip])
    return f"{time.monotonic() - started:.2f} s for a test clip of {len(clip.frame_times)} frames"
