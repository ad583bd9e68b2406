"""Encoders on disk in Hugging Face layout, and a tower as an ONNX file.

    OUT/config.json, model.safetensors     one modality: a tower and the text side, as transformers' CLIPModel has them
    OUT/config.json, OUT/depth/, …         several: an index, and such a folder for each

A plain CLIP tower (square, without temporal attention) beside a CLIP text tower also loads in transformers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import vidal
from vidal import modality as modalities
from vidal.errors import ModelError, OutputError, machine_error
from vidal.train.towers.config import hf_text_config, hf_vision_config
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.text import ClipText, TextTower
from vidal.train.towers.tune import merged
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import State

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json",
    "added_tokens.json", "sentence_bert_config.json", "modules.json", "1_Pooling/config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedEncoder:
    """The folder or the files that an encoder was written to."""

    written: list[Path]

    def lines(self) -> Iterator[str]:
        yield f"wrote {', '.join(map(str, self.written))}"

    def as_json(self) -> dict[str, Any]:
        return {"written": [str(path) for path in self.written]}


def write_encoder(encoder: Encoder, out: Path, format: Literal["hugging-face", "onnx"]) -> ExportedEncoder:
    """Write an encoder as `save_folder` does, or each of its towers as `to_onnx` does."""
    if format == "hugging-face":
        return ExportedEncoder(written=[save_folder(encoder, out)])
    out.mkdir(parents=True, exist_ok=True)
    return ExportedEncoder(
        written=[to_onnx(encoder, modality, out / f"{modality}.onnx") for modality in encoder.modalities]
    )


def save_folder(encoder: Encoder, out: str | Path) -> Path:
    """Write the encoder so that `load_encoder` gives the same numbers to the bit; adapters are folded in.

    Everything appears at once under its name, or not at all; raises `OutputError` where ``out`` is not empty.
    """
    out = Path(out).expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: is there already; choose another folder")
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(encoder, partial)
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise machine_error(error, str(out)) or OutputError(f"{out}: cannot be written: {error}") from error
    return out


def _write(encoder: Encoder, folder: Path) -> None:
    names = list(encoder.towers)
    if len(names) == 1:
        _write_part(encoder, names[0], folder, _shared(encoder))
        return
    for name in names:
        own = _shared(encoder) | {"serves": {m: t for m, t in encoder.serves.items() if t == name}}
        _write_part(encoder, name, folder / name, own)
    _write_json(folder / "config.json", {"model_type": "vidal", "vidal": _shared(encoder) | {"folders": names}})
    _write_card(encoder, folder, names)


def _shared(encoder: Encoder) -> dict[str, Any]:
    """What is the encoder's, not a tower's; floats keep every bit in JSON."""
    paths = modalities.paths_of(encoder.serves)
    return {
        "version": vidal.__version__,
        "serves": encoder.serves,
        **({"modalities": paths} if paths else {}),
        "has_text": encoder.text is not None,
        "preprocessing": encoder.preprocessing,
        "logit_scale": {name: value.item() for name, value in encoder.logit_scale.items()},
        "logit_bias": {name: value.item() for name, value in encoder.logit_bias.items()},
    }


def _write_part(encoder: Encoder, name: str, folder: Path, shared: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tower = encoder.towers[name]
    assert isinstance(tower, VisionTower)
    state = _vision_state(merged(tower))
    config: dict[str, Any] = {
        "model_type": "vidal",
        "projection_dim": tower.settings.projection_dim,
        "vision_config": hf_vision_config(tower.settings),
        "vidal": shared | {"modality": name, "vision": tower.settings.model_dump(mode="json")},
    }
    if encoder.text is not None:
        config["vidal"]["max_tokens"] = encoder.text.max_tokens
        state |= _write_text(encoder.text, config, folder)
        if isinstance(encoder.text.model, ClipText) and is_plain_clip(tower.settings):
            _as_clip(encoder, name, config, state)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    _write_json(folder / "config.json", config)
    _write_card(encoder, folder, [name])


def is_plain_clip(s: VisionSettings) -> bool:
    """Whether transformers' CLIPVisionModel has all that the tower has."""
    height, width = s.height_width
    is_bare = s.pre_norm and not (s.patch_bias or s.temporal or s.class_embedding_per_frame)
    return is_bare and height == width and height % s.patch_size == 0


def _as_clip(encoder: Encoder, name: str, config: dict[str, Any], state: State) -> None:
    scales = [encoder.logit_scale[p] for p in encoder.logit_scale if p == f"text-{name}"]
    scale = scales[0].detach() if scales else torch.tensor(config["vidal"]["logit_scale"].get(f"text-{name}", 2.6592))
    state["logit_scale"] = scale
    config |= {"model_type": "clip", "architectures": ["CLIPModel"], "logit_scale_init_value": scale.item()}


def _vision_state(tower: VisionTower) -> State:
    projection = "visual_projection.weight"
    return {k if k == projection else f"vision_model.{k}": v for k, v in tower.state_dict().items()}


def _write_text(text: TextTower, config: dict[str, Any], folder: Path) -> State:
    """Tokenizer files and, of a CLIP text tower, its part of the state; another one gets its own folder."""
    if isinstance(text.model, ClipText):
        config["text_config"] = hf_text_config(text.model.settings)
        _copy_tokenizer(text, folder)
        projection = "text_projection.weight"
        return {k if k == projection else f"text_model.{k}": v for k, v in text.model.state_dict().items()}
    text.model.transformer.save_pretrained(folder / "text")
    _copy_tokenizer(text, folder / "text")
    return {}


def _copy_tokenizer(text: TextTower, folder: Path) -> None:
    for name in _TOKENIZER_FILES if text.folder is not None else ():
        source = text.folder / name if text.folder is not None else Path(name)
        if source.is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_card(encoder: Encoder, folder: Path, names: list[str]) -> None:
    lines = ["---", "library_name: vidal", "tags: [contrastive, multimodal]", "---", ""]
    lines += [f"# Encoder of {', '.join(names)}{' and text' if encoder.text is not None else ''}", ""]
    lines += ["| modality | input (height x width) | frames | ViT | embedding |", "|---|---|---|---|---|"]
    for name in names:
        s = encoder.tower(name).settings if name in encoder.serves else _settings(encoder, name)
        height, width = s.height_width
        vit = f"{s.layers} layers of {s.hidden_size}, patch {s.patch_size}"
        lines.append(f"| {name} | {height} x {width} | {s.frames} | {vit} | {s.projection_dim} |")
    lines += ["", "```python", "from vidal.train import load_encoder", "", "encoder = load_encoder(FOLDER)"]
    lines += [f'encoder.encode("{names[0]}", pixel_values)  # not normalised', "```", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _settings(encoder: Encoder, name: str) -> VisionSettings:
    tower = encoder.towers[name]
    assert isinstance(tower, VisionTower)
    return tower.settings


def to_onnx(encoder: Encoder, modality: str, path: str | Path) -> Path:
    """One tower as ONNX: ``pixel_values`` of any batch size to ``embedding``; adapters are folded in."""
    path = Path(path)
    tower = merged(encoder.tower(modality)).eval()
    s = tower.settings
    frames = (s.frames,) if s.frames > 1 else ()
    example = torch.zeros(2, s.channels, *frames, *s.height_width, device=next(tower.parameters()).device)
    try:
        program = torch.onnx.export(
            tower, (example,), input_names=["pixel_values"], output_names=["embedding"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}}, dynamo=True, verbose=False,
        )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"{path}: the tower cannot be written as ONNX: {' '.join(str(error).split())[:200]}"
        ) from error
    assert program is not None
    program.save(path)
    return path
