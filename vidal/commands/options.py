"""Options shared by several commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vidal.errors import UserError

if TYPE_CHECKING:
    from vidal.build import How


class ManyValues(TyperCommand):
    """A command whose ``--data`` takes several values: ``--data A B``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments after rewriting ``--data A B`` to ``--data A --data B``."""
        # Click's options take a fixed number of values only.
        spread: list[str] = []
        is_open = has_value = False
        for arg in args:
            if arg == "--data":
                is_open, has_value = True, False
                continue
            if arg.startswith("-"):
                is_open = False
            spread += ["--data", arg] if is_open else [arg]
            has_value = has_value or is_open
        # A last --data without a value stays, for Typer to complain about it.
        return super().parse_args(ctx, spread if has_value or "--data" not in args else [*spread, "--data"])


class EngineChoice(StrEnum):
    """The engines that run the stages."""

    ray = "ray"
    local = "local"


DirArgument = Annotated[str, typer.Argument(metavar="DIR", help="Dataset: a folder or an address such as s3://…")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
RecipeArgument = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).")]
OutOption = Annotated[str, typer.Option(help="Dataset to write: a folder or an address such as s3://…")]
EngineOption = Annotated[EngineChoice, typer.Option(help="Run on Ray, or in local processes.")]
WhereOption = Annotated[
    str | None, typer.Option(metavar="COND", help='Condition on manifest columns: "blur < 0.3 and has_audio"')
]


def _allow(prefixes: list[str] | None) -> list[str] | None:
    """Before a command runs: what it reads may name modules of these packages."""
    from vidal import modality as modalities

    for prefix in prefixes or ():
        modalities.allow(prefix)
    return prefixes


AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-module", metavar="PREFIX", envvar="VIDAL_ALLOW_MODULES", callback=_allow,
        help="Package that the dataset or run may import, for stages, models or modalities of its own.",
    ),
]  # fmt: skip
WorkersOption = Annotated[
    int | None, typer.Option(help="Worker processes; by default one per core. 0 with --engine local: none.")
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to join; by default $RAY_ADDRESS, else a private Ray.")
]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting of the recipe.")
]
DataOption = Annotated[
    list[str], typer.Option("--data", metavar="DIR...", help="Datasets: folders or addresses; several may follow.")
]


def how_of(engine: EngineChoice, workers: int | None, ray_address: str | None) -> How:
    """Return where to run the stages; raises `UserError` for --ray-address without --engine ray."""
    from vidal.build import How

    if ray_address and engine is EngineChoice.local:
        raise UserError("--ray-address needs --engine ray")
    return How(engine=engine.value, workers=workers, ray_address=ray_address)
