"""Training and what a trained encoder is used for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands.options import (
    AllowOption,
    DataOption,
    DirArgument,
    JsonOption,
    ManyValues,
    SettingsOption,
    WhereOption,
)
from vidal.commands.terminal import console, show
from vidal.errors import InterruptedRunError, UserError, VidalError

app = typer.Typer()
command = partial(app.command, rich_help_panel="Train")

_MAIN_RANK_TELLS_S = 20.0


class SplitChoice(StrEnum):
    """Which part of a dataset is evaluated on."""

    auto = "auto"
    held_out = "held_out"
    train = "train"
    all = "all"


@command(cls=ManyValues)
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML).")],
    data: DataOption,
    out: Annotated[str, typer.Option(metavar="RUN", help="Folder of the run: checkpoints and log.")],
    where: WhereOption = None,
    settings: SettingsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's last checkpoint.")] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Train without the samples of damaged shards, and count them.")
    ] = False,
    removals: Annotated[Path | None, typer.Option(help="List of clips that must not be trained on.")] = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train encoders on datasets; `torchrun --nproc-per-node N -m vidal train …` uses N processes."""
    from vidal.train import recipe as recipes
    from vidal.train.run import train as train_run

    with (
        _said_once(),
        _going_on("the same command continues" if resume else "the same command with --resume continues"),
    ):
        result = train_run(
            recipes.load(recipe, settings or []), data, out, console, where=where, resume=resume,
            skip_damaged=skip_damaged, removals=removals, quiet=as_json,
        )  # fmt: skip
        if _rank() == 0:
            show(result, as_json)
        if result.was_interrupted:
            raise KeyboardInterrupt


@command(name="eval", cls=ManyValues)
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    data: Annotated[list[str], typer.Option("--data", metavar="DIR", help="The dataset to evaluate on.")],
    where: WhereOption = None,
    split: Annotated[
        SplitChoice, typer.Option(help="auto: the held-out part of what was trained on, all of anything else.")
    ] = SplitChoice.auto,
    one_per_caption: Annotated[
        bool, typer.Option("--one-per-caption", help="One clip for each distinct caption.")
    ] = False,
    max_clips: Annotated[int | None, typer.Option(min=2, metavar="N", help="Evaluate on at most N clips.")] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Zero-shot classification too, by this column of classes.")
    ] = None,
    templates: Annotated[Path | None, typer.Option(help="Prompts for --classes, one a line, with {c}.")] = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate retrieval in both directions for every modality pair, alongside the untrained baseline."""
    from vidal.train.evaluate.run import evaluate as evaluate_run

    if len(data) > 1:
        raise UserError(f"--data {' '.join(data)}: one dataset; ranks among clips of several are not comparable")
    result = evaluate_run(
        run, data[0], where=where, split=split.value, one_per_caption=one_per_caption, max_clips=max_clips,
        classes=classes, templates=templates,
    )  # fmt: skip
    show(result, as_json)


@command()
def embed(
    directory: DirArgument,
    checkpoint: Annotated[str, typer.Option(metavar="C", help="A training run, or an encoder's folder.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the embeddings: Parquet, one file a shard.")],
    where: WhereOption = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of a dataset's clips, for every modality that the encoder has."""
    from vidal.retrieval.embed import embed as embed_dataset

    show(embed_dataset(directory, checkpoint, out, where=where), as_json)


@command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words, or the path of an image or audio file.")],
    embeddings: Annotated[str, typer.Option(metavar="DIR", help="Folder of `vidal embed`.")],
    checkpoint: Annotated[str | None, typer.Option(metavar="C", help="By default the one that made them.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality to search; by default every one.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Clips to show.")] = 10,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find clips by words, by an image or by audio."""
    from vidal.retrieval.search import search as search_embeddings

    show(search_embeddings(query, embeddings, checkpoint=checkpoint, modality=modality, top=top), as_json)


class EncoderFormat(StrEnum):
    """What an encoder is exported as."""

    hugging_face = "hugging-face"
    onnx = "onnx"


@command()
def export_encoder(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A training run, or an encoder's folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the encoder.")],
    format: Annotated[
        EncoderFormat, typer.Option(help="A folder in Hugging Face's layout, or one ONNX file a modality.")
    ] = EncoderFormat.hugging_face,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained encoder for use elsewhere, adapters folded in."""
    from vidal.train import load_encoder
    from vidal.train.towers.export import write_encoder

    show(write_encoder(load_encoder(run), out, format.value), as_json)


@contextmanager
def _going_on(how: str) -> Iterator[None]:
    """Say after Ctrl-C which command continues a run, where it is not the same one."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; what was saved stays, {how} from there") from None


@contextmanager
def _said_once() -> Iterator[None]:
    """Under torchrun most errors come to every rank: the main one tells them, and torchrun ends the others."""
    try:
        yield
    except VidalError:
        if _rank() > 0:
            # Still here after that: the error is this rank's alone, and is told.
            time.sleep(_MAIN_RANK_TELLS_S)
        raise


def _rank() -> int:
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
