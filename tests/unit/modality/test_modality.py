"""The registry: what may become a modality, and which modules a dataset may have imported."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest

from vidal import modality as modalities
from vidal.errors import UserError, VidalWarning
from vidal.modality import registry
from vidal.modality.image import ImageModality


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    modalities.all()
    for name in ("_registered", "_paths", "_allowed"):
        monkeypatch.setattr(registry, name, getattr(registry, name).copy())


def of_layer(name: str) -> ImageModality:
    return type("Toy", (ImageModality,), {"layer": name, "stems": (name,), "word": name})()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules ``toys.normals`` and ``toys2``, each with a modality, to be imported."""
    folder = tmp_path_factory.mktemp("modules")
    source = OF_LAYER + "TOY, THING = of_layer('toy'), 1\n"
    (folder / "toys").mkdir()
    for name in ("toys/__init__.py", "toys/normals.py", "toys2.py"):
        (folder / name).write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    yield
    for name in ("toys", "toys.normals", "toys2"):
        sys.modules.pop(name, None)


OF_LAYER = """
from vidal.modality.image import ImageModality

def of_layer(name):
    return type("Toy", (ImageModality,), {"layer": name, "stems": (name,), "word": name})()
"""


def test_the_four_modalities_are_known_in_vidals_order() -> None:
    assert [m.layer for m in modalities.all()] == ["video", "infrared", "depth", "audio"]
    with pytest.raises(UserError, match="no modality `smell`; choose from video, infrared, depth, audio"):
        modalities.get("smell")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("depth", "the name is already in use by Depth"),
        ("text", "not one of text, image"),
        ("a-b", "lower-case letters and digits"),
        ("../x", "lower-case letters and digits"),
        ("a_to_b", "lower-case letters and digits"),
        ("", "lower-case letters and digits"),
    ],
)
def test_what_cannot_be_a_modality_is_rejected(layer: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        modalities.register(of_layer(layer))


def test_a_registered_modality_is_found_by_name_and_by_suffix() -> None:
    toy = of_layer("toy")
    modalities.register(toy)
    modalities.register(toy)
    assert (modalities.get("toy"), modalities.layer_of("toy.3.png")) == (toy, "toy")
    assert modalities.paths_of(["toy", "depth"]) == {}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("toys.normals", "write package.module:NAME"),
        ("no_such_module:TOY", "No module named 'no_such_module'"),
        ("toys.normals:GONE", "has no attribute 'GONE'"),
        ("toys.normals:THING", "it is not a vidal.modality.modality.Modality"),
        (7, "write package.module:NAME"),
    ],
)
def test_a_recipe_that_names_no_modality_is_told_in_one_line(path: object, said: str, module: None) -> None:
    with pytest.raises(UserError) as caught:
        modalities.load_all([path], "r.yaml")
    assert said in str(caught.value) and str(caught.value).startswith("r.yaml: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "path", "is_loaded"),
    [
        ("toys", "toys:TOY", True),
        ("toys", "toys.normals:TOY", True),
        ("toys.normals", "toys.normals:TOY", True),
        ("toys.normals", "toys:TOY", False),
        ("toys", "toys2:TOY", False),
        ("", "toys:TOY", False),
        ("os", "os;print(1):x", False),
    ],
)
def test_a_dataset_has_only_allowed_modules_imported(allowed: str, path: str, is_loaded: bool, module: None) -> None:
    modalities.allow(allowed)
    if is_loaded:
        modalities.load_recorded({"toy": path}, "data", ["video", "toy"])
        assert modalities.paths_of(["toy"]) == {"toy": path}
        return
    with pytest.warns(VidalWarning, match="data: layer `toy` is skipped: its modality .* is not loaded"):
        modalities.load_recorded({"toy": path}, "data", ["video", "toy"])
    assert modalities.find("toy") is None and not {"toys", "toys.normals", "toys2"} & set(sys.modules)


def test_a_module_that_the_program_has_imported_is_used(module: None) -> None:
    __import__("toys.normals")
    modalities.load_recorded({"toy": "toys.normals:TOY"}, "data")
    assert modalities.find("toy") is not None


def test_what_is_imported_already_and_no_modality_is_rejected() -> None:
    assert isinstance(sys.modules["sys"], types.ModuleType)
    with pytest.raises(UserError, match="it is not a vidal"):
        modalities.load_recorded({"toy": "sys:path"}, "data")


def test_a_layer_without_a_modality_is_named_and_a_layer_of_files_is_none() -> None:
    with pytest.warns(VidalWarning) as said:
        modalities.load_recorded({}, "data", ["video", "source", "pose"])
    assert ["layer `pose` is skipped" in str(warning.message) for warning in said] == [True]
