"""`RunFolder`: a training run on disk, whose ``run.json`` says what it is.

RUN/run.json        recipe, data, towers: everything that the numbers depend on
RUN/split.parquet   clip_id, is_held_out: which clips it trains on, whatever becomes of the data set later
RUN/log.jsonl       one line a step
RUN/checkpoints/    000500/ …
"""

from __future__ import annotations

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
    """``run.json``."""

    recipe: dict[str, Any]
    where: str | None
    data: list[dict[str, Any]]
    encoder: dict[str, Any]
    """What `Encoder.from_description` builds the towers from."""
    changes: list[str] = Field(default_factory=list)
    """What of the recipe was changed at a resume."""
    created_by: str = f"vidal {vidal.__version__}"

    def settings(self) -> TrainRecipe:
        """Raises `UserError` where the run is of a modality that the caller does not let it import."""
        modalities.require(self.recipe.get("modalities", []), "the training run")
        return TrainRecipe.model_validate(self.recipe)


class RunFolder:
    """The folder of one run; on a local disk, as a checkpoint is renamed into place."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if "://" in str(path):
            raise OutputError(f"{path}: a run is kept on a local disk; copy it where it should go when it is done")
        if self.path.is_file():
            raise OutputError(f"{path}: is a file; --out names a folder")

    def exists(self) -> bool:
        return (self.path / NAME).is_file()

    def read(self) -> RunInfo:
        """Raises `OutputError` where there is no run."""
        try:
            return RunInfo.model_validate_json((self.path / NAME).read_bytes())
        except FileNotFoundError:
            raise OutputError(f"{self.path}: no training run there (no {NAME})") from None
        except ValidationError as error:
            raise OutputError(f"{self.path}/{NAME}: not a training run ({error.error_count()} errors)") from None

    def write(self, info: RunInfo) -> None:
        text = json.dumps(info.model_dump(mode="json"), indent=2, ensure_ascii=False)
        Storage(str(self.path)).write(NAME, (text + "\n").encode())

    def write_split(self, split: Mapping[str, bool]) -> None:
        """Record by clip whether it is held out; a run that goes on keeps its record."""
        if (self.path / SPLIT).is_file():
            return
        table = pa.table(
            {"clip_id": pa.array(split.keys(), pa.string()), "is_held_out": pa.array(split.values(), pa.bool_())}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        Storage(str(self.path)).write(SPLIT, sink.getvalue())

    def split(self) -> dict[str, bool]:
        """By clip, whether the run held it out; raises `OutputError` where that is not recorded."""
        try:
            table = pq.read_table(self.path / SPLIT, columns=["clip_id", "is_held_out"])
        except (OSError, pa.ArrowException, KeyError) as error:
            why = " ".join(str(error).split())[:120]
            raise OutputError(f"{self.path}/{SPLIT}: cannot be read ({why}); evaluate with --split all") from None
        return dict(zip(table.column("clip_id").to_pylist(), table.column("is_held_out").to_pylist(), strict=True))

    def claim(self, info: RunInfo, *, resume: bool) -> None:
        """Make the folder this run's; raises `OutputError` where it holds something else, or is not to be resumed."""
        if not self.exists():
            if self.path.is_dir() and (found := sorted(p.name for p in self.path.iterdir() if p.name[0] != ".")):
                raise OutputError(
                    f"{self.path}: not empty and no training run (it has {found[0]}); choose another --out"
                )
            self.write(info)
            return
        if not resume:
            raise OutputError(f"{self.path}: holds a run already; continue it with --resume, or choose another --out")
        there = self.read()
        changed = _differences(there, info)
        if changed:
            raise OutputError(
                f"{self.path}: --resume continues the same run, but these differ: {'; '.join(changed[:5])}; "
                "choose another --out for another run"
            )
        if there.recipe != info.recipe:
            told = differences(there.recipe, info.recipe)
            self.write(info.model_copy(update={"changes": [*there.changes, *told]}))


def _differences(old: RunInfo, new: RunInfo) -> list[str]:
    before, after = (_comparable(info) for info in (old, new))
    for key in MAY_GROW_ON_RESUME:
        was, now = old.recipe.get(key), new.recipe.get(key)
        if was and now and now > was:
            after["recipe"][key] = was
    return differences(before, after) if before != after else []


def _comparable(info: RunInfo) -> dict[str, Any]:
    recipe = json.loads(json.dumps(info.recipe))
    for key in FREE_ON_RESUME:
        group, _, name = key.partition(".")
        if name:
            recipe.get(group, {}).pop(name, None)
        else:
            recipe.pop(group, None)
    # Where a data set lies may change; what it holds may not.
    data = {str(i): {k: v for k, v in part.items() if k != "address"} for i, part in enumerate(info.data)}
    return {"recipe": recipe, "where": info.where, "data": data}
