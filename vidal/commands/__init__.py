"""The command line: a thin mirror of the library, one file for each panel of its help."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

import vidal
from vidal.commands import build, look, models, revise, train
from vidal.commands.terminal import console, guarded, print_warning

app = typer.Typer(name="vidal", no_args_is_help=True, pretty_exceptions_enable=False)
for panel in (build, revise, look, train, models):
    app.add_typer(panel.app)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"vidal {vidal.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Short online videos in, aligned video-infrared-depth-audio-language datasets out."""


def main() -> None:
    """Run a command; every error that is not a defect is one line and an exit code that means something."""
    warnings.showwarning = print_warning
    code = guarded(lambda: app(standalone_mode=True))
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything that was started has ended by now. Native thread pools may abort a process that is torn down in
    # the ordinary way, which would give a finished build the exit code of a crash.
    os._exit(code)
