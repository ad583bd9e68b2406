"""Environments that hold vidal and what one of its extras brings: nothing is downloaded, all are links to what is here."""

from __future__ import annotations

import re
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(extra: str | None) -> set[str]:
    """The distributions that pyproject.toml names for an extra, those of the extras that it includes too; None: plain."""
    found = set()
    for line in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            found |= {name for included in requirement.extras for name in direct(included)}
        else:
            found.add(canonical(requirement.name))
    return found


def closure(*extras: str) -> set[str]:
    """The distributions that pip would install for vidal with these extras, of those that are installed here."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    todo, seen, found = [Requirement(line) for line in lines], set(), set()
    while todo:
        requirement = todo.pop()
        if requirement.name == PROJECT["name"]:
            todo += [
                Requirement(line) for extra in requirement.extras for line in PROJECT["optional-dependencies"][extra]
            ]
            continue
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(canonical(requirement.name))
        for line in metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(needed)
    return found


def environment(folder: Path, *extras: str) -> Path:
    """Make one in ``folder``; gives its Python."""
    return environment_of(folder, closure(*extras))


def environment_of(folder: Path, distributions: set[str]) -> Path:
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/*/site-packages")
    link(site, distributions)
    (site / "vidal").symlink_to(ROOT / "vidal")
    return folder / "bin" / "python"


def link(site: Path, distributions: set[str]) -> None:
    """Fill a folder of packages."""
    for name in distributions:
        distribution = metadata.distribution(name)
        for entry in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__", "vidal"}:
            if not (site / entry).exists():
                (site / entry).symlink_to(Path(str(distribution.locate_file(entry))))
