"""Checkpoints that are whole or not there.

    checkpoints/000500/model.safetensors  optimiser.safetensors  state.json  sums.json

Written as a temporary folder, every file and the folder synced, then renamed. `latest` gives the newest whose files
are what ``sums.json`` says, and passes damaged ones over with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from vidal.errors import ModelError, StorageError, VidalWarning, machine_error

FOLDER = "checkpoints"
_SUMS = "sums.json"
_MODEL, _OPTIMISER, _STATE = "model.safetensors", "optimiser.safetensors", "state.json"
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One that is there and whole."""

    path: Path
    step: int
    """Steps that were taken when it was written."""

    def model(self) -> dict[str, Tensor]:
        return _tensors(self.path / _MODEL)

    def optimiser(self) -> dict[str, Tensor]:
        return _tensors(self.path / _OPTIMISER)

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.path / _STATE).read_bytes())
        return state


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, run: Path, keep_last: int = 3) -> None:
        self.folder = run / FOLDER
        self._keep_last = keep_last

    def save(
        self, step: int, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Path:
        """Write the checkpoint after ``step`` steps; raises `StorageError`, with the earlier ones as they were."""
        final = self.folder / f"{step:06d}"
        temporary = self.folder / f".{final.name}{_TEMPORARY}"
        with _one_line(final):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                files = {
                    _MODEL: save({k: v.detach().cpu().contiguous() for k, v in model.items()}),
                    _OPTIMISER: save({k: v.detach().cpu().contiguous() for k, v in optimiser.items()}),
                    _STATE: json.dumps({"step": step, **state}, indent=1).encode(),
                }
                sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
                for name, data in {**files, _SUMS: json.dumps(sums, indent=1).encode()}.items():
                    _write(temporary / name, data)
                _sync(temporary)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(temporary, final)
                _sync(self.folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._drop_old()
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where there is none."""
        for path in sorted(self._all(), reverse=True):
            damage = _damage(path)
            if damage is None:
                return Checkpoint(path=path, step=int(path.name))
            warnings.warn(f"{path}: {damage}; passed over for an earlier checkpoint", VidalWarning, stacklevel=2)
        return None

    def _all(self) -> list[Path]:
        return [path for path in self.folder.glob("*") if path.name.isdigit()] if self.folder.is_dir() else []

    def _drop_old(self) -> None:
        for path in sorted(self._all())[: -self._keep_last]:
            shutil.rmtree(path, ignore_errors=True)


def _damage(path: Path) -> str | None:
    try:
        sums = json.loads((path / _SUMS).read_bytes())
        for name in (_MODEL, _OPTIMISER, _STATE):
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != sums[name]:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{_SUMS} cannot be read"
    return None


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path}: there are no weights") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: no safetensors file ({error}); other formats are not read here") from None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_line(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise machine_error(error, str(place)) or StorageError(f"{place}: {error}") from error
