"""Reading model folders, and loading their weights into the towers.

This module maps the tensor names of CLIP, LanguageBind and peft to those of `VisionTower` and `ClipText`.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidal.errors import ModelError, one_line
from vidal.models.locate import locate
from vidal.train.towers.settings import Sizes

State = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

_SMALL_FILES = ("*.json", "*.txt", "*.model", "1_Pooling/*")
_SAFE = ("model.safetensors", "model-*.safetensors")
_PICKLE = ("pytorch_model.bin", "pytorch_model-*.bin")
_WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_MAX_NAMES = 3
"""The number of tensor names that an error message lists."""


def clean_name(name: str) -> str:
    """Return a parameter name without the prefixes of DDP, FSDP, `torch.compile` and activation checkpointing."""
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


def model_folder(reference: str | Path) -> Path:
    """Return the folder of a model reference, downloaded from the hub if it is a hub id; raises `ModelError`."""
    place = locate(str(reference))
    if place.path is not None:
        if not place.path.is_dir():
            raise ModelError(f"model {reference}: is a file; name the folder that holds config.json and the weights")
        return place.path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    hub_id, revision = str(place.hub_id), place.revision
    try:
        # Pickles only where there is nothing else: many repositories hold the same weights in both forms.
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*_SMALL_FILES, *_SAFE]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*_SMALL_FILES, *_PICKLE]))
    except Exception as error:  # the hub client raises dozens of types; all mean that the model is unavailable
        # Where no hub is reached, the client's own words are of its cache; the cause names the connection.
        why = one_line((error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None) or error, 200)
        raise ModelError(f"model {hub_id}: not a local folder, and it cannot be downloaded: {why}") from error
    return folder


def read_config(folder: Path) -> dict[str, object]:
    """Return ``config.json`` of a model folder; raises `ModelError` if it is missing or not a JSON object."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json; name a folder in Hugging Face layout") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not a JSON object")
    return config


def read_weights(folder: Path) -> State:
    """Return every tensor of a model folder, from safetensors if it has them, else from pickles.

    Raises `ModelError` if there are no weights, a file is corrupt, or a pickle holds anything but tensors.
    """
    for name, read in (("model.safetensors", _read_safetensors), ("pytorch_model.bin", _read_pickle)):
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return {key: tensor for file in files for key, tensor in read(folder / file).items()}
    raise ModelError(f"{folder}: no weights (model.safetensors or pytorch_model.bin)")


