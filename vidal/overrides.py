"""A recipe's mapping before it is checked: overrides applied, and paths made absolute."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vidal.errors import RecipeError
from vidal.settings import parse_override, put
from vidal.sources import SOURCES

EXAMPLE = "shards.size=4 or too_long.max_s=30"
"""Of an override, for messages."""


def with_overrides(definition: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a recipe's mapping with the overrides applied. Raises `RecipeError`."""
    # Settings are put into nested mappings in place, and the original may be a dataset's definition.
    raw = copy.deepcopy(definition)
    for text in overrides:
        key, parsed = parse_override(text, EXAMPLE)
        # These two have no settings below them: the value is the whole.
        if key in ("removals", "half"):
            raw[key] = parsed
            continue
        key = key.removeprefix("stages.")
        lines = raw["stages"] if isinstance(raw.get("stages"), list) else []
        names = [str(name) for line in lines for name in (line if isinstance(line, dict) else [line])]
        # The name of a user's own stage contains dots.
        part = next((name for name in names if key.startswith(f"{name}.")), key.partition(".")[0])
        if len(key) <= len(part):
            raise RecipeError(f"--set {key}: write key.path=value, such as {EXAMPLE}")
        path = key[len(part) + 1 :].split(".")
        if part == "source" and path[0] in SOURCES and isinstance(raw.get("source"), dict):
            # An override names another source, in place of the one that the recipe has.
            raw["source"] = {k: v for k, v in raw["source"].items() if k not in SOURCES}
        if part in ("source", "shards", "engine"):
            put(raw, [part, *path], parsed, key)
        elif (settings := stage_settings(raw, part)) is not None:
            put(settings, path, parsed, key)
        else:
            near = difflib.get_close_matches(part, [*names, "source", "shards", "engine"], n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"its stages: {', '.join(names)}"
            raise RecipeError(f"--set {key}: the recipe has no stage `{part}`; {hint}")
    return raw


def resolve_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make relative paths of the source and the removals files absolute, starting from ``folder``."""
    if isinstance(given := raw.get("removals"), str):
        raw["removals"] = from_folder(given, folder)
    elif isinstance(given, list):
        raw["removals"] = [from_folder(path, folder) if isinstance(path, str) else path for path in given]
    source = raw.get("source")
    if isinstance(source, dict):
        for key, value in source.items():
            if isinstance(value, str) and key in (*SOURCES, "media"):
                source[key] = from_folder(value, folder)
            elif isinstance(value, list) and key == "datasets":
                source[key] = [from_folder(part, folder) if isinstance(part, str) else part for part in value]


def from_folder(value: str, folder: Path) -> str:
    """Return the absolute path of one that starts from a folder; an address stays as it is."""
    return value if "://" in value else str((folder / Path(value).expanduser()).resolve())


def stage_settings(raw: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return the settings of a stage in a recipe's mapping, to be changed in place; None if it has no such stage."""
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
