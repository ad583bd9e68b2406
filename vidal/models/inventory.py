"""Which models a recipe names: where each is, how large, under which licence; and fetching those of a hub.

for model in of_stage(stage):
    fetch(model)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from vidal.errors import ModelError
from vidal.models.locate import CHECKPOINTS, locate
from vidal.models.whisper import fetch_openai, openai_file
from vidal.stage import Step

_CARDS = ("README.md", "MODEL_CARD.md")
_LICENCE_LINE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*([^\n]+)\n(?:.*\n)*?---\n", re.MULTILINE)
_OTHER_FRAMEWORKS = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*"]
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that a stage names; ``path`` is None for one that is not on this machine."""

    stage: str
    setting: str
    reference: str
    whereabouts: str
    """package, shipped, disk, hub (fetched or not), openai-whisper, server."""
    path: Path | None
    size_bytes: int | None
    licence: str | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path) if self.path else None}

    def sentence(self) -> str:
        size = f"{self.size_bytes / 1e6:.1f} MB" if self.size_bytes is not None else "not on this machine"
        return f"{self.reference} ({self.whereabouts}, {size}, licence {self.licence or 'not stated'})"


def of_stage(stage: Step) -> list[Model]:
    """The models that a step would load; raises `ModelError` for a path that is not there."""
    found = []
    for setting, identity in stage.model_identities().items():
        reference = getattr(stage, setting, None)
        if isinstance(reference, str):
            found.append(_model(stage.step_name(), setting, reference, is_served=identity.startswith("server ")))
    return found


def fetch(model: Model) -> Model:
    """Bring a hub's model into this machine's cache; one that is here already stays. Raises `ModelError`."""
    if model.path is not None or model.whereabouts == "server":
        return model
    place = locate(model.reference)
    if model.whereabouts == "openai-whisper":
        fetch_openai(model.reference)
    else:
        _from_hub(model, str(place.hub_id), place.revision)
    return _model(model.stage, model.setting, model.reference, is_served=False)


def _from_hub(model: Model, hub_id: str, revision: str | None) -> None:
    import huggingface_hub

    # Its retries would be lines of warning; the last failure is told below.
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        files = huggingface_hub.HfApi().list_repo_files(hub_id, revision=revision)
        huggingface_hub.snapshot_download(hub_id, revision=revision, ignore_patterns=_ignored(files))
    except Exception as error:  # its client's errors have no common root but this
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{model.stage}.{model.setting}: {model.reference} cannot be fetched ({first_line}); is the id right, the "
            "hub reachable, and HF_TOKEN set for a gated model?"
        ) from error


def _ignored(files: Sequence[str]) -> list[str]:
    """Weights of other frameworks, and pickles where safetensors are beside them."""
    is_safe = any(name.endswith(".safetensors") for name in files)
    return [*_OTHER_FRAMEWORKS, *(_PICKLES if is_safe else [])]


def _model(stage: str, setting: str, reference: str, *, is_served: bool) -> Model:
    whereabouts, path, licence = ("server", None, None) if is_served else _whereabouts(setting, reference)
    return Model(
        stage=stage, setting=setting, reference=reference, whereabouts=whereabouts, path=path,
        size_bytes=_size(path) if path else None, licence=licence,
    )  # fmt: skip


def _whereabouts(setting: str, reference: str) -> tuple[str, Path | None, str | None]:
    place = locate(reference)
    scheme, _, rest = reference.partition(":")
    if scheme == "package":
        package = rest.partition("/")[0]
        return f"package {package}", place.path, _package_licence(package)
    if place.path is not None:
        is_shipped = place.path.is_relative_to(CHECKPOINTS)
        return "shipped" if is_shipped else "disk", place.path, _card_licence(place.path)
    if setting == "whisper" and "/" not in str(place.hub_id):
        file = openai_file(str(place.hub_id))
        return "openai-whisper", file if file.is_file() else None, "MIT"
    cached = _cached(str(place.hub_id), place.revision)
    return "hub", cached, _card_licence(cached) if cached else None


def _cached(hub_id: str, revision: str | None) -> Path | None:
    """The folder of a model in the hub's cache; every kind of model that a stage loads has a config.json."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        config = huggingface_hub.try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _files(path: Path) -> Iterator[Path]:
    return (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _card_licence(path: Path) -> str | None:
    """What the card beside the weights states in its front matter, as the hub has it."""
    folder = path if path.is_dir() else path.parent
    for card in (folder / name for name in _CARDS):
        if card.is_file() and (said := _LICENCE_LINE.match(card.read_text(encoding="utf-8", errors="replace"))):
            return said[1].strip()
    return None


def _package_licence(package: str) -> str | None:
    names = metadata.packages_distributions().get(package)
    if not names:
        return None
    about = metadata.metadata(names[0]).json
    classified = [line.split(" :: ")[-1] for line in about.get("classifier", []) if line.startswith("License ::")]
    said = str(about.get("license_expression") or about.get("license") or "").strip()
    return said if said and said != "UNKNOWN" and "\n" not in said else next(iter(classified), None)
