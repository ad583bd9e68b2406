"""The commands about stages and models, and the check of the machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands.options import JsonOption, SettingsOption
from vidal.commands.terminal import say, show

app = typer.Typer()
command = partial(app.command, rich_help_panel="Models")


@command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Recipe whose models are loaded and checked.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder or address of a dataset, such as s3://bucket/folder, to check for its lock."),
    ] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, FFmpeg, Ray, cores, memory, and the models of a recipe."""
    from vidal.doctor import examine

    findings = examine(recipe, out, settings or [])
    show(findings, as_json)
    if not findings.is_well:
        raise typer.Exit(1)


def _completions(prefix: str) -> list[str]:
    from vidal.stages import CATALOGUE

    return [name for name in CATALOGUE if name.startswith(prefix)]


@command()
def stages(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Stage of the catalogue, or package.module:Class.", autocompletion=_completions
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the available stages, or show the settings, inputs and outputs of one."""
    from vidal.stages.describe import Catalogue, Description

    show(Catalogue.all() if name is None else Description.of(name), as_json)


models_app = typer.Typer(help="Manage the models of a recipe.", no_args_is_help=True)
app.add_typer(models_app, name="models", rich_help_panel="Models")


@models_app.command()
def pull(recipe: Annotated[Path, typer.Argument(metavar="RECIPE")]) -> None:
    """Download the models of a recipe that are missing on this machine, so that workers need no hub."""
    from vidal import doctor

    for line in doctor.pull(recipe):
        say(line)


@models_app.command()
def pin(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File to write; RECIPE itself by default.")] = None,
) -> None:
    """Ask the hub for the commit of each model of a recipe and write it as ID@COMMIT; nothing else changes."""
    from vidal import doctor

    for line in doctor.pin(recipe, out or recipe):
        say(line)
