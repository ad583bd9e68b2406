"""The command line, a thin layer over the library; each file holds the commands of one help panel."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

import vidal
from vidal.commands import build, look, models, revise, train
from vidal.commands.terminal import console, guarded, print_warning

# Typer's own tracebacks show the values of local variables, and secrets may be among them.
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
    """Run the command line and exit: code 0, 1 for an environment error, 2 for a usage error, 130 if interrupted."""
    warnings.showwarning = print_warning
    code = guarded(lambda: app(standalone_mode=True))
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: all workers have ended by now, and native thread pools may abort during interpreter shutdown,
    # which would give a successful build the exit code of a crash.
    os._exit(code)
