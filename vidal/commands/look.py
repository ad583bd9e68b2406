"""What is in a dataset, in other shapes and without what was removed."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vidal.commands.options import AllowOption, DirArgument, JsonOption, WhereOption
from vidal.commands.terminal import console, print_json
from vidal.errors import UserError

app = typer.Typer()
command = partial(app.command, rich_help_panel="Look")


@command()
def status(directory: DirArgument, as_json: JsonOption = False) -> None:
    """Show the progress of a build, and the funnel of its committed shards."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.lock import run_under_way
    from vidal.report import summary

    dataset = Dataset.open(directory)
    funnel, order = summary.funnel_of(dataset), summary.stage_order(dataset)
    done, info, running = len(dataset.committed()), dataset.info, run_under_way(dataset.storage)
    phases = summary.phases(dataset)
    if as_json:
        print_json(
            {
                "revision": dataset.number, "manifest": dataset.manifest_address,
                "shards": info.shards, "shards_committed": done, "running": running,
                "phases": [{"shards": shards, "shards_committed": there} for there, shards in phases],
                **summary.as_json(funnel, order),
            }
        )  # fmt: skip
        return
    console.print(f"{info.name}: {done} of {info.shards} shards committed, layers {', '.join(info.layers)}")
    if done < info.shards and len(phases) > 1:
        told = ", ".join(f"phase {n}: {there} of {shards} shards" for n, (there, shards) in enumerate(phases, 1))
        console.print(told, highlight=False, soft_wrap=True)
    if dataset.number:
        line = f"revision {dataset.number}, by {info.made_by}; its manifest: {dataset.manifest_address}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if running:
        console.print(f"a run is under way: {running}", markup=False, highlight=False, soft_wrap=True)
    console.print(summary.as_table(funnel, order))


# An id may begin with a hyphen, which would make it an option.
@command(context_settings={"ignore_unknown_options": True})
def why(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="The clip's id, the beginning of it, or its url.")],
    directory: DirArgument,
    as_json: JsonOption = False,
) -> None:
    """Show the outcome of one clip, the reason, and its row."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.find import find

    row = find(Dataset.open(directory), clip)
    clip_id = row["clip_id"]
    if as_json:
        print_json({k: v for k, v in row.items() if k != "members"})
        return
    sentence = f"{clip_id} is {row['status']}"
    if row["status"] != "kept":
        sentence += f": stage {row['stage']}, {row['reason']} ({row['detail']})"
    if row["duplicate_of"]:
        sentence += f", repeats {row['duplicate_of']}"
    if row["is_transient"]:
        sentence += f"; another try may succeed: vidal retry {directory} --clip {clip_id}"
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for name, value in row.items():
        if value not in (None, [], "") and name not in ("clip_id", "members", "audio_fingerprint", "ocr_lines"):
            console.print(f"  {name}: {value}", markup=False, highlight=False, soft_wrap=True)


@command()
def report(
    directory: DirArgument,
    out: Annotated[Path | None, typer.Option(help="HTML file; by default ./report.html.")] = None,
    max_clips: Annotated[int, typer.Option(min=1, help="Contact sheets on the page.")] = 100,
    where: WhereOption = None,
    allow_module: AllowOption = None,
) -> None:
    """Write the funnel and contact sheets of up to --max-clips kept clips as one HTML file."""
    from vidal import modality as modalities
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.export import selected_clips
    from vidal.report.page import write_report
    from vidal.report.summary import stage_order

    dataset = Dataset.open(directory)
    modalities.load_recorded(dataset.info.modalities, directory, dataset.info.layers)
    target = out or Path("report.html")
    shown = write_report(
        dataset.rows(), dataset.read_member, target, title=dataset.info.name, stage_order=stage_order(dataset),
        declared=dataset.info.columns, max_clips=max_clips, where=where, selected=selected_clips(dataset, where),
    )  # fmt: skip
    left_out = f": {shown.most} of {shown.seen} clips, evenly chosen; --max-clips shows more"
    console.print(f"wrote {target}" + ("" if shown.is_all else left_out), soft_wrap=True)


@command()
def verify(directory: DirArgument, as_json: JsonOption = False) -> None:
    """Check rows, members and alignment of a dataset against its bytes; exit code 1 if anything is wrong."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.verify import verify as verify_dataset

    dataset = Dataset.open(directory)
    problems = list(verify_dataset(dataset))
    if as_json:
        found = [{"shard": p.shard, "key": p.key, "what": p.what} for p in problems]
        print_json({"ok": not problems, "shards": len(dataset.committed()), "problems": found})
    elif problems:
        for problem in problems:
            console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"{directory}: all {dataset.info.candidates} rows and their members are what they should be")
    if problems:
        raise typer.Exit(1)


