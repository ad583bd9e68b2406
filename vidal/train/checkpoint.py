"""Atomic checkpoints, in a folder or at an address.

    checkpoints/000500/model.safetensors  optimiser.safetensors  sums.json
    checkpoints/best.json                 the step with the best score, where the recipe evaluates

A checkpoint is written to a temporary folder, synced to disk, then renamed. `Checkpoints.latest` returns the newest one
whose files match ``sums.json``, and skips damaged ones with a warning. To an object store it is uploaded from there,
``sums.json`` last: a checkpoint without it is none, and no reader sees one. Its files are compared with their checksums
when they are read. No random state is stored: all randomness of a step is a function of the recipe's seed and the step
(see `vidal.train.loop`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from vidal.dataset.local_disk import sync_folder
from vidal.dataset.storage import Fence, Storage
from vidal.errors import ModelError, VidalWarning, storage_errors

FOLDER = "checkpoints"
_SUMS = "sums.json"
_MODEL, _OPTIMISER = "model.safetensors", "optimiser.safetensors"
_BASE = "base."
"""What the names of towers stand behind in the metadata of the model file, whose values are digests."""
_TEMPORARY = ".tmp"
_ASIDE = ".diverged"
_BEST = "best.json"
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""The dtypes by their names in a safetensors file, in the order in which it holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint; reading it raises `ModelError` if a file is missing, damaged or not safetensors."""

    storage: Storage
    """The folder of the checkpoint."""
    step: int
    """Number of completed steps."""

    @property
    def name(self) -> str:
        """Name of its folder: the step, in six digits or more."""
        return _name(self.step)

    @property
    def address(self) -> str:
        """Path or address of its folder."""
        return self.storage.address

    def model(self) -> dict[str, Tensor]:
        """Return the trainable state of the encoder, by parameter name."""
        return self._tensors(_MODEL)

    def bases(self) -> dict[str, str]:
        """Return the digests, by tower, of the frozen weights that the checkpoint leaves out."""
        with self._errors(_MODEL):
            size = int.from_bytes(self.storage.read_range(_MODEL, 0, 8), "little")
            metadata = json.loads(self.storage.read_range(_MODEL, 8, size)).get("__metadata__", {})
        return {name.removeprefix(_BASE): value for name, value in metadata.items() if name.startswith(_BASE)}

    def optimiser(self) -> dict[str, Tensor]:
        """Return the state of the optimiser, by parameter name."""
        return self._tensors(_OPTIMISER)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        with self._errors(name):
            data = self.storage.read(name)
            # Of a local one this was done when it was chosen.
            if not self.storage.is_local:
                sums = json.loads(self.storage.read(_SUMS))
                if hashlib.sha256(data).hexdigest() != sums[name]:
                    raise ModelError(f"{self.address}/{name}: does not match its checksum")
            return load(data)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ModelError(f"{self.address}/{name}: is missing") from None
        except (SafetensorError, ValueError) as error:
            raise ModelError(f"{self.address}/{name}: not a valid safetensors file ({error})") from None


