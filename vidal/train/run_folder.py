"""`RunFolder`: the folder of a training run.

RUN/run.json        recipe, data and towers: everything that the results depend on
RUN/split.parquet   clip_id, is_held_out: the clips of the run, independent of later changes to the dataset
RUN/log.jsonl       one line per step or event
RUN/wandb.json      id of the run at W&B, where it is logged there
RUN/checkpoints/    000500/ …
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, ValidationError

import vidal
from vidal import modality as modalities
from vidal.dataset.storage import Storage
from vidal.errors import OutputError
from vidal.settings import differences
from vidal.train.recipe import FREE_ON_RESUME, MAY_GROW_ON_RESUME, TrainRecipe

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
    changes: list[str] = Field(default_factory=list)
    """Changes of the recipe at each resume."""
    created_by: str = f"vidal {vidal.__version__}"

    def settings(self) -> TrainRecipe:
        """Return the recipe; raises `UserError` if it needs a module that the caller does not allow to import."""
        modalities.require(self.recipe.get("modalities", []), "the training run")
        return TrainRecipe.model_validate(self.recipe)


class RunFolder:
    """The folder of one run; on a local disk, because checkpoints are renamed into place.

    Raises `OutputError` for an address or a path that is a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if "://" in str(path):
            raise OutputError(f"{path}: a run needs a local folder; upload it when it is finished")
        if self.path.is_file():
            raise OutputError(f"{path}: is a file; --out names a folder")

    def read(self) -> RunInfo:
        """Return ``run.json``; raises `OutputError` if it is missing or invalid."""
        try:
            return RunInfo.model_validate_json((self.path / NAME).read_bytes())
        except FileNotFoundError:
            raise OutputError(f"{self.path}: no training run there (no {NAME})") from None
        except ValidationError as error:
            raise OutputError(f"{self.path}/{NAME}: not a training run ({error.error_count()} errors)") from None

    def write(self, info: RunInfo) -> None:
        """Write ``run.json`` atomically."""
        text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False)
        Storage(str(self.path)).write(NAME, (text + "\n").encode())

    def write_split(self, split: Mapping[str, bool]) -> None:
        """Write ``split.parquet``, unless a resumed run has it already."""
        if (self.path / SPLIT).is_file():
            return
        table = pa.table(
            {"clip_id": pa.array(split.keys(), pa.string()), "is_held_out": pa.array(split.values(), pa.bool_())}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        Storage(str(self.path)).write(SPLIT, sink.getvalue())

    def split(self) -> dict[str, bool]:
        """Return whether each clip, by id, was held out; raises `OutputError` if ``split.parquet`` cannot be read."""
        try:
            table = pq.read_table(self.path / SPLIT, columns=["clip_id", "is_held_out"])
        except (OSError, pa.ArrowException, KeyError) as error:
            why = " ".join(str(error).split())[:120]
            raise OutputError(f"{self.path}/{SPLIT}: cannot be read ({why}); evaluate with --split all") from None
        return dict(zip(table.column("clip_id").to_pylist(), table.column("is_held_out").to_pylist(), strict=True))

    def claim(self, info: RunInfo, *, resume: bool) -> None:
        """Start the run in this folder, or resume the one that it holds.

        Raises `OutputError` if the folder holds anything else, a run without ``resume``, or a run with another recipe
        or other data.
        """
        if not (self.path / NAME).is_file():
            if self.path.is_dir() and (names := sorted(p.name for p in self.path.iterdir() if p.name[0] != ".")):
                raise OutputError(
                    f"{self.path}: not empty and no training run (it has {names[0]}); choose another --out"
                )
            self.write(info)
            return
        if not resume:
            raise OutputError(f"{self.path}: already holds a run; resume it with --resume, or choose another --out")
        existing = self.read()
        changed = _differences(existing, info)
        if changed:
            raise OutputError(
                f"{self.path}: --resume continues the same run, but these differ: {'; '.join(changed[:5])}; "
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
        {"recipe": before, "where": old.where, "data": old_data},
        {"recipe": after, "where": new.where, "data": new_data},
    )
