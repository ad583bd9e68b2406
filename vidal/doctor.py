"""`examine`: whether this machine can do what a recipe asks for."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from vidal.errors import VidalError

_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    is_well: bool
    detail: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(recipe: Path | None) -> list[Finding]:
    """Look at the machine, and at each stage of the recipe if one is given."""
    return [*_machine(), *(_stages(recipe) if recipe is not None else ())]


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    cores = f"{os.cpu_count()} cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB memory free"
    yield Finding(what="machine", is_well=True, detail=cores)
    yield Finding(what="python", is_well=True, detail=platform.python_version())
    yield _ffmpeg()
    for package in ("ray", "torch", "transformers", "webdataset", "pyarrow", "yt-dlp"):
        try:
            yield Finding(what=package, is_well=True, detail=metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(what=package, is_well=False, detail="not installed; run `make setup`")
    yield _gpu()


def _ffmpeg() -> Finding:
    from vidal.media.ffmpeg import ffmpeg_identity

    try:
        return Finding(what="ffmpeg", is_well=True, detail=ffmpeg_identity())
    except VidalError as error:
        return Finding(what="ffmpeg", is_well=False, detail=str(error))


def _gpu() -> Finding:
    import torch

    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding(what="gpu", is_well=True, detail=", ".join(found) or "none; every stage runs on the CPU")


def _stages(path: Path) -> Iterator[Finding]:
    from vidal.recipe import load

    for stage in load(path).stages:
        started = time.monotonic()
        what = f"stage {stage.step_name()}"
        try:
            models = stage.model_identities()
            stage.setup()
        except VidalError as error:
            yield Finding(what=what, is_well=False, detail=str(error))
            continue
        named = "; ".join(f"{setting} = {identity}" for setting, identity in models.items()) or "no model"
        yield Finding(what=what, is_well=True, detail=f"{named} (ready in {time.monotonic() - started:.1f} s)")
