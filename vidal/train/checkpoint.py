"""Atomic checkpoints.

    checkpoints/000500/model.safetensors  optimiser.safetensors  sums.json
    checkpoints/best.json                 the step with the best score, where the recipe evaluates

A checkpoint is written to a temporary folder, synced to disk, then renamed. `Checkpoints.latest` returns the newest one
whose files match ``sums.json``, and skips damaged ones with a warning. No random state is stored: all randomness of a
step is a function of the recipe's seed and the step (see `vidal.train.loop`).
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from vidal.dataset.storage import Fence, Storage, sync_folder
from vidal.errors import ModelError, VidalWarning, storage_errors

FOLDER = "checkpoints"
_SUMS = "sums.json"
_MODEL, _OPTIMISER = "model.safetensors", "optimiser.safetensors"
_BASE = "base."
"""What the names of towers stand behind in the metadata of the model file, whose values are digests."""
_OLD_STATE = "state.json"
"""Held the digests before they were metadata."""
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
    """A complete checkpoint on disk; reading it raises `ModelError` if a file is missing or not safetensors."""

    path: Path
    step: int
    """Number of completed steps."""

    def model(self) -> dict[str, Tensor]:
        """Return the trainable state of the encoder, by parameter name."""
        return _tensors(self.path / _MODEL)

    def bases(self) -> dict[str, str]:
        """Return the digests, by tower, of the frozen weights that the checkpoint leaves out."""
        if (old := self.path / _OLD_STATE).is_file():
            bases: dict[str, str] = json.loads(old.read_bytes()).get("bases", {})
            return bases
        metadata = _metadata(self.path / _MODEL)
        return {name.removeprefix(_BASE): value for name, value in metadata.items() if name.startswith(_BASE)}

    def optimiser(self) -> dict[str, Tensor]:
        """Return the state of the optimiser, by parameter name."""
        return _tensors(self.path / _OPTIMISER)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self, run: Path, keep_last: int = 3, keep_every: int | None = None, fence: Fence | None = None
    ) -> None:
        """``fence`` is asked before a checkpoint gets its name, and before any is deleted."""
        self.folder = run / FOLDER
        self._fence = fence
        self._keep_last, self._keep_every = keep_last, keep_every

    def save(
        self, step: int, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor],
        bases: Mapping[str, str] | None = None,
    ) -> Path:  # fmt: skip
        """Write the checkpoint after ``step`` steps and delete old ones, as ``keep_last`` and ``keep_every`` say.

        ``bases`` are digests of the frozen weights, by tower, that ``model`` leaves out.
        Raises `StorageError` if it cannot be written, and `MachineError` if the lock was lost; earlier checkpoints are
        then unchanged.
        """
        metadata = {f"{_BASE}{tower}": sha256 for tower, sha256 in (bases or {}).items()}
        final = self.folder / f"{step:06d}"
        temporary = self.folder / f".{final.name}{_TEMPORARY}"
        with storage_errors(str(final)):
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
                # A folder cannot be replaced while it has files. A kill between the two renames costs this checkpoint
                # only: the earlier one is still there.
                if final.exists():
                    os.replace(final, self.folder / f".{final.name}.old{_TEMPORARY}")
                os.replace(temporary, final)
                sync_folder(self.folder)
                # At the first checkpoint the folder of all of them is new, too.
                sync_folder(self.folder.parent)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        self._sweep()
        # Later ones are damaged, or the run would have resumed from them: they must not displace intact ones.
        written = [path for path in self._all() if int(path.name) <= step]
        best = self.best()
        for path in written[: -self._keep_last]:
            is_best = best is not None and int(path.name) == best[0]
            if not is_best and (not self._keep_every or int(path.name) % self._keep_every):
                shutil.rmtree(path, ignore_errors=True)
        return final

    def _ask_fence(self) -> None:
        if self._fence is not None:
            self._fence.check()

    def best(self) -> tuple[int, float] | None:
        """Return the step and the score of the best checkpoint; None if the run has recorded none."""
        try:
            recorded = json.loads((self.folder / _BEST).read_bytes())
            return int(recorded["step"]), float(recorded["score"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def mark_best(self, step: int, score: float) -> None:
        """Record the checkpoint after ``step`` steps as the best one, which is then kept."""
        Storage(str(self.folder), self._fence).write(_BEST, json.dumps({"step": step, "score": score}).encode())

    def named(self, name: str) -> Checkpoint | None:
        """Return a checkpoint: ``latest``, ``best``, or the one after so many steps; None if there is no intact one."""
        if name == "latest":
            return self.latest()
        best = self.best()
        step = best[0] if name == "best" and best is not None else int(name) if name.isdigit() else -1
        path = next((path for path in self._all() if int(path.name) == step), None)
        return Checkpoint(path=path, step=step) if path is not None and _damage(path) is None else None

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is undamaged; None if there is none."""
        for path in reversed(self._all()):
            damage = _damage(path)
            if damage is None:
                return Checkpoint(path=path, step=int(path.name))
            warnings.warn(f"{path}: {damage}; skipped in favour of an earlier checkpoint", VidalWarning, stacklevel=2)
        return None

    def set_aside(self, step: int) -> list[str]:
        """Rename the checkpoints of ``step`` or more steps, so that no run resumes from them; return their names."""
        self._ask_fence()
        paths = [path for path in self._all() if int(path.name) >= step]
        for path in paths:
            aside = path.with_name(path.name + _ASIDE)
            with storage_errors(str(path)):
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)
        best = self.best()
        if best is not None and best[0] >= step:
            (self.folder / _BEST).unlink(missing_ok=True)
        return [path.name for path in paths]

    def _all(self) -> list[Path]:
        # By number: from a million steps on, names have more digits and no longer sort lexicographically.
        return sorted((path for path in self.folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))

    def _sweep(self) -> None:
        """Delete leftovers of a killed writer; only the run that holds the lock writes here."""
        for leftover in self.folder.glob(f".*{_TEMPORARY}"):
            shutil.rmtree(leftover, ignore_errors=True)


def _damage(path: Path) -> str | None:
    try:
        sums = json.loads((path / _SUMS).read_bytes())
        for name in (_MODEL, _OPTIMISER, *([_OLD_STATE] if _OLD_STATE in sums else [])):
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


def _tensors(path: Path) -> dict[str, Tensor]:
    with _model_errors(path):
        return load(path.read_bytes())


def _metadata(path: Path) -> dict[str, str]:
    with _model_errors(path), safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        return metadata


@contextlib.contextmanager
def _model_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"{path}: is missing") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: not a valid safetensors file ({error})") from None


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
