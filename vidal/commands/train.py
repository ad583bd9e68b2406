"""The commands that train encoders, evaluate them, and use them for search."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

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

WorkersOption = Annotated[
    int, typer.Option(min=0, metavar="N", help="Decoding processes; 0 decodes in the process itself.")
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU where there is one.")]

app = typer.Typer()
command = partial(app.command, rich_help_panel="Train")

_MAIN_RANK_REPORTS_S = 20.0


@command(cls=ManyValues)
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML).")],
    data: DataOption,
    out: Annotated[
        str, typer.Option(metavar="RUN", help="Folder or address, such as s3://…, to write checkpoints and logs to.")
    ],
    where: WhereOption = None,
    settings: SettingsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's last checkpoint.")] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Skip and count the samples of damaged shards.")
    ] = False,
    removals: Annotated[Path | None, typer.Option(help="List of clips to exclude from training.")] = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train encoders on datasets; `torchrun --nproc-per-node N -m vidal train …` trains on N processes."""
    # Here, not at the top: torch takes seconds to import, and every other command would wait for it.
    from vidal.train import recipe as recipes
    from vidal.train.run import train as train_run

    with _reported_once():
        try:
            result = train_run(
                recipes.load(recipe, settings or []), data, out, console, where=where, resume=resume,
                skip_damaged=skip_damaged, removals=removals, quiet=as_json,
            )  # fmt: skip
            if _rank() == 0:
                show(result, as_json)
            if result.was_interrupted:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            hint = "the same command resumes" if resume else "the same command with --resume resumes"
            raise InterruptedRunError(f"interrupted; checkpoints are kept, and {hint} from the last one") from None


@command(cls=ManyValues)
def ablate(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML) that the arms change.")],
    data: DataOption,
    arms: Annotated[
        Path, typer.Option(metavar="ARMS", help="Arms (YAML): what each changes; the first is compared to.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the runs, the plot and the chosen recipe.")],
    where: WhereOption = None,
    settings: SettingsOption = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Runs of each arm, with seeds one after another.")] = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Steps of every run, in place of the recipe's length.")
    ] = None,
    device: DeviceOption = "auto",
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the effect of a choice: train arms that differ only in it and compare them on the same held-out clips."""
    from vidal.ablate.arms import design
    from vidal.ablate.run import ablate as ablate_arms

    told = design(recipe, arms, data, where=where, overrides=settings or [], steps=steps)
    try:
        found = ablate_arms(told, out, Console(quiet=True) if as_json else console, seeds=seeds, device=device)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; finished runs are kept, and the same command resumes") from None
    show(found, as_json)


@command(name="eval", cls=ManyValues)
def evaluate(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="C...", help="Training run (RUN@best: its best checkpoint), or encoders with one text tower."
        ),
    ],
    # A list, as Click lets the last of several options win without a word; a second one is rejected below.
    data: Annotated[list[str], typer.Option("--data", metavar="DIR", help="The dataset to evaluate on.")],
    where: WhereOption = None,
    split: Annotated[
        Literal["auto", "held_out", "train", "all"],
        typer.Option(help="auto: the held-out part of a training dataset, all of any other."),
    ] = "auto",
    one_per_caption: Annotated[
        bool, typer.Option("--one-per-caption", help="Use only the first clip of each distinct caption.")
    ] = False,
    max_clips: Annotated[int | None, typer.Option(min=2, metavar="N", help="Evaluate on at most N clips.")] = None,
    views: Annotated[
        str | None,
        typer.Option(metavar="VIEWS", help="Texts to retrieve by: caption, mix, or text views such as raw,transcript."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of classes for zero-shot classification.")
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(help="All classes for --classes, one per line: the label, or label, tab and name in prompts."),
    ] = None,
    templates: Annotated[Path | None, typer.Option(help="Prompts for --classes, one per line, with {c}.")] = None,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate retrieval in both directions for every modality pair; of a run also its untrained baseline."""
    from vidal.train.data.text_views import TextViews
    from vidal.train.evaluate.run import evaluate as evaluate_run

    if len(data) > 1:
        raise UserError(f"--data {' '.join(data)}: takes one dataset; ranks over several are not comparable")
    with _reported_once():
        result = evaluate_run(
            checkpoints, data[0], where=where, split=split, one_per_caption=one_per_caption, max_clips=max_clips,
            views=TextViews.named(views) if views else None, classes=classes, class_names=class_names,
            templates=templates, workers=workers, device=device,
        )  # fmt: skip
    if _rank() == 0:
        show(result, as_json)


