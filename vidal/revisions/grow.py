"""`vidal grow`: adds further candidates to a finished dataset, as shards after the existing ones.

The new candidates are built with the dataset's own recipe, as a dataset within the revision (``revisions/2/grown``).
The revision has the existing manifests unchanged, followed by the new ones, renumbered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vidal import recipe as recipes
from vidal.clip import Clip, manifest_schema, schema
from vidal.dataset import manifest, revisions
from vidal.dataset import plan as plans
from vidal.dataset.dataset import Dataset, read_info
from vidal.dataset.digests import digests_of
from vidal.dataset.removals import Removals
from vidal.engine.driver import Run, build, check_secrets
from vidal.errors import UserError
from vidal.recipe import Recipe, fingerprint
from vidal.record import from_row
from vidal.revisions.revise import begin, finish, locked, shared_tars, unfinished, write_manifest
from vidal.rows import Stream
from vidal.stage import Decision

COMMAND = "vidal grow"


def load(base: Dataset, source: Sequence[str], settings: Sequence[str]) -> Recipe:
    """Return the dataset's recipe over another source, with decisions that give existing clips precedence.

    Raises `UserError` for a source that is not written ``kind=value``.
    """
    place = f"{base.address}/dataset.json"
    if odd := next((text for text in source if "=" not in text), None):
        raise UserError(f"--source {odd}: write kind=value, such as list=more.csv")
    overrides = [*(f"source.{text}" for text in source), *settings]
    recipe = recipes.again(base.info.definition, overrides, place)
    check_secrets(recipe, base.info.secrets, base.address)
    steps = [step.after([base.address]) if isinstance(step, Decision) else step for step in recipe.steps]
    return dataclasses.replace(recipe, steps=tuple(steps))


def grow(run: Run, base: Dataset, source: Sequence[str]) -> None:
    """Build the candidates of the source that are new, and make the whole the current revision of the dataset.

    ``run.storage`` is ignored; ``source`` is recorded in the revision. Raises `NothingNewError` if no candidate is new,
    and `VidalError`; shards committed before the error stay, and the same command resumes.
    """
    with locked(base, run.progress.line) as base:
        number = revisions.current(base.storage) + 1
        within = base.storage.child(revisions.folder_of(number))
        if (other := read_info(within)) and not other.made_by.startswith(COMMAND):
            raise unfinished(base.storage, number, other.made_by)
        storage = within.child(revisions.GROWN)
        # Left out by id, so that a source may name all that the dataset has, such as the same list made longer.
        ids = (batch["clip_id"].to_pylist() for batch in base.plan.parts(["clip_id"]).to_batches())
        known = np.concatenate([np.empty((0, 2), np.uint64), *map(digests_of, ids)])
        build(dataclasses.replace(run, storage=storage, known=known, removed=Removals.of(base)))
        revision = _begin(base, Dataset.at(storage), number, " ".join([COMMAND, *source]))
        _write(revision, base, Dataset.at(storage))
        finish(revision)


def _begin(base: Dataset, grown: Dataset, number: int, made_by: str) -> Dataset:
    info, folder = base.info, f"{revisions.folder_of(number)}/{revisions.GROWN}"
    tar_folders = shared_tars(base)
    for layer in grown.info.layers:
        place = revisions.TarFolder(first_shard=info.shards, folder=folder)
        tar_folders[layer] = [*tar_folders.get(layer, []), place]
    # The new candidates follow the existing ones, in shards of their own: no existing shard changes.
    plan = _plan_of_both(base, grown)
    # With the grown dataset's fingerprint: a resume over another source must not finish this revision.
    resolved = {**info.recipe, "revision_of": info.fingerprint, "grown_by": grown.info.fingerprint}
    return begin(
        base,
        made_by=made_by,
        fingerprint=fingerprint(resolved),
        changes={
            "recipe": resolved,
            "layers": list(dict.fromkeys([*info.layers, *grown.info.layers])),
            "shards": info.shards + grown.info.shards,
            "candidates": info.candidates + grown.info.candidates,
            "columns": info.columns | grown.info.columns,
            "tar_folders": {layer: [place.model_dump() for place in places] for layer, places in tar_folders.items()},
            "carried": [*info.carried, info.fingerprint],
        },
        plan=(plan, [*base.plan.cuts, *grown.plan.cuts]),
    )


def _plan_of_both(base: Dataset, grown: Dataset) -> Stream:
    old, new = plans.to_add_to(base.plan), plans.to_add_to(grown.plan)
    # Permissive, as the new source may have columns that the first one lacked, and lack some of its.
    empty = pa.unify_schemas([old.schema, new.schema], promote_options="permissive").empty_table()

    def read() -> Iterator[pa.RecordBatch]:
        in_base = {"shard": base.info.shards, "position": base.info.candidates}
        for plan, firsts in ((old, {}), (new, in_base)):
            for batch in plan.to_batches():
                part = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                for name, first in firsts.items():
                    part = part.set_column(part.schema.get_field_index(name), name, pc.add(part[name], first))
                yield from pa.concat_tables([empty, part], promote_options="permissive").combine_chunks().to_batches()

    # A list made longer repeats its notes.
    notes = [note for note in grown.plan.notes if note not in base.plan.notes]
    schema = plans.with_notes(plans.with_notes(empty.schema.remove_metadata(), base.plan.notes), notes)
    return Stream(schema, old.num_rows + new.num_rows, read)


def _write(revision: Dataset, base: Dataset, grown: Dataset) -> None:
    """Write the manifests that are still missing: a run that was killed has written some."""
    committed, extra = set(revision.committed()), revision.extra_schema
    names = {*schema().names, *extra.names}

    def clips_of(dataset: Dataset, shard: int) -> Iterator[Clip]:
        for row in dataset.table(shard).to_pylist():
            yield from_row({**dict.fromkeys(extra.names), **{name: row[name] for name in row if name in names}})

    for shard in (shard for shard in base.committed() if shard not in committed):
        data = base.manifest_bytes(shard)
        if not manifest.read_schema(data).equals(manifest_schema(extra)):
            # Written with an earlier schema, or from a source without some column.
            data = manifest.to_parquet(list(clips_of(base, shard)), extra, manifest.own_metadata(data))
        revision.own_storage.write(manifest.name_of(shard), data)
    for shard in grown.committed():
        number = base.info.shards + shard
        if number not in committed:
            clips = list(clips_of(grown, shard))
            for clip in clips:
                clip.shard, clip.position = number, clip.position + base.info.candidates
            write_manifest(revision, number, clips)
