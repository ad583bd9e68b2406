"""The commands that build a dataset, and those that estimate a build."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidal.commands import options
from vidal.commands.terminal import console, errors, say, show

if TYPE_CHECKING:
    from vidal.build import BuildResult

app = typer.Typer()
command = partial(app.command, rich_help_panel="Build")


def _templates(typed: str) -> list[str]:
    # Here and in every command, not at the top: help and completion must not wait for libraries.
    from vidal import templates

    return [name for name in templates.names() if name.startswith(typed)]


@command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Recipe to write.")] = Path("recipe.yaml"),
    template: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Template to start from; an unknown name lists them.", autocompletion=_templates
        ),
    ] = "own-videos",
    as_json: options.JsonOption = False,
) -> None:
    """Write a commented recipe to start from: for your own videos or, with --template, for a crawl or training run."""
    from vidal import templates

    show(templates.write(file, template), as_json)


@command()
def build(
    recipe: options.RecipeArgument,
    out: options.OutOption,
    engine: options.EngineOption = options.EngineChoice.ray,
    workers: options.WorkersOption = None,
    settings: options.SettingsOption = None,
    ray_address: options.RayAddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Build a dataset, or resume an incomplete build."""
    if errors.is_terminal and not as_json:
        # Printed first, because imports and the start of the engine take seconds.
        errors.print(f"{recipe} → {out}: starting", markup=False, highlight=False, soft_wrap=True)
    from vidal import recipe as recipes
    from vidal.build import build as build_dataset
    from vidal.models.inventory import require

    how = options.how_of(engine, workers, ray_address)
    if (crawl := recipes.crawl_first(recipe, settings or [])) is not None:
        # Before the crawl, which may take days.
        require(recipes.steps_of(recipe, settings or []))
        crawled = build_dataset(recipes.load(crawl.recipe, is_crawl=True), crawl.into, how, console, quiet=as_json)
        # A script reads one JSON document from a command, which is that of the dataset, if there comes to be one.
        if not as_json or crawled.verdict() is not None:
            show_build(crawled, as_json)
    result = build_dataset(recipes.load(recipe, settings or []), out, how, console, quiet=as_json)
    show_build(result, as_json)


@command()
def crawl(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe with a web source and `fetch`.")],
    out: options.OutOption,
    engine: options.EngineOption = options.EngineChoice.local,
    workers: options.WorkersOption = None,
    settings: options.SettingsOption = None,
    ray_address: options.RayAddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Find candidates on the web, filter them, and download their media into a dataset to build from.

    The candidates come from untrusted lists: unless the recipe sets `fetch.schemes`, they may name web addresses only,
    not local files or object stores. By default a crawl runs without Ray.
    """
    from vidal import recipe as recipes
    from vidal.build import build as build_dataset

    how = options.how_of(engine, workers, ray_address)
    result = build_dataset(recipes.load(recipe, settings or [], is_crawl=True), out, how, console, quiet=as_json)
    show_build(result, as_json)


@command()
def retry(
    directory: options.DirArgument,
    reason: Annotated[
        list[str] | None, typer.Option(help="Failure reason to retry; by default all transient ones.")
    ] = None,
    clip: Annotated[list[str] | None, typer.Option(help="Id of a clip to retry.")] = None,
    engine: options.EngineOption = options.EngineChoice.ray,
    workers: options.WorkersOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY.PATH=VALUE",
            help="What is not stored: fetch.cookies, fetch.proxy; another removals=FILE",
        ),
    ] = None,
    ray_address: options.RayAddressOption = None,
    allow_module: options.AllowOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Retry failed clips; all others are untouched."""
    from vidal.build import retry as retry_clips

    how = options.how_of(engine, workers, ray_address)
    result = retry_clips(
        directory, how, console, reasons=reason or [], clip_ids=clip or [], settings=settings or [], quiet=as_json
    )
    show_build(result, as_json)


@command()
def profile(
    recipe: options.RecipeArgument,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Profile to write.")] = Path("profile.json"),
    clips: Annotated[int, typer.Option(min=2, help="Candidates to build.")] = 32,
    engine: options.EngineOption = options.EngineChoice.ray,
    workers: options.WorkersOption = None,
    settings: options.SettingsOption = None,
    ray_address: options.RayAddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Build a few candidates of a recipe, keep no media, and write what each stage needs: the profile for `vidal plan`.

    Run it on a machine like those of the cluster, with as many workers as one of them will have.
    """
    from vidal.estimate.measure import profile as measure

    how = options.how_of(engine, workers, ray_address)
    result = measure(recipe, how, console, clips=clips, settings=settings or [], quiet=as_json)
    result.write(out)
    show(result, as_json)
    if not as_json:
        say(f"wrote {out}")


@command()
def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe that was profiled.")],
    clips: Annotated[int, typer.Option(min=1, help="Candidates of the build.")],
    cluster: Annotated[
        str, typer.Option(metavar="SPEC", help="Machines: 10xcpu16,2xgpu1, or a .yaml file (docs/scale.md).")
    ],
    file: Annotated[Path, typer.Option("--profile", metavar="FILE.json", help="What `vidal profile` wrote.")] = Path(
        "profile.json"
    ),
    settings: options.SettingsOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Estimate time, storage, requests, GPU hours and cost of a build on a cluster, and its bottleneck."""
    from vidal.estimate.cluster import Cluster
    from vidal.estimate.forecast import forecast
    from vidal.estimate.profile import Profile

    profiled = Profile.read(file)
    profiled.check(recipe, settings or [])
    show(forecast(profiled, Cluster.parse(cluster), clips), as_json)


@command()
def terms(
    inputs: Annotated[
        list[str], typer.Argument(metavar="[SOURCE=]FILE[:FIELD]...", help="Captions: txt, csv, tsv, jsonl, parquet.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="File to write the terms to.")],
    number: Annotated[int, typer.Option(min=1, help="Number of terms to select.")] = 100_000,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:FIELD]", help="Captions of a benchmark to exclude.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Plot of the frequencies before and after balancing.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="min_count, max_share, clips_per_term …")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Select search terms for a crawl from captions and labels, balanced over their nouns and verbs."""
    from vidal.settings import parse_override, validate
    from vidal.terms.build import Order, build
    from vidal.terms.captions import Input
    from vidal.terms.settings import TermSettings
    from vidal.terms.tagger import HanTaTagger

    overrides = dict(parse_override(text, "min_count=5") for text in settings or [])
    order = Order(
        inputs=[Input.parse(text) for text in inputs],
        exclude=[Input.parse(text) for text in exclude or []],
        settings=validate(TermSettings, {"number": number, **overrides}, "terms"),
        out=out,
        plot=plot,
    )
    account = build(order, HanTaTagger())
    show(account, as_json)
    if not as_json:
        say(f"wrote {out}" + (f" and {plot}" if plot else ""))


def show_build(result: BuildResult, as_json: bool) -> None:
    """Print the result of a build; raises an error if every candidate failed."""
    show(result, as_json)
    if (verdict := result.verdict()) is not None:
        raise verdict
