"""Output and error handling of the commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from vidal import extras
from vidal.errors import InterruptedRunError, VidalError, VidalWarning

console = Console()
errors = Console(stderr=True)

_INTERRUPTED = 130
_INTERRUPTED_LINE = "vidal: interrupted; committed shards are kept, and the same command resumes from them"
_EXTRAS = {
    **dict.fromkeys(("add", "build", "doctor", "grow", "models", "profile", "refilter", "retry", "stages"), "build"),
    **dict.fromkeys(("ablate", "embed", "eval", "export-encoder", "search", "train"), "train"),
}
"""The extra to recommend for each command, although a smaller one may provide the missing package as well."""
_show_warning = warnings.showwarning


class Printable(Protocol):
    """A result of the library that a command can print."""

    def lines(self) -> Iterable[str | Table]:
        """Return the lines and tables to print for people."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object to print for scripts."""


def show(result: Printable, as_json: bool) -> None:
    """Print a result, as text or as one JSON object, in which NaN and infinity are null."""
    if as_json:
        from vidal.record import finite

        print(json.dumps(finite(result.as_json()), ensure_ascii=False, indent=2, default=str))
        return
    for line in result.lines():
        say(line)


def say(line: str | Table) -> None:
    """Print a line without interpreting markup: it may contain untrusted text."""
    if isinstance(line, str):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(line)


def print_warning(message: Warning | str, category: type[Warning], *place: Any, **keys: Any) -> None:
    """Print vidal's own warnings as one line, all others in Python's format."""
    if issubclass(category, VidalWarning):
        errors.print(f"vidal: {message}", markup=False, highlight=False, soft_wrap=True)
    else:
        _show_warning(message, category, *place, **keys)


def guarded(run: Callable[[], Any]) -> int:
    """Run a command and return its exit code; an expected error is printed as one line, a defect raises.

    Ctrl-C ends it with 130 whatever it breaks on the way: processes that receive it, too, may die first and be missed.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    # A program that runs a command in its own process may have a handler of its own, which stays.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, interrupt)
    try:
        run()
        return 0
    except SystemExit as exit:
        # Typer turns Ctrl-C into an exit without a message.
        if exit.code == _INTERRUPTED:
            errors.print(_INTERRUPTED_LINE, soft_wrap=True)
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, is gone: nothing more can be written, by the flush at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if interrupts and not isinstance(error, InterruptedRunError):
            errors.print(_INTERRUPTED_LINE, soft_wrap=True)
            return _INTERRUPTED
        expected: Exception | None = error
        if isinstance(error, ImportError):
            command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
            expected = extras.explained(error, f"vidal {command}".strip(), _EXTRAS.get(command))
        if not isinstance(expected, VidalError):
            raise
        errors.print(f"vidal: {expected}", markup=False, highlight=False, soft_wrap=True)
        return expected.exit_code
    finally:
        if is_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
