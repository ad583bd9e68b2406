"""Commands of vidal, as a process of their own or in this one, and the processes that they leave."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest

from tests.runs import ROOT
from vidal.commands import app
from vidal.commands.terminal import console, errors, guarded, print_warning


def vidal(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """A vidal command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vidal", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "300", **(env or {})},
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def command(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process, under the same guard: two to four seconds of imports less than `vidal`.

    For tests of what a command says and does. Whoever tests a process (its death, its environment at import, what it
    prints through a child) takes `vidal`.
    """
    words, out, err = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Those of pytest make an error of a warning; a user's process prints it.
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        patch.setattr(warnings, "showwarning", print_warning)
        patch.chdir(cwd or ROOT)
        for name, value in {"COLUMNS": "300", **(env or {})}.items():
            patch.setenv(name, value)
        # A console keeps the COLUMNS that it found when it was made, which test processes may set.
        for each in (console, errors):
            patch.setattr(each, "_width", None)
        with redirect_stdout(out), redirect_stderr(err):
            code = guarded(lambda: app(words, standalone_mode=True))
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def start_vidal(*arguments: str | Path) -> subprocess.Popen[str]:
    """A vidal command under way, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vidal", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[psutil.Process]:
    """Every process below one, by process object, so that a reused id is no match."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def still_alive(processes: Iterable[psutil.Process], within_s: float = 20) -> list[psutil.Process]:
    """Those that do not end in time; a zombie has ended."""
    _, alive = psutil.wait_procs(list(processes), timeout=within_s)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
