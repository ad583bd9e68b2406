"""Export of an encoder to a folder in Hugging Face layout, or of its towers to ONNX.

    OUT/config.json, model.safetensors     one modality: vision and text tower under transformers' CLIPModel names
    OUT/config.json, OUT/depth/, …         several modalities: an index, and one such folder for each

With a CLIP text tower, a plain CLIP vision tower (square input, no temporal attention) also loads in transformers.
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
from torch import nn

import vidal
from vidal import modality as modalities
from vidal.errors import ModelError, OutputError, machine_error, one_line
from vidal.train.towers.config import hf_text_config, hf_vision_config
from vidal.train.towers.encoder import Encoder
from vidal.train.towers.settings import VisionSettings
from vidal.train.towers.text import ClipText
from vidal.train.towers.tune import merged, merged_text
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import State

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "special_tokens_map.json",
    "added_tokens.json", "sentence_bert_config.json", "modules.json", "1_Pooling/config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedEncoder:
    """The paths that an encoder was exported to: one folder, or one ONNX file per modality."""

    written: list[Path]

    def lines(self) -> Iterator[str]:
        yield f"wrote {', '.join(map(str, self.written))}"

    def as_json(self) -> dict[str, Any]:
        return {"written": [str(path) for path in self.written]}


def write_encoder(encoder: Encoder, out: Path, format: Literal["hugging-face", "onnx"]) -> ExportedEncoder:
    """Export an encoder with `save_folder`, or each of its towers with `to_onnx`, into the folder ``out``."""
    if format == "hugging-face":
        return ExportedEncoder(written=[save_folder(encoder, out)])
    out.mkdir(parents=True, exist_ok=True)
    return ExportedEncoder(
        written=[to_onnx(encoder, modality, out / f"{modality}.onnx") for modality in encoder.modalities]
    )


def save_folder(encoder: Encoder, out: str | Path) -> Path:
    """Save the encoder, adapters folded in, such that `load_encoder` returns a bitwise identical one.

    The folder is renamed into place once it is complete. Raises `OutputError` if ``out`` is a file or not empty.
    """
    out = Path(out).expanduser()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: already exists; choose another folder")
    # Beside its final place, as a rename is atomic only within one file system.
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_folder(encoder, partial)
        if out.is_dir():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise machine_error(error, str(out)) or OutputError(f"{out}: cannot be written: {error}") from error
    return out


def _write_folder(encoder: Encoder, folder: Path) -> None:
    names = list(encoder.towers)
    paths = modalities.paths_of(encoder.serves)
    # Python writes a float to JSON such that the same float is read back.
    shared = {
        "version": vidal.__version__,
        "serves": encoder.serves,
        **({"modalities": paths} if paths else {}),
        "has_text": encoder.text is not None,
        "preprocessing": encoder.preprocessing,
        "logit_scale": {name: value.item() for name, value in encoder.logit_scale.items()},
        "logit_bias": {name: value.item() for name, value in encoder.logit_bias.items()},
    }
    for name in names:
        served = {modality: tower for modality, tower in encoder.serves.items() if tower == name}
        _write_part(encoder, name, folder if len(names) == 1 else folder / name, shared | {"serves": served})
    if len(names) != 1:
        _write_json(folder / "config.json", {"model_type": "vidal", "vidal": shared | {"folders": names}})
        _write_card(encoder, folder, names)


def _write_part(encoder: Encoder, name: str, folder: Path, shared: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    tower = _tower(encoder, name)
    state = _clip_names(merged(tower), "vision_model")
    config: dict[str, Any] = {
        "model_type": "vidal",
        "projection_dim": tower.settings.projection_dim,
        "vision_config": hf_vision_config(tower.settings),
        "vidal": shared | {"modality": name, "vision": tower.settings.model_dump(mode="json")},
    }
    if encoder.text is not None:
        text, text_folder = merged_text(encoder.text), folder
        config["vidal"]["max_tokens"] = encoder.text.max_tokens
        if isinstance(text, ClipText):
            config["text_config"] = hf_text_config(text.settings)
            state |= _clip_names(text, "text_model")
            if is_plain_clip(tower.settings):
                # A CLIPModel needs a scale; a tower that is not paired with text gets CLIP's initial log(1 / 0.07).
                scale = dict(encoder.logit_scale.items()).get(f"text-{name}", torch.tensor(2.6592))
                state["logit_scale"] = scale
                config |= {"model_type": "clip", "architectures": ["CLIPModel"], "logit_scale_init_value": scale.item()}
        else:
            text_folder = folder / "text"
            text.transformer.save_pretrained(text_folder)
        for file in _TOKENIZER_FILES:
            if encoder.text.folder is not None and (encoder.text.folder / file).is_file():
                (text_folder / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(encoder.text.folder / file, text_folder / file)
    # transformers expects the format in the file's metadata.
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    _write_json(folder / "config.json", config)
    _write_card(encoder, folder, [name])


def is_plain_clip(s: VisionSettings) -> bool:
    """Return whether transformers' CLIPVisionModel can represent the tower."""
    height, width = s.height_width
    is_bare = s.pre_norm and not (s.patch_bias or s.temporal or s.class_embedding_per_frame)
    return is_bare and height == width and height % s.patch_size == 0


def _clip_names(tower: nn.Module, prefix: str) -> State:
    # CLIPModel holds both projections itself, beside its two models.
    outer = ("visual_projection.weight", "text_projection.weight")
    return {name if name in outer else f"{prefix}.{name}": tensor for name, tensor in tower.state_dict().items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_card(encoder: Encoder, folder: Path, names: list[str]) -> None:
    lines = ["---", "library_name: vidal", "tags: [contrastive, multimodal]", "---", ""]
    lines += [f"# Encoder of {', '.join(names)}{' and text' if encoder.text is not None else ''}", ""]
    lines += ["| modality | input (height x width) | frames | ViT | embedding |", "|---|---|---|---|---|"]
    for name in names:
        s = _tower(encoder, name).settings
        height, width = s.height_width
        vit = f"{s.layers} layers of {s.hidden_size}, patch {s.patch_size}"
        lines.append(f"| {name} | {height} x {width} | {s.frames} | {vit} | {s.projection_dim} |")
    lines += ["", "```python", "from vidal.train import load_encoder", "", "encoder = load_encoder(FOLDER)"]
    lines += [f'encoder.encode("{names[0]}", pixel_values)  # not normalised', "```", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _tower(encoder: Encoder, name: str) -> VisionTower:
    tower = encoder.towers[name]
    assert isinstance(tower, VisionTower)
    return tower


def to_onnx(encoder: Encoder, modality: str, path: str | Path) -> Path:
    """Export one tower, adapters folded in, as an ONNX file.

    Its input ``pixel_values`` is (b, c, h, w), or (b, c, t, h, w) with t fixed, its output ``embedding`` (b, d), for
    any b. Raises `ModelError` if torch cannot export the tower.
    """
    path = Path(path)
    tower = merged(encoder.tower(modality)).eval()
    s = tower.settings
    frames = (s.frames,) if s.frames > 1 else ()
    # Two clips, as torch.export takes a dimension of size 1 for a constant.
    example = torch.zeros(2, s.channels, *frames, *s.height_width, device=next(tower.parameters()).device)
    try:
        program = torch.onnx.export(
            tower, (example,), input_names=["pixel_values"], output_names=["embedding"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}}, dynamo=True, verbose=False,
        )  # fmt: skip
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(f"{path}: the tower cannot be exported to ONNX: {one_line(error, 200)}") from error
    assert program is not None
    program.save(path)
    return path
