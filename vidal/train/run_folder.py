"""`RunFolder`: the folder of a training run, on a local disk or at an address such as ``s3://bucket/run``.

RUN/run.json        recipe, data and towers: everything that the results depend on
RUN/split.parquet   clip_id, is_held_out: the clips of the run, independent of later changes to the dataset
RUN/log.jsonl       one line per step or event
RUN/wandb.json      id of the run at W&B, where it is logged there
RUN/checkpoints/    000500/ …
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

import vidal
from vidal import modality as modalities
from vidal.dataset.storage import Storage
from vidal.errors import OutputError, one_line
from vidal.settings import differences
from vidal.train.recipe import FREE_ON_RESUME, MAY_GROW_ON_RESUME, TrainRecipe, completed

NAME = "run.json"
SPLIT = "split.parquet"


class RunInfo(BaseModel):
    """The contents of ``run.json``."""

    recipe: dict[str, Any]
    where: str | None
    """The filter on manifest columns, as given by ``--where``."""
    data: list[dict[str, Any]]
    """Address, fingerprint and number of samples of each dataset."""
    encoder: dict[str, Any]
    """Description of the towers, for `Encoder.from_description`."""
    teachers: list[dict[str, Any]] = Field(default_factory=list, exclude_if=lambda teachers: not teachers)
    """Encoder and content of each teacher's embeddings."""
    changes: list[str] = Field(default_factory=list)
    """Changes of the recipe at each resume."""
    created_by: str = f"vidal {vidal.__version__}"

    def settings(self) -> TrainRecipe:
        """Return the recipe; raises `UserError` if it needs a module that the caller does not allow to import."""
        modalities.require(self.recipe.get("modalities", []), "the training run")
        return TrainRecipe.model_validate(self.recipe)


class RunFolder:
    """The folder of one run; raises `OutputError` for a path that is a file."""

    def __init__(self, address: str | Path) -> None:
        self.storage = Storage(str(address) if "://" in str(address) else str(Path(address).expanduser()))
        self.address = self.storage.address
        if self.storage.is_local:
            self.path = self.storage.local_path() if "://" in self.address else Path(self.address)
        else:
            cache = Path(os.environ.get("VIDAL_CACHE") or Path.home() / ".cache" / "vidal")
            self.path = cache / "runs" / hashlib.sha256(self.address.encode()).hexdigest()[:16]
        """Where files are made: the folder itself, or one on this machine with nothing that a resume needs."""
        if self.path.is_file():
            raise OutputError(f"{address}: is a file; --out names a folder")

    def read(self) -> RunInfo:
        """Return ``run.json``; raises `OutputError` if it is missing or invalid."""
        try:
            return RunInfo.model_validate_json(self.storage.read(NAME))
        except FileNotFoundError:
            raise OutputError(f"{self.address}: no training run there (no {NAME})") from None
        except ValidationError as error:
            raise OutputError(f"{self.address}/{NAME}: not a training run ({error.error_count()} errors)") from None

    def write(self, info: RunInfo) -> None:
        """Write ``run.json`` atomically."""
        text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False)
        self.storage.write(NAME, (text + "\n").encode())

    def write_split(self, split: Mapping[str, bool]) -> None:
        """Write ``split.parquet``, unless a resumed run has it already."""
        if SPLIT in self.storage.names(""):
            return
        table = pa.table(
            {"clip_id": pa.array(split.keys(), pa.string()), "is_held_out": pa.array(split.values(), pa.bool_())}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        self.storage.write(SPLIT, sink.getvalue())

    def split(self) -> dict[str, bool]:
        """Return whether each clip, by id, was held out; raises `OutputError` if ``split.parquet`` cannot be read."""
        try:
            table = pq.read_table(pa.BufferReader(self.storage.read(SPLIT)), columns=["clip_id", "is_held_out"])
        except (OSError, pa.ArrowException, KeyError) as error:
            why = one_line(error)
            raise OutputError(f"{self.address}/{SPLIT}: cannot be read ({why}); evaluate with --split all") from None
        return dict(zip(table.column("clip_id").to_pylist(), table.column("is_held_out").to_pylist(), strict=True))

    def claim(self, info: RunInfo, *, resume: bool) -> None:
        """Start the run in this folder, or resume the one that it holds.

        Raises `OutputError` if the folder holds anything else, a run without ``resume``, or a run with another recipe
        or other data.
        """
        names = self.storage.names("")
        if NAME not in names:
            if names:
                raise OutputError(
                    f"{self.address}: not empty and no training run (it has {names[0]}); choose another --out"
                )
            if not self.storage.is_local:
                # Of an earlier run at this address.
                shutil.rmtree(self.path, ignore_errors=True)
            self.write(info)
            return
        if not resume:
            raise OutputError(f"{self.address}: already holds a run; resume it with --resume, or choose another --out")
        existing = self.read()
        # A setting that has gone is named by the comparison.
        if (recipe := completed(existing.recipe)) is not None:
            existing = existing.model_copy(update={"recipe": recipe.model_dump(mode="json")})
        changed = _differences(existing, info)
        if changed:
            raise OutputError(
                f"{self.address}: --resume continues the same run, but these differ: {'; '.join(changed[:5])}; "
                "choose another --out for another run"
            )
        if existing.recipe != info.recipe:
            changes = [*existing.changes, *differences(existing.recipe, info.recipe)]
            self.write(info.model_copy(update={"changes": changes}))


def _differences(old: RunInfo, new: RunInfo) -> list[str]:
    """What differs of that which a resume may not change."""
    before, after = copy.deepcopy(old.recipe), copy.deepcopy(new.recipe)
    for recipe in (before, after):
        for key in FREE_ON_RESUME:
            group, _, name = key.partition(".")
            ((recipe.get(group) or {}) if name else recipe).pop(name or group, None)
    for key in MAY_GROW_ON_RESUME:
        was, now = before.get(key), after.get(key)
        if was and now and now > was:
            after[key] = was
    # A dataset may have moved since, but its contents must be the same.
    old_data, new_data = (
        {str(i): {k: v for k, v in part.items() if k != "address"} for i, part in enumerate(info.data)}
        for info in (old, new)
    )
    return differences(
        {"recipe": before, "where": old.where, "data": old_data, "teachers": {t["encoder"]: t for t in old.teachers}},
        {"recipe": after, "where": new.where, "data": new_data, "teachers": {t["encoder"]: t for t in new.teachers}},
    )
