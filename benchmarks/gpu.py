"""What a GPU makes of depth, infrared, captions and match: each model alone, and all of them as one group of stages.

    python benchmarks/gpu.py [--half bfloat16] [--size small] [--clips 64]
    python benchmarks/gpu.py --quick --device cpu       toy sizes: only shows that it runs

The models have random weights in the sizes that are used: Depth Anything V2 (large; small with ``--size small``), the
sRGB-TIR generator, BLIP large (base) and CLIP ViT-L/14 (B/32). A captioner that knows nothing never ends a caption:
each has all of its 20 tokens. Frames are those of 720p clips as `media` stores them, eight JPEG files of 456 x 256.

Each stage alone: frames/s of the calls of its model; frames/s of the whole stage, which also decodes
frames and encodes what it stores; the share of the stage's time in which the device is busy. A model's calls are timed
by CUDA events before and after each, so that waits for the host within a call count as busy. ``group`` has all stages
one after the other on the same clips, in the windows of a worker. Target: clips/s of the group are at least 0.8 of the
slowest model alone. ``at_most`` is what that figure would be if no model ever waited: they have the device in turn.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from figures import log, options, show
from PIL import Image
from safetensors.torch import save_file

from vidal.clip import Clip
from vidal.engine.isolate import run_stage
from vidal.engine.job import Notes, ShardReport
from vidal.models.device import DeviceChoice, Half
from vidal.models.frame_batch import MOVED
from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig
from vidal.recipe import EngineSettings
from vidal.stages.modalities.depth import Depth
from vidal.stages.modalities.infrared import Infrared
from vidal.stages.model_stage import ModelStage
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.stages.text.text_match import TextMatch
from vidal.work import Member

FRAMES = 8
FRAME = (456, 256)
TOKENS = 20
WORDS = 30_524
CALLS = {"estimate", "translate", "caption", "images", "texts"}
"""Methods of loaded models that compute."""
# Width, layers, heads: as published, but for toys.
TRANSFORMERS = {
    "toy": (24, 2, 2), "small": (384, 12, 6), "text": (512, 12, 8), "base": (768, 12, 12), "large": (1024, 24, 16),
}  # fmt: skip
DEPTHS: dict[str, dict[str, Any]] = {
    "toy": {"at": [1, 2], "neck": [8, 8], "fusion": 8, "factors": [1, 0.5]},
    "small": {"at": [3, 6, 9, 12], "neck": [48, 96, 192, 384], "fusion": 64, "factors": [4, 2, 1, 0.5]},
    "large": {"at": [5, 12, 18, 24], "neck": [256, 512, 1024, 1024], "fusion": 256, "factors": [4, 2, 1, 0.5]},
}
BESIDE = {"toy": "toy", "small": "base", "large": "large"}
"""The size of the models of images and text, by that of the depth model."""


class Clock:
    """Seconds that the device was busy with the calls of one model."""

    def __init__(self, device: str) -> None:
        self._is_gpu = device == "cuda"
        self._calls: list[tuple[Any, Any]] = []

    def now(self) -> Any:
        if not self._is_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, started: Any) -> None:
        self._calls.append((started, self.now()))

    def busy_s(self) -> float:
        """The sum of all calls since the last time this was asked."""
        calls, self._calls = self._calls, []
        if not self._is_gpu:
            return sum(ended - started for started, ended in calls)
        torch.cuda.synchronize()
        return sum(started.elapsed_time(ended) for started, ended in calls) / 1000


class Timed:
    """A loaded model whose calls are timed."""

    def __init__(self, model: Any, clock: Clock) -> None:
        self._model, self._clock = model, clock

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        return self._timed(value) if name in CALLS else value

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = self._clock.now()
            try:
                return method(*arguments)
            finally:
                self._clock.add(started)

        return call


def transformer(size: str, **more: Any) -> dict[str, Any]:
    width, layers, heads = TRANSFORMERS[size]
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * width,
        **more,
    }  # fmt: skip


def tokenizer(folder: Path) -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*special, *(f"word{n}" for n in range(WORDS - len(special)))]))
    return transformers.BertTokenizerFast(vocab=str(vocabulary), model_max_length=77)


def depth_anything(_folder: Path, size: str) -> tuple[Any, Any]:
    of, side = DEPTHS[size], 56 if size == "toy" else 518
    backbone = transformers.Dinov2Config(
        **transformer(size), patch_size=14, image_size=side, out_indices=of["at"], apply_layernorm=True,
        reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=TRANSFORMERS[size][0], patch_size=14,
        reassemble_factors=of["factors"], neck_hidden_sizes=of["neck"], fusion_hidden_size=of["fusion"],
        head_hidden_size=8 if size == "toy" else 32, depth_estimation_type="metric", max_depth=20,
    )  # fmt: skip
    square = {"height": side, "width": side}
    processor = transformers.DPTImageProcessor(size=square, keep_aspect_ratio=True, ensure_multiple_of=14)
    return transformers.DepthAnythingForDepthEstimation(config), processor


def blip(folder: Path, size: str) -> tuple[Any, Any]:
    side = 32 if size == "toy" else 384
    text = transformer(
        "toy" if size == "toy" else "base", vocab_size=WORDS, encoder_hidden_size=TRANSFORMERS[size][0], sep_token_id=3
    )
    config = transformers.BlipConfig(
        text_config={**text, "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0},
        vision_config=transformer(size, image_size=side, patch_size=16),
    )
    images = transformers.BlipImageProcessor(size={"height": side, "width": side})
    return transformers.BlipForConditionalGeneration(config), transformers.BlipProcessor(images, tokenizer(folder))


def clip_model(folder: Path, size: str) -> tuple[Any, Any]:
    side, patch = (32, 16) if size == "toy" else (224, 14 if size == "large" else 32)
    text = transformer({"toy": "toy", "base": "text", "large": "base"}[size])
    config = transformers.CLIPConfig(
        text_config={**text, "vocab_size": 49_408, "max_position_embeddings": 77},
        vision_config=transformer(size, image_size=side, patch_size=patch),
        projection_dim=768 if size == "large" else 512,
    )  # fmt: skip
    tokenizer(folder).save_pretrained(folder)
    square = {"height": side, "width": side}
    return transformers.CLIPModel(config), transformers.CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size=square
    )


def checkpoint(folder: Path, device: str, make: Callable[[Path, str], tuple[Any, Any]], size: str) -> str:
    """Save a model with random weights and its processor, as a hub folder would hold them."""
    folder.mkdir()
    torch.manual_seed(0)
    # On the device, where hundreds of millions of random numbers take no time.
    with torch.device(device):
        model, processor = make(folder, size)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    log(f"{folder.name}: {sum(weights.numel() for weights in model.parameters()) / 1e6:,.0f} M parameters")
    return str(folder)


def srgb_tir(folder: Path, *, is_toy: bool) -> str:
    folder.mkdir()
    torch.manual_seed(0)
    config = SrgbTirConfig(dim=8, n_res=1, mlp_dim=16) if is_toy else SrgbTirConfig()
    weights = {
        f"{'b' if name.startswith('enc') else 'a'}.{name}": w for name, w in SrgbTir(config).state_dict().items()
    }
    save_file(weights, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps({"gen": asdict(config)}))
    return str(folder)


def stages_of(folder: Path, device: DeviceChoice, size: str, half: Half) -> list[ModelStage]:
    """The four stages, with their models loaded."""
    beside, is_toy = BESIDE[size], size == "toy"
    where: dict[str, Any] = {"device": device, "half": half}
    stages: list[ModelStage] = [
        Depth(model=checkpoint(folder / "depth", device, depth_anything, size), **where),
        Infrared(model=srgb_tir(folder / "infrared", is_toy=is_toy), **where),
        FrameCaptions(
            backend="transformers", model=checkpoint(folder / "captions", device, blip, beside),
            max_new_tokens=4 if is_toy else TOKENS, **where,
        ),
        TextMatch(backend="clip", model=checkpoint(folder / "match", device, clip_model, beside), **where),
    ]  # fmt: skip
    for stage in stages:
        stage.setup()
    return stages


def timed(stage: ModelStage, clock: Clock) -> None:
    name = {"depth": "_estimator", "infrared": "_translator", "frame_captions": "_captioner", "text_match": "_matcher"}
    attribute = name[stage.step_name()]
    setattr(stage, attribute, Timed(getattr(stage, attribute), clock))


def stored_clips(count: int, size: tuple[int, int]) -> list[Clip]:
    """Clips with the frames of 720p films, as they are stored; smooth colours that no model knows."""
    clips = []
    for number in range(count):
        clip = Clip(clip_id=str(number), title="a dog runs in the park", frame_width=size[0], frame_height=size[1])
        for k in range(FRAMES):
            noise = np.random.default_rng([number, k]).integers(0, 255, (18, 32, 3), dtype=np.uint8)
            film = Image.fromarray(noise).resize((1280, 720), Image.Resampling.BICUBIC)
            data = io.BytesIO()
            film.resize(size, Image.Resampling.LANCZOS).save(data, "JPEG", quality=90)
            clip.work.put(Member(layer="video", suffix=f"frame.{k}.jpg", data=data.getvalue(), time_s=float(k)))
        clips.append(clip)
    return clips


def run(stages: Sequence[ModelStage], clips: Sequence[Clip]) -> float:
    """Seconds that a worker needs for the stages, from stored frames to stored results."""
    window = EngineSettings().window
    report = ShardReport(shard=0)
    started = time.perf_counter()
    for first in range(0, len(clips), window):
        for stage in stages:
            run_stage(stage, clips[first : first + window], report, Notes(), isolate=False)
        for clip in clips[first : first + window]:
            clip.work.forget_decoded()
    if failed := next((clip for clip in clips if not clip.is_open), None):
        raise SystemExit(f"{failed.stage} failed: {failed.reason}, {failed.detail}")
    return time.perf_counter() - started


def measure(stages: Sequence[ModelStage], device: DeviceChoice, count: int, size: tuple[int, int]) -> dict[str, Any]:
    is_gpu = device == "cuda"
    clips, clock = stored_clips(count, size), Clock(device)
    for stage in stages:
        timed(stage, clock)
    # The first calls choose algorithms and allocate.
    run(stages, stored_clips(min(count, stages[0].needs.batch_size), size))
    clock.busy_s()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    models: dict[str, dict[str, float]] = {}
    alone_s = []
    for stage in stages:
        wall_s, busy_s = run([stage], clips), clock.busy_s()
        alone_s.append(busy_s)
        models[stage.step_name()] = {
            "frames_per_s": FRAMES * count / busy_s, "stage_frames_per_s": FRAMES * count / wall_s,
            "busy": busy_s / wall_s,
        }  # fmt: skip
    MOVED.reset()
    wall_s, busy_s = run(stages, clips), clock.busy_s()
    group = {
        "clips_per_s": count / wall_s, "busy": busy_s / wall_s, "against_the_slowest_model": max(alone_s) / wall_s,
        "at_most": max(alone_s) / sum(alone_s),
    }  # fmt: skip
    moved = {f"{way}_MB_per_clip": moved / count / 1e6 for way, moved in asdict(MOVED).items()}
    return {
        "device": torch.cuda.get_device_name() if is_gpu else "cpu", "torch": torch.__version__, "clips": count,
        **models, "group": group, "moved": moved,
        "memory_GiB": torch.cuda.max_memory_allocated() / 2**30 if is_gpu else None,
    }  # fmt: skip


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], help="by default a GPU; with --quick, a CPU where none is")
    parser.add_argument("--size", choices=["small", "large"], default="large")
    parser.add_argument("--half", choices=["float16", "bfloat16", "none"], default="bfloat16")
    parser.add_argument("--clips", type=int, default=64)
    given = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    device = given.device or ("cpu" if given.quick and not has_gpu else "cuda")
    if device == "cuda" and not has_gpu:
        parser.exit(2, "no GPU is here; `--quick --device cpu` runs the same code at toy size\n")
    half: Half = {"float16": True, "bfloat16": "bfloat16", "none": False}[given.half]
    size, count, frame = ("toy", 2, (114, 64)) if given.quick else (given.size, given.clips, FRAME)
    # The models' files are looked up by name as long as their stages run.
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(stages_of(Path(folder), device, size, half), device, count, frame)
    show({"half": given.half, **figures}, as_json=given.json)


if __name__ == "__main__":
    main()
