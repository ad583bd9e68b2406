"""The commands that inspect, export and index datasets, and remove clips from them."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands.options import AllowOption, DirArgument, JsonOption, WhereOption
from vidal.commands.terminal import show
from vidal.errors import UserError
from vidal.report.by import By

app = typer.Typer()
command = partial(app.command, rich_help_panel="Look")


@command()
def status(
    directory: DirArgument,
    by: Annotated[
        By | None, typer.Option(help="What to count a crawl's candidates, failures and kept clips by.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the progress of a build, the funnel of its committed shards, and a crawl's results by host."""
    from vidal.dataset.dataset import Dataset
    from vidal.report.summary import Status

    show(Status.of(Dataset.open(directory), by), as_json)


# A clip id may begin with a hyphen, and must not be parsed as an option.
@command(context_settings={"ignore_unknown_options": True})
def why(
    directory: DirArgument,
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="Clip id, a prefix of one, or a URL.")],
    as_json: JsonOption = False,
) -> None:
    """Show whether a clip was kept, rejected or failed, the reason, and its manifest row."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.find import find
    from vidal.dataset.revisions import INFO_NAME

    # The other order is that of earlier versions.
    if "://" not in directory and not Path(directory, INFO_NAME).exists() and Path(clip, INFO_NAME).exists():
        raise UserError(f"{directory} is no dataset and {clip} is one; the dataset comes first: vidal why {clip} CLIP")
    show(find(Dataset.open(directory), clip), as_json)


@command()
def report(
    directory: DirArgument,
    out: Annotated[Path | None, typer.Option(help="HTML file to write; by default ./report.html.")] = None,
    max_clips: Annotated[int, typer.Option(min=1, help="Maximum number of contact sheets.")] = 100,
    where: WhereOption = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML report: the funnel, and contact sheets of at most --max-clips kept clips."""
    from vidal import modality as modalities
    from vidal.dataset.dataset import Dataset
    from vidal.export.export import selected_clips
    from vidal.report.page import write_report
    from vidal.report.summary import crawls_of, stage_order

    dataset = Dataset.open(directory)
    modalities.load_recorded(dataset.info.modalities, directory, dataset.info.layers)
    result = write_report(
        dataset.rows(), dataset.read_member, out or Path("report.html"), title=dataset.info.name,
        stage_order=stage_order(dataset), declared=dataset.info.columns, max_clips=max_clips, where=where,
        selected=selected_clips(dataset, where), crawls=crawls_of(dataset),
    )  # fmt: skip
    show(result, as_json)


