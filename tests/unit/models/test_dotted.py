"""A model outside vidal is a function in an importable module, identified by that module's bytes."""

from pathlib import Path

import pytest

from vidal.errors import ModelError
from vidal.models.dotted import is_dotted, load_function
from vidal.models.inventory import find
from vidal.models.locate import identity


@pytest.mark.parametrize(
    ("reference", "dotted"),
    [
        ("my_models:load", True), ("my_models.thermal:load", True), ("vidal:depth_small", False),
        ("package:some_package/model", False), ("acme/srgb-tir", False), ("./weights.pt", False), ("my-models:load", False),
    ],
)  # fmt: skip
def test_a_reference_is_dotted_if_it_names_a_module_and_a_function(reference: str, dotted: bool) -> None:
    assert is_dotted(reference) is dotted


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "models_outside.py"
    path.write_text("SIZE = 1\ndef load():\n    return 'loaded'\n")
    return path


def test_the_function_is_loaded_and_its_file_identifies_it(module: Path) -> None:
    reference = "models_outside:load"
    assert load_function(reference)() == "loaded"
    assert identity(reference).startswith(f"{reference} sha256:")
    assert find("infrared", "model", reference).path == module


@pytest.mark.parametrize(
    "name", ["models_outside:missing", "models_outside:SIZE", "models_elsewhere:load", "no.such:load"]
)
def test_what_cannot_be_loaded_is_one_error_that_names_it(module: Path, name: str) -> None:
    with pytest.raises(ModelError, match=name):
        identity(name)
        load_function(name)
