"""User settings: YAML files, `--set key.path=value`, and validation with one-line errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vidal.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: Path, holds: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; raises `RecipeError`, where ``holds`` names the expected keys."""
    try:
        # A recipe may be a stranger's, and YAML's full loader makes any Python object that it names.
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; it holds {holds}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with {holds}")
    return raw


def validate(kind: type[Model], raw: Any, place: str) -> Model:
    """Validate a mapping as settings of ``kind``; raises `RecipeError` on the first problem, at ``place``."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        # One line for a person: pydantic's own message is a page, with a link.
        first = error.errors()[0]
        where, message = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        if not where:
            problem = message if isinstance(raw, dict) else f"settings are `name: value`, not {raw!r}"
            raise RecipeError(f"{place}: {problem}") from None
        if first["type"] == "extra_forbidden":
            known = [f.alias or name for name, f in kind.model_fields.items()]
            hint = f"; it has {', '.join(known)}" if len(first["loc"]) == 1 else ""
            raise RecipeError(f"{place}: unknown setting `{where}`{hint}") from None
        # A message may end up in a log: it never shows a secret.
        is_secret = first["loc"][0] in getattr(kind, "secrets", ())
        got = "" if is_secret else f" (got {first.get('input')!r})"
        raise RecipeError(f"{place}.{where}: {message}{got}") from None


def parse_override(text: str, example: str) -> tuple[str, Any]:
    """Split ``key.path=value`` and parse the value as YAML; raises `RecipeError`, which omits a secret value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set {text}: write key.path=value, such as {example}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        # Without PyYAML's own message, which quotes the value: it may be a secret.
        raise RecipeError(f"--set {key}: the value is not YAML") from None


def put(target: dict[str, Any], path: Sequence[str], value: Any, key: str) -> None:
    """Set a nested key, creating mappings along its path; raises `RecipeError` where the path meets a value."""
    for part in path[:-1]:
        if target.get(part) is None:
            target[part] = {}
        target = target[part]
        if not isinstance(target, dict):
            raise RecipeError(f"--set {key}: `{part}` holds no settings")
    target[path[-1]] = value


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
