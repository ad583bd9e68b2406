"""The commands that revise a finished dataset in place."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands import options
from vidal.commands.build import show_build
from vidal.commands.terminal import console, show

app = typer.Typer()
command = partial(app.command, rich_help_panel="Revise")


@command()
def add(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe that has only `stages`, no `source`.")],
    directory: options.DirArgument,
    engine: options.EngineOption = options.EngineChoice.ray,
    workers: options.WorkersOption = None,
    settings: options.SettingsOption = None,
    ray_address: options.RayAddressOption = None,
    allow_module: options.AllowOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Run additional stages on a finished dataset, adding their columns and layers as a new revision."""
    from vidal.build import add as add_stages

    how = options.how_of(engine, workers, ray_address)
    show_build(add_stages(recipe, directory, how, console, settings=settings or [], quiet=as_json), as_json)


@command()
def grow(
    directory: options.DirArgument,
    source: Annotated[
        list[str], typer.Option(metavar="KIND=VALUE", help="Source of the candidates: list=more.csv, folder=DIR …")
    ],
    engine: options.EngineOption = options.EngineChoice.ray,
    workers: options.WorkersOption = None,
    settings: options.SettingsOption = None,
    ray_address: options.RayAddressOption = None,
    allow_module: options.AllowOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Build additional candidates with the dataset's own recipe, as new shards in a new revision."""
    from vidal.build import grow as grow_dataset

    how = options.how_of(engine, workers, ray_address)
    result = grow_dataset(directory, source, how, console, settings=settings or [], quiet=as_json)
    show_build(result, as_json)


@command()
def refilter(
    directory: options.DirArgument,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="STAGE.SETTING=VALUE", help="A threshold: too_long.max_s=15")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change without writing it.")] = False,
    allow_module: options.AllowOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Apply new thresholds to the stored values, as a new revision; no media is read or written."""
    from vidal.revisions.refilter import refilter as refilter_dataset

    show(refilter_dataset(directory, settings, dry_run=dry_run), as_json)


@command()
def revisions(
    directory: options.DirArgument,
    # From 1: revision 0 is the dataset as it was built, of which every other one shares tars.
    drop: Annotated[int | None, typer.Option(min=1, metavar="N", help="Delete revision N with all its files.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the revisions of a dataset; DIR@N names revision N, DIR the last complete one."""
    from vidal.revisions import revise

    if drop is not None:
        revise.drop(directory, drop)
    show(revise.listed(directory), as_json)