class ExportFormat(StrEnum):
    """What `export` writes."""

    joint = "joint"
    open_clip = "open-clip"
    vidal_json = "vidal-json"
    encoder = "encoder"
    onnx = "onnx"


@command()
def export(
    directory: DirArgument,
    out: Annotated[str, typer.Option(help="Folder for tars, encoder and onnx; file for VIDAL's JSON.")],
    format: Annotated[
        ExportFormat,
        typer.Option(
            help="Of a dataset: joint, open-clip, vidal-json. Of a training run: encoder (Hugging Face folder), onnx."
        ),
    ] = ExportFormat.joint,
    where: WhereOption = None,
    allow_module: AllowOption = None,
) -> None:
    """Write a dataset or a trained encoder in another shape; the same export again completes it."""
    if format in (ExportFormat.encoder, ExportFormat.onnx):
        if where is not None:
            raise UserError(f"--where selects clips of a dataset; --format {format.value} exports a training run")
        _export_encoder(directory, Path(out), format)
        return
    from vidal.dataset import export as exports
    from vidal.dataset.dataset import Dataset

    dataset = Dataset.open(directory)
    if format is ExportFormat.joint:
        result = exports.write_joint(dataset, out, where)
    elif format is ExportFormat.open_clip:
        result = exports.write_open_clip(dataset, out, where)
    else:
        result = exports.write_vidal_json(dataset, Path(out), where)
    console.print(result.sentence(), markup=False, highlight=False, soft_wrap=True)


def _export_encoder(run: str, out: Path, format: ExportFormat) -> None:
    from vidal.train import load_encoder
    from vidal.train.towers.export import save_folder, to_onnx

    encoder = load_encoder(run)
    if format is ExportFormat.encoder:
        written = [save_folder(encoder, out)]
    else:
        out.mkdir(parents=True, exist_ok=True)
        written = [to_onnx(encoder, modality, out / f"{modality}.onnx") for modality in encoder.modalities]
    console.print(f"wrote {', '.join(map(str, written))}", soft_wrap=True)


@command()
def remove(
    directory: DirArgument,
    ids: Annotated[
        Path,
        typer.Option("--ids", metavar="FILE", help="Clip ids and urls (text), or csv, jsonl, parquet."),
    ],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Exit with 0 even if a name is nowhere in the dataset.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove clips from a dataset, rewriting only the shards that hold them, and verify it."""
    from vidal.dataset import removals
    from vidal.dataset.remove import remove as remove_clips

    result = remove_clips(directory, removals.load(ids))
    if as_json:
        print_json({"proven": result.is_proven, **dataclasses.asdict(result)})
    else:
        console.print(
            f"removed {len(result.clip_ids)} clips from {len(result.shards)} shards; "
            f"{result.untouched_files} files of other shards are what they were, "
            f"{len(result.remains)} places still hold a removed clip",
            soft_wrap=True,
        )
        for place in [*result.remains, *result.changed_files]:
            console.print(f"  {place}", markup=False, highlight=False, soft_wrap=True)
        for name in result.missing:
            console.print(f"nowhere in {directory}: {name}", markup=False, highlight=False, soft_wrap=True)
    if result.remains or result.changed_files or (result.missing and not allow_missing):
        raise typer.Exit(1)


@command()
def index(
    tars: Annotated[list[str], typer.Argument(metavar="TARS...", help="WebDataset tars: paths, globs or addresses.")],
    out: Annotated[str, typer.Option(help="Folder for the manifest; the tars stay where they are.")],
    modality: Annotated[
        list[str] | None, typer.Option(metavar="PACKAGE.MODULE:NAME", help="A modality of your own to look for.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a manifest over foreign WebDataset tars, so that they are read and trained on like any dataset."""
    from vidal import modality as modalities
    from vidal.reader.index import write_index

    for path in modality or ():
        modalities.load(path)
    result = write_index(tars, out)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        console.print(f"{out}: {result.sentence()}", markup=False, highlight=False, soft_wrap=True)
