"""Models through the public door: fetched once from a hub, then found, loaded and timed without one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.hub import COMMIT, hub
from tests.runs import vidal as run_vidal
from vidal.models.locate import CHECKPOINTS

MODEL = "acme/depth-tiny"


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
    repository: Path, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("model", [MODEL, "acme/other"], ids=["no hub", "no such model"])
def test_what_cannot_be_fetched_is_one_line(
    model: str, repository: Path, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(recipe.read_text().replace(f"{MODEL}@{COMMIT}", model))
    with hub("acme/unrelated", repository) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url if model != MODEL else "http://127.0.0.1:9")
        done = run_vidal("models", "pull", recipe)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"depth.model: {model} cannot be fetched (" in done.stderr


def test_a_model_that_is_not_here_is_told_by_doctor(recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run_vidal("doctor", recipe)
    assert done.returncode == 1
    assert f"model depth.model: {MODEL}@{COMMIT} (hub, not on this machine" in done.stdout
    assert "FAIL stage depth: depth: model" in done.stdout and os.linesep not in done.stdout.splitlines()[-1]
