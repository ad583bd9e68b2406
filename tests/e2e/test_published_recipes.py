"""LanguageBind's four recipes, which ship, take steps on tiny random CLIP weights with every switch on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.clip_folders import VOCABULARY, clip_folder, clip_tokenizer
from tests.conftest import ROOT
from tests.processes import command
from tests.ranks import command_on_ranks
from tools.rendering import learning_set

SWITCHES = [
    "batch_size=8", "chunk_size=3", "epochs=null", "steps=2", "data.workers=1", "data.heldout=0.3",
    "text.max_tokens=16", "text.lora.dropout=0.1", "text.views=mix", "optimiser.ema=0.9", "optimiser.clip_norm=1.0",
    "optimiser.layer_decay=0.9", "optimiser.schedule=warmup_stable_decay", "optimiser.warmup_steps=1",
    "optimiser.lr_multipliers={'*.visual_projection.*': 0.5}", "loss.mask_duplicates=true", "loss.tile_rows=3",
    "pairs_per_step=all", "fsdp=true", "checkpoints.every_steps=1", "eval.every_steps=1", "log.tensorboard=true",
    "threads=1",
]  # fmt: skip
OF_MODALITY = {
    "video": ["transform.size=32", "transform.colour_jitter.brightness=0.2", "transform.frame_choice=random"],
    "depth": ["transform.size=32", "transform.scale=[0.8, 1.0]", "transform.flip=0.5"],
    "infrared": ["transform.size=32", "transform.scale=[0.8, 1.0]"],
    "audio": ["image_size=[32, 64]", "transform.mel_bins=32", "transform.length=64", "transform.time_mask=8",
              "transform.frequency_mask=4", "transform.masks=2"],
}  # fmt: skip
# A text tower that is trained has no cache of its embeddings.
TEXT = {"video": "lora", "depth": "frozen", "infrared": "full", "audio": "frozen"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clip_folder(tmp_path_factory.mktemp("clip"), vocabulary=VOCABULARY)
    clip_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "set"
    learning_set.write(str(out), clips=16, scenes=8, size=32, workers=1)
    return out


# Compiling the layers of two towers for a CPU takes minutes on a busy machine.
@pytest.mark.parametrize(("compile", "ranks"), [
    (False, 1), pytest.param(True, 1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]), pytest.param(False, 2, marks=pytest.mark.slow),
])  # fmt: skip
@pytest.mark.parametrize("modality", OF_MODALITY)
def test_a_published_recipe_takes_steps_with_every_switch_on(
    modality: str, compile: bool, ranks: int, clip: Path, data: Path, tmp_path: Path
) -> None:
    tower = [f"model={clip}", "gradient_checkpointing=true", "lora.dropout=0.1", *OF_MODALITY[modality]]
    settings = [
        f"text.model={clip}",
        f"text.tune={TEXT[modality]}",
        f"compile={compile}",
        *SWITCHES,
        *(f"towers.{modality}.{setting}" for setting in tower),
    ]
    overrides = [part for setting in settings for part in ("--set", setting)]
    recipe = ROOT / "pipelines" / "train" / f"{modality}.yaml"
    train = command if ranks == 1 else partial(command_on_ranks, ranks)
    told = train("train", recipe, "--data", data, "--out", tmp_path / "run", *overrides)
    assert told.returncode == 0, told.stderr
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert [step["step"] for step in steps] == [0, 1] and all(step["is_finite"] for step in steps)
    assert sum(event["event"] == "eval" for event in events) == 2
    assert (tmp_path / "run" / "text_cache").exists() is (TEXT[modality] == "frozen")
    # What was trained is there again.
    evaluated = command("eval", tmp_path / "run", "--data", data, "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"text_to_{modality}" in json.loads(evaluated.stdout)
