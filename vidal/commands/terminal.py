"""What a command prints, and what becomes of its errors."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from vidal import extras
from vidal.errors import UserError, VidalError, VidalWarning

console = Console()
errors = Console(stderr=True)

_INTERRUPTED = 130
_EXTRAS = {
    **dict.fromkeys(("add", "build", "doctor", "grow", "models", "refilter", "retry", "stages"), "build"),
    **dict.fromkeys(("embed", "eval", "export-encoder", "search", "train"), "train"),
}
"""The extra that a command's user wants, where a smaller one brings what is missing, too."""
_show_warning = warnings.showwarning


class Printable(Protocol):
    """A result of the library, which prints itself."""

    def lines(self) -> Iterable[str | Table]:
        """For people."""

    def as_json(self) -> dict[str, Any]:
        """For scripts."""


def show(result: Printable, as_json: bool) -> None:
    """Print a result, as one JSON object if that was asked for."""
    if as_json:
        print_json(result.as_json())
        return
    for line in result.lines():
        say(line)


def say(line: str | Table) -> None:
    """Print a line as it stands: what it holds may be other people's text."""
    if isinstance(line, str):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(line)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON has no word for are null."""
    from vidal.record import finite

    print(json.dumps(finite(value), ensure_ascii=False, indent=2, default=str))


def print_warning(message: Warning | str, category: type[Warning], *place: Any, **keys: Any) -> None:
    """A warning of vidal's as one line; any other as Python prints it."""
    if issubclass(category, VidalWarning):
        errors.print(f"vidal: {message}", markup=False, highlight=False, soft_wrap=True)
    else:
        _show_warning(message, category, *place, **keys)


def guarded(run: Callable[[], Any]) -> int:
    """Run a command; what became of it, as an exit code, with one line for an error that is no defect."""
    try:
        run()
    except (VidalError, ImportError) as error:
        told = error if isinstance(error, VidalError) else _lack(error)
        if told is None:
            raise
        errors.print(f"vidal: {told}", markup=False, highlight=False, soft_wrap=True)
        return told.exit_code
    except SystemExit as leaving:
        # Typer makes an exit of Ctrl-C, without a word.
        if leaving.code == _INTERRUPTED:
            line = "vidal: interrupted; what is committed stays, the same command continues from there"
            errors.print(line, soft_wrap=True)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _lack(error: ImportError) -> UserError | None:
    """What the user is told about an extra that is not installed; None for any other import that fails."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return extras.explained(error, f"vidal {command}".strip(), _EXTRAS.get(command))