@command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="Dataset, or a revision of one: DIR or DIR@N.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The dataset or revision to compare it with.")],
    limit: Annotated[int, typer.Option(min=0, help="Most numbers, texts and example clips to list.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare two datasets, builds or revisions: clips added and dropped and why, numbers, texts, settings."""
    from vidal.dataset.dataset import Dataset
    from vidal.diff.comparison import Comparison

    show(Comparison.of(Dataset.open(before), Dataset.open(after), limit), as_json)


@command()
def view(
    directory: DirArgument,
    against: Annotated[
        str | None, typer.Option(metavar="DIR", help="Earlier dataset or revision to compare it with.")
    ] = None,
    embeddings: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of `vidal embed`, to compare clips by.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    allow_module: AllowOption = None,
) -> None:
    """Show a dataset in a browser, from a server reachable only from this machine; Ctrl-C stops it."""
    import webbrowser

    from vidal import modality as modalities
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.storage import Storage
    from vidal.view.api import Api
    from vidal.view.server import Server, serve

    dataset = Dataset.open(directory)
    modalities.load_recorded(dataset.info.modalities, directory, dataset.info.layers)
    other = Dataset.open(against) if against is not None else None
    server = Server(Api(dataset, other, Storage(embeddings) if embeddings is not None else None), port)
    print(server.url, flush=True)
    if not no_browser:
        webbrowser.open(server.url)
    serve(server)


@command()
def verify(directory: DirArgument, as_json: JsonOption = False) -> None:
    """Verify rows, members, checksums and alignment of a dataset; exit code 1 if anything is wrong."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.verify import Verification

    result = Verification.of(Dataset.open(directory))
    show(result, as_json)
    if not result.is_well:
        raise typer.Exit(1)


class ExportFormat(StrEnum):
    """The formats that a dataset can be exported to."""

    joint = "joint"
    open_clip = "open-clip"
    vidal_json = "vidal-json"
    huggingface = "huggingface"
    lance = "lance"
    croissant = "croissant"
    licences = "licences"
    training_summary = "training-summary"


def _export_format(text: str) -> ExportFormat:
    # The formats of earlier versions, which exported training runs with this command, too.
    if text in ("encoder", "onnx"):
        raise UserError(f"--format {text}: a training run is exported by `vidal export-encoder RUN --out DIR`")
    try:
        return ExportFormat(text)
    except ValueError:
        raise UserError(f"--format {text}: choose from {', '.join(ExportFormat)}") from None


@command()
def export(
    directory: DirArgument,
    out: Annotated[str, typer.Option(help="Folder to write to, or file for vidal-json and croissant.")],
    format: Annotated[
        ExportFormat,
        typer.Option(
            parser=_export_format,
            metavar="|".join(ExportFormat),
            help="One tar per shard with all modalities; frame-caption pairs for open_clip; VIDAL-10M's JSON; Parquet "
            "with media for Hugging Face; a Lance table; Croissant metadata; ledger of licences and credits; draft of "
            "the EU's summary of training content.",
        ),
    ] = ExportFormat.joint,
    where: WhereOption = None,
    allow_module: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a dataset to another format; repeating the command resumes an interrupted export."""
    from vidal.dataset.dataset import Dataset
    from vidal.export.formats import WRITERS

    show(WRITERS[format](Dataset.open(directory), out, where), as_json)


class Reposts(StrEnum):
    """What becomes of clips that repeat a removed one."""

    list = "list"
    remove = "remove"


@command()
def remove(
    directory: DirArgument,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="FILE", help="List of clip ids and URLs: text, csv, jsonl or parquet."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="COND", help='Condition on manifest columns instead of a list: "flag_remove"')
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Export, embeddings, or dataset of the same clips to remove them from, too; or "
            "training run, whose checkpoints are named.",
        ),
    ] = None,
    reposts: Annotated[
        Reposts, typer.Option(help="Whether clips with the same file or frames are listed, or removed, too.")
    ] = Reposts.list,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Certificate to write, as JSON and as text beside it.")
    ] = None,
    requested_by: Annotated[str | None, typer.Option(metavar="NAME", help="Who asked, for the certificate.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit with 0 even if the dataset lacks some of them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove clips from a dataset and from what was made from it, and verify the result."""
    from vidal.dataset import removals
    from vidal.removal.follow import follow, selected

    if ids is not None and where is None:
        named = removals.load(ids)
    elif where is not None and ids is None:
        named = selected(directory, where)
    else:
        raise UserError("no clips named; use --ids FILE or --where CONDITION")
    result = follow(
        directory, named, also=also or (), reposts=reposts.value, certificate=certificate,
        requested_by=requested_by,
    )  # fmt: skip
    show(result, as_json)
    if result.remains or (result.missing and not allow_missing):
        raise typer.Exit(1)


@command()
def index(
    tars: Annotated[list[str], typer.Argument(metavar="TARS...", help="WebDataset tars: paths, globs or addresses.")],
    out: Annotated[str, typer.Option(help="Folder to write the manifest to; the tars stay where they are.")],
    modality: Annotated[
        list[str] | None, typer.Option(metavar="PACKAGE.MODULE:NAME", help="Custom modality to look for.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a manifest for existing WebDataset tars, so that they can be read and trained on like any dataset."""
    from vidal import modality as modalities
    from vidal.reader.index import write_index

    for path in modality or ():
        modalities.load(path)
    show(write_index(tars, out), as_json)
