"""Weights on disk: where they are, what they are called, and how they are put into a module.

Every name is brought to the names of `VisionTower` and `ClipText` here, so that nothing else knows of peft's prefix.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidal.errors import ModelError
from vidal.models.locate import locate
from vidal.train.towers.settings import Sizes

State = dict[str, Tensor]
Module = TypeVar("Module", bound=nn.Module)

_SMALL_FILES = ("*.json", "*.txt", "*.model", "1_Pooling/*")
_SAFE = ("model.safetensors", "model-*.safetensors")
_PICKLE = ("pytorch_model.bin", "pytorch_model-*.bin")
_NAMED = 3
"""How many names a message spells out."""


def model_folder(reference: str | Path) -> Path:
    """The folder of a model reference, fetched from the hub where it is a hub id; raises `ModelError`."""
    place = locate(str(reference))
    if place.path is None:
        return _fetch(str(place.hub_id), place.revision)
    if not place.path.is_dir():
        raise ModelError(f"model {reference}: is a file; name the folder that holds config.json and the weights")
    return place.path


def _fetch(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*_SMALL_FILES, *_SAFE]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*_SMALL_FILES, *_PICKLE]))
    except Exception as error:  # the hub raises dozens of kinds; all mean that the model is not to be had
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"model {hub_id}: no such folder here, and the hub did not give it: {why}") from error
    return folder


def read_config(folder: Path) -> dict[str, object]:
    """``config.json`` of a model folder; raises `ModelError`."""
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
    """Every tensor of a model folder, safetensors before pickles; raises `ModelError`."""
    files = _weight_files(folder)
    state: State = {}
    for file in files:
        state |= _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
    return state


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return [folder / part for part in parts]
    raise ModelError(f"{folder}: no weights (model.safetensors or pytorch_model.bin)")


def _read_safetensors(file: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: State = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: not a sound safetensors file ({error}); fetch it again") from error
    return state


def _read_pickle(file: Path) -> State:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{file}: holds more than weights and could run code when loaded; refused: convert it to model.safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        raise ModelError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]}); fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"{file}: not a state dict; convert it to model.safetensors")
    return state


def plain_names(state: Mapping[str, Tensor]) -> State:
    """Names without peft's prefix and without the position numbers that older transformers stored."""
    dropped = "encoder.base_model.model."
    return {k.replace(dropped, "encoder."): v for k, v in state.items() if not k.endswith("position_ids")}


def fold_lora(state: Mapping[str, Tensor], alpha: float) -> State:
    """The state without adapters: base + alpha / r * B A; with or without ``base_layer``, as peft's age has it."""
    out = {k.replace(".base_layer.", "."): v for k, v in state.items() if ".lora_" not in k}
    for name, down in state.items():
        if ".lora_A." not in name:
            continue
        up = state[name.replace(".lora_A.", ".lora_B.")]
        weight = name.split(".lora_A.")[0] + ".weight"
        # In float64: the folded weight is then the nearest float to the exact sum.
        delta = (up.double() @ down.double()) * (alpha / down.shape[0])
        out[weight] = (out[weight].double() + delta).to(out[weight].dtype)
    return out


def part(state: Mapping[str, Tensor], prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def vision_part(state: Mapping[str, Tensor]) -> State:
    """The vision tower of a CLIP state dict, under `VisionTower`'s names."""
    tower = part(state, "vision_model.")
    projection = state.get("visual_projection.weight")
    return tower if projection is None else tower | {"visual_projection.weight": projection}


def text_part(state: Mapping[str, Tensor]) -> State:
    """The text tower of a CLIP state dict, under `ClipText`'s names."""
    text = part(state, "text_model.")
    projection = state.get("text_projection.weight")
    return text if projection is None else text | {"text_projection.weight": projection}


def with_weights(make: Callable[[], Module], state: Mapping[str, Tensor], place: str) -> Module:
    """A new module with the weights of a state; as `put`, but without drawing others first to throw them away."""
    with torch.device("meta"):
        module = make()
    put(module, state, place, assign=True)
    return module


def put(module: nn.Module, state: Mapping[str, Tensor], place: str, *, assign: bool = False) -> None:
    """Load a whole state; raises `ModelError` that names the first few tensors that do not fit."""
    own = module.state_dict()
    problems = [
        *_listed("missing", sorted(own.keys() - state.keys())),
        *_listed("unknown", sorted(state.keys() - own.keys())),
        *_listed("of another shape", [f"{k} {_shape(state[k])} in place of {_shape(own[k])}" for k in own
                                      if k in state and state[k].shape != own[k].shape]),
    ]  # fmt: skip
    if problems:
        raise ModelError(f"{place}: the weights do not fit this model: {'; '.join(problems)}")
    fitting = {k: state[k].to(v.dtype) for k, v in own.items()}
    if assign:
        # A file's tensors lie at any address, and a matrix product rounds otherwise where one is not aligned.
        fitting = {k: v.clone(memory_format=torch.contiguous_format) for k, v in fitting.items()}
    module.load_state_dict(fitting, assign=assign)


def _listed(problem: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{problem}: {', '.join(names[:_NAMED])}{more}"]


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def fit_positions(state: State, grid: tuple[int, int], source: Sizes | None) -> State:
    """The state with its position table for ``grid``; one that has as many rows already is taken as it is."""
    name = "embeddings.position_embedding.weight"
    table = state.get(name)
    if table is None:
        return state
    is_other_grid = source is not None and source.patches == table.shape[0] - 1 and source.grid != grid
    if table.shape[0] == grid[0] * grid[1] + 1 and not is_other_grid:
        return state
    return state | {name: resize_positions(table, grid, _source_grid(table, source))}


def _source_grid(table: Tensor, source: Sizes | None) -> tuple[int, int]:
    patches = table.shape[0] - 1
    if source is not None and source.patches == patches:
        return source.grid
    side = round(patches**0.5)
    if side * side != patches:
        raise ModelError(f"position table of {patches} patches: neither square nor as config.json's image_size says")
    return side, side


def resize_positions(table: Tensor, grid: tuple[int, int], source: tuple[int, int]) -> Tensor:
    """(1 + rows * columns, d) to another grid, bicubically; the class token's row stays."""
    picture = table[1:].T.reshape(1, -1, *source).float()
    resized = F.interpolate(picture, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:1], resized.flatten(2)[0].T.to(table.dtype)])


def fit_frames(state: State, frames: int) -> State:
    """The state with temporal and per-frame class embeddings for another number of frames, linearly."""
    return {k: _stretch(v, frames) if _is_per_frame(k, v) and v.shape[-2] != frames else v for k, v in state.items()}


def _is_per_frame(name: str, tensor: Tensor) -> bool:
    return name.endswith("temporal_embedding") or (name == "embeddings.class_embedding" and tensor.dim() == 2)


def _stretch(tensor: Tensor, frames: int) -> Tensor:
    rows = tensor.reshape(1, -1, tensor.shape[-1]).transpose(1, 2).float()
    out = F.interpolate(rows, size=frames, mode="linear", align_corners=False).transpose(1, 2)
    return out.reshape(*tensor.shape[:-2], frames, tensor.shape[-1]).to(tensor.dtype)