@command()
def embed(
    directory: DirArgument,
    checkpoint: Annotated[str, typer.Option(metavar="C", help="Training run or encoder folder.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder to write embeddings to, one Parquet file per shard.")],
    where: WhereOption = None,
    views: Annotated[
        str | None,
        typer.Option(metavar="VIEWS", help="Embed texts, too: caption, mix, or text views such as caption,raw."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32.")] = False,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the embeddings of a dataset's clips for every modality of the encoder."""
    from vidal.retrieval.embed import embed as embed_dataset
    from vidal.train.data.text_views import TextViews

    result = embed_dataset(
        directory, checkpoint, out, where=where, views=TextViews.named(views) if views else None, half=half,
        workers=workers, device=device,
    )  # fmt: skip
    show(result, as_json)


@command()
def reinforce(
    directory: DirArgument,
    checkpoint: Annotated[str, typer.Option(metavar="C", help="Training run or encoder folder: the teacher.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the teacher in recipes; by default the last part of --checkpoint.")
    ] = None,
    views: Annotated[
        str, typer.Option(metavar="VIEWS", help="Texts to embed: caption, mix, or text views such as caption,raw.")
    ] = "mix",
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a teacher's embeddings of clips and texts into their dataset, to distil from (`distil.teachers`)."""
    from vidal.retrieval.reinforce import reinforce as reinforce_dataset
    from vidal.train.data.text_views import TextViews

    result = reinforce_dataset(
        directory, checkpoint, name, views=TextViews.named(views), workers=workers, device=device
    )
    show(result, as_json)


@command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Text, or the path of an image or audio file.")],
    embeddings: Annotated[str, typer.Option(metavar="DIR", help="Output folder of `vidal embed`.")],
    checkpoint: Annotated[
        str | None, typer.Option(metavar="C", help="Encoder; by default the one that wrote the embeddings.")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="Modality to search; by default all.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of clips to show.")] = 10,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search clips by text, image or audio."""
    from vidal.retrieval.search import search as search_embeddings

    show(search_embeddings(query, embeddings, checkpoint=checkpoint, modality=modality, top=top), as_json)


@command()
def export_encoder(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Training run or encoder folder.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the encoder to.")],
    format: Annotated[
        Literal["hugging-face", "onnx"],
        typer.Option(help="A folder in Hugging Face layout, or one ONNX file per modality."),
    ] = "hugging-face",
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained encoder, with adapters folded in."""
    from vidal.train import load_encoder
    from vidal.train.towers.export import write_encoder

    show(write_encoder(load_encoder(run), out, format), as_json)


@contextmanager
def _reported_once() -> Iterator[None]:
    """Under torchrun most errors and warnings occur on every rank: rank 0 reports them.

    After an error, torchrun ends the other ranks meanwhile.
    """
    try:
        with warnings.catch_warnings():
            if _rank() > 0:
                warnings.simplefilter("ignore")
            yield
    except VidalError:
        if _rank() > 0:
            # A rank that is still alive after this is the only one with the error, and reports it.
            time.sleep(_MAIN_RANK_REPORTS_S)
        raise


# From torchrun's environment, which is there before the process group is set up and after it is torn down.
def _rank() -> int:
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