def _read_safetensors(file: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: State = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a valid safetensors file ({error}); download it again") from error
    return state


def _read_pickle(file: Path) -> State:
    try:
        # Without weights_only, a pickle runs whatever its author wrote into it.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{file}: holds more than weights and could run code when loaded; convert it to model.safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error, 200)}); download it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{file}: not a state dict; convert it to model.safetensors")
    return state


def digest(state: Mapping[str, Tensor], prefix: str = "") -> str:
    """Return the SHA-256 of ``prefix`` and the names, dtypes, shapes and bytes of all tensors, as hex."""
    found = hashlib.sha256(prefix.encode())
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # Viewed as bytes, since numpy has no bfloat16.
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def plain_names(state: Mapping[str, Tensor]) -> State:
    """Return the state without peft's prefix, and without the position ids that older versions of transformers save."""
    prefix = "encoder.base_model.model."
    return {k.replace(prefix, "encoder."): v for k, v in state.items() if not k.endswith("position_ids")}


def fold_lora(state: Mapping[str, Tensor], alpha: float) -> State:
    """Return the state with the adapters folded into their weights: W + alpha / r * B A.

    The base weights may have a ``base_layer`` in their names, as newer versions of peft save them, or not.
    """
    out = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    for name, down in state.items():
        if ".lora_A." not in name:
            continue
        up = state[name.replace(".lora_A.", ".lora_B.")]
        weight = name.split(".lora_A.")[0] + ".weight"
        # Computed in float64, so that only the final conversion rounds.
        delta = (up.double() @ down.double()) * (alpha / down.shape[0])
        out[weight] = (out[weight].double() + delta).to(out[weight].dtype)
    return out


def vision_part(state: Mapping[str, Tensor]) -> State:
    """Return the vision tower of a CLIP state dict under `VisionTower`'s names; empty if it has none."""
    return _part(state, "vision_model.", "visual_projection.weight")


def text_part(state: Mapping[str, Tensor]) -> State:
    """Return the text tower of a CLIP state dict under `ClipText`'s names; empty if it has none."""
    return _part(state, "text_model.", "text_projection.weight")


def _part(state: Mapping[str, Tensor], prefix: str, projection: str) -> State:
    tower = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return tower | {projection: state[projection]} if projection in state else tower


def with_weights(make: Callable[[], Module], state: Mapping[str, Tensor], place: str) -> Module:
    """Build a module and load a state as `put` does, without the cost of a random initialisation."""
    # A module of the meta device has shapes and no memory; `put` then hands it the tensors of the file.
    with torch.device("meta"):
        module = make()
    put(module, state, place, assign=True)
    return module


def put(module: nn.Module, state: Mapping[str, Tensor], place: str, *, assign: bool = False) -> None:
    """Load a complete state dict; raises `ModelError` that lists the first few tensors that do not match.

    ``assign`` replaces the module's tensors, which may be on the meta device, instead of copying into them.
    """
    own = module.state_dict()
    misshapen = [k for k in own if k in state and state[k].shape != own[k].shape]
    differences = {
        "missing": sorted(own.keys() - state.keys()),
        "unknown": sorted(state.keys() - own.keys()),
        "of another shape": [f"{k} {_shape(state[k])} in place of {_shape(own[k])}" for k in misshapen],
    }
    problems = []
    for problem, names in differences.items():
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        if names:
            problems.append(f"{problem}: {', '.join(names[:_MAX_NAMES])}{more}")
    if problems:
        raise ModelError(f"{place}: the weights do not fit this model: {'; '.join(problems)}")
    fitting = {k: state[k].to(v.dtype) for k, v in own.items()}
    if assign:
        # Tensors of a memory-mapped file may be unaligned, and a matrix product of those rounds differently.
        fitting = {k: v.clone(memory_format=torch.contiguous_format) for k, v in fitting.items()}
    module.load_state_dict(fitting, assign=assign)


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def fit_positions(state: State, grid: tuple[int, int], source: Sizes | None) -> State:
    """Return the state with its position embeddings resized to ``grid``.

    ``source`` are the sizes of the model that the state is from; without them, or if they do not match the table, its
    grid is assumed to be square. Raises `ModelError` if it is not.
    """
    name = "embeddings.position_embedding.weight"
    table = state.get(name)
    if table is None:
        return state
    patches = table.shape[0] - 1
    known = source.grid if source is not None and source.patches == patches else None
    # A grid of 2 x 8 has as many patches as one of 4 x 4, and yet has to be resized.
    if patches == grid[0] * grid[1] and known in (None, grid):
        return state
    side = round(patches**0.5)
    if known is None and side * side != patches:
        raise ModelError(f"position table of {patches} patches: neither square nor of config.json's image_size")
    return state | {name: resize_positions(table, grid, known or (side, side))}


def resize_positions(table: Tensor, grid: tuple[int, int], source: tuple[int, int]) -> Tensor:
    """Resize position embeddings (1 + rows * columns, d) to another grid bicubically, except the class token's."""
    image = table[1:].T.reshape(1, -1, *source).float()
    resized = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:1], resized.flatten(2)[0].T.to(table.dtype)])


def fit_frames(state: State, frames: int) -> State:
    """Return the state with temporal and per-frame class embeddings interpolated linearly to ``frames`` frames."""
    fitted: State = dict(state)
    for name, tensor in state.items():
        is_per_frame = name.endswith("temporal_embedding") or (
            name == "embeddings.class_embedding" and tensor.dim() == 2
        )
        if is_per_frame and tensor.shape[-2] != frames:
            rows = tensor.reshape(1, -1, tensor.shape[-1]).transpose(1, 2).float()
            resized = F.interpolate(rows, size=frames, mode="linear", align_corners=False).transpose(1, 2)
            fitted[name] = resized.reshape(*tensor.shape[:-2], frames, tensor.shape[-1]).to(tensor.dtype)
    return fitted