class Checkpoints:
    """The checkpoints of one run, in a folder or at an address."""

    def __init__(
        self, run: str | Path, keep_last: int = 3, keep_every: int | None = None, fence: Fence | None = None,
        work: Path | None = None,
    ) -> None:  # fmt: skip
        """``fence`` is asked before a checkpoint gets its name, and before any is deleted.

        ``work`` is a local folder to write checkpoints in before they go to an object store.
        """
        self._storage = Storage(f"{run}/{FOLDER}", fence)
        self._fence = fence
        self.folder = (work or Path(run)) / FOLDER
        """Where files are written; of a local run, the folder of its checkpoints."""
        self._keep_last, self._keep_every = keep_last, keep_every

    def save(
        self, step: int, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor],
        bases: Mapping[str, str] | None = None,
    ) -> Checkpoint:  # fmt: skip
        """Write the checkpoint after ``step`` steps and delete old ones, as ``keep_last`` and ``keep_every`` say.

        ``bases`` are digests of the frozen weights, by tower, that ``model`` leaves out.
        Raises `StorageError` if it cannot be written, and `MachineError` if the lock was lost; earlier checkpoints are
        then unchanged.
        """
        metadata = {f"{_BASE}{tower}": sha256 for tower, sha256 in (bases or {}).items()}
        saved = self._checkpoint(step)
        temporary = self.folder / f".{saved.name}{_TEMPORARY}"
        with storage_errors(saved.address):
            try:
                # An owner that lost the lock must not sweep its successor's folder either.
                self._ask_fence()
                self._sweep()
                # A killed writer's folder of this name is gone by now, or it could not be made.
                temporary.mkdir(parents=True)
                sums = {
                    _MODEL: _write(temporary / _MODEL, packed(model, metadata)),
                    _OPTIMISER: _write(temporary / _OPTIMISER, packed(optimiser)),
                }
                _write(temporary / _SUMS, [json.dumps(sums, indent=1).encode()])
                sync_folder(temporary)
                self._ask_fence()
                (self._rename if self._storage.is_local else self._upload)(temporary, saved.name)
            finally:
                # Renamed, unless it failed or was uploaded.
                shutil.rmtree(temporary, ignore_errors=True)
        self._sweep()
        # Later ones are damaged, or the run would have resumed from them: they must not displace intact ones.
        written = [other for other in self.steps() if other <= step]
        best = self.best()
        for old in written[: -self._keep_last]:
            is_best = best is not None and old == best[0]
            if not is_best and (not self._keep_every or old % self._keep_every):
                self._remove(old)
        return saved

    def _rename(self, temporary: Path, name: str) -> None:
        # A folder cannot be replaced while it has files. A kill between the two renames costs this checkpoint
        # only: the earlier one is still there.
        final = self.folder / name
        if final.exists():
            os.replace(final, self.folder / f".{name}.old{_TEMPORARY}")
        os.replace(temporary, final)
        sync_folder(self.folder)
        # At the first checkpoint the folder of all of them is new, too.
        sync_folder(self.folder.parent)

    def _upload(self, temporary: Path, name: str) -> None:
        # One of this name is none from here on, and the new one is one once its sums are there.
        self._storage.remove(f"{name}/{_SUMS}")
        for file in (_MODEL, _OPTIMISER, _SUMS):
            self._storage.upload(temporary / file, f"{name}/{file}")

    def _remove(self, step: int) -> None:
        if self._storage.is_local:
            shutil.rmtree(self.folder / _name(step), ignore_errors=True)
        else:
            # First: what has lost its sums is no checkpoint, whatever else is left of it.
            self._storage.remove(f"{_name(step)}/{_SUMS}")
            self._storage.remove(_name(step))

    def _ask_fence(self) -> None:
        if self._fence is not None:
            self._fence.check()

    def best(self) -> tuple[int, float] | None:
        """Return the step and the score of the best checkpoint; None if the run has recorded none."""
        try:
            recorded = json.loads(self._storage.read(_BEST))
            return int(recorded["step"]), float(recorded["score"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def mark_best(self, step: int, score: float) -> None:
        """Record the checkpoint after ``step`` steps as the best one, which is then kept."""
        self._storage.write(_BEST, json.dumps({"step": step, "score": score}).encode())

    def named(self, name: str) -> Checkpoint | None:
        """Return a checkpoint: ``latest``, ``best``, or the one after so many steps; None if there is no intact one."""
        if name == "latest":
            return self.latest()
        best = self.best()
        step = best[0] if name == "best" and best is not None else int(name) if name.isdecimal() else -1
        return self._checkpoint(step) if step in self.steps() and self._damage(step) is None else None

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is undamaged; None if there is none."""
        for step in reversed(self.steps()):
            found = self._checkpoint(step)
            damage = self._damage(step)
            if damage is None:
                return found
            message = f"{found.address}: {damage}; skipped in favour of an earlier checkpoint"
            warnings.warn(message, VidalWarning, stacklevel=2)
        return None

    def set_aside(self, step: int) -> list[str]:
        """Rename the checkpoints of ``step`` or more steps, so that no run resumes from them; return their names."""
        self._ask_fence()
        steps = [other for other in self.steps() if other >= step]
        for name in map(_name, steps):
            aside = f"{name}{_ASIDE}"
            if self._storage.is_local:
                with storage_errors(str(self.folder / name)):
                    shutil.rmtree(self.folder / aside, ignore_errors=True)
                    os.replace(self.folder / name, self.folder / aside)
            else:
                for file in (_MODEL, _OPTIMISER, _SUMS):
                    self._storage.write(f"{aside}/{file}", self._storage.read(f"{name}/{file}"))
                self._remove(int(name))
        best = self.best()
        if best is not None and best[0] >= step:
            self._storage.remove(_BEST)
        return [_name(other) for other in steps]

    def _checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(storage=self._storage.child(_name(step)), step=step)

    def steps(self) -> list[int]:
        """The steps of all checkpoints, sorted as numbers: from a million on, names have more digits."""
        steps = sorted(int(name) for name in self._storage.names("") if name.isdecimal())
        return [step for step in steps if self._storage.is_local or not self._is_torn(step)]

    def _is_torn(self, step: int) -> bool:
        """Whether a checkpoint in an object store is not uploaded yet, or was not when its writer was killed."""
        return _SUMS not in self._storage.names(_name(step))

    def _sweep(self) -> None:
        """Delete leftovers of a killed writer; only the run that holds the lock writes here."""
        for leftover in self.folder.glob(f".*{_TEMPORARY}"):
            shutil.rmtree(leftover, ignore_errors=True)
        for name in self._storage.names("") if not self._storage.is_local else ():
            if name.isdecimal() and self._is_torn(int(name)):
                self._storage.remove(name)

    def _damage(self, step: int) -> str | None:
        if not self._storage.is_local:
            # An object is whole or not there; its checksum is compared when it is read, and not twice.
            missing = {_MODEL, _OPTIMISER} - {*self._storage.names(_name(step))}
            return f"{min(missing)} is missing" if missing else None
        path = self.folder / _name(step)
        try:
            sums = json.loads((path / _SUMS).read_bytes())
            for name in (_MODEL, _OPTIMISER):
                with (path / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sums[name]:
                        return f"{name} does not match its checksum"
        except FileNotFoundError as error:
            return f"{Path(error.filename).name} is missing"
        except OSError as error:
            return f"{Path(error.filename or path).name} cannot be read ({error.strerror or error})"
        except (ValueError, KeyError, TypeError):
            return f"{_SUMS} cannot be read"
        return None


def _name(step: int) -> str:
    return f"{step:06d}"


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """Yield the parts of a safetensors file of tensors on the CPU, as `safetensors.torch.save` orders them.

    That function copies everything twice, and keeps Python's other threads from running as it does so.
    """
    kinds = list(_DTYPES)
    ordered = sorted(tensors.items(), key=lambda item: (kinds.index(item[1].dtype), item[0]))
    header: dict[str, dict[str, object]] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in ordered:
        place = [start, start + tensor.nbytes]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": place}
        start = place[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Padded, so that the tensors are aligned.
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        yield tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> str:
    """Write a file and sync it to disk; return the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
