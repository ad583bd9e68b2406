"""A recipe is rejected in one clear line that names the place, or it is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runs import PAINT, SAME_TITLE, SHADE
from vidal import clip as clips
from vidal import recipe as recipes
from vidal.errors import RecipeError, UserError
from vidal.recipe import check, fingerprint, load
from vidal.settings import differences
from vidal.stage import Stage
from vidal.stages.modalities.depth import Depth

FETCH_AND_PROBE = "source: {list: a.csv}\nstages:\n- fetch\n- probe\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    (folder / "a.csv").write_text("url\na.mp4\n")
    return path


REJECTED = [
    ("", "a recipe is a mapping with `source` and `stages`"),
    ("- fetch", "a recipe is a mapping with `source` and `stages`"),
    ("source: {list: [", "not YAML: while parsing"),
    ("stages: [fetch]", "`source` must have one of the keys list, folder, dataset, datasets, segments, vidal_json"),
    (
        "source: a.csv\nstages: [fetch]",
        "`source` must have one of the keys list, folder, dataset, datasets, segments, vidal_json",
    ),
    (
        "source: {lst: a.csv}\nstages: [fetch]",
        "`source` must have one of the keys list, folder, dataset, datasets, segments, vidal_json",
    ),
    ("source: {list: a.csv, folder: b}\nstages: [fetch]", "`source` has both list and folder; keep one"),
    ("source: {list: a.csv, depth: 2}\nstages: [fetch]", "source: unknown setting `depth`; it has list"),
    ("source: {list: 7}\nstages: [fetch]", "source.list: Input should be a valid string (got 7)"),
    ("source: {list: a.csv}", "`stages` must be a list of at least one stage"),
    ("source: {list: a.csv}\nstages: {fetch: {}}", "`stages` must be a list of at least one stage"),
    ("source: {list: a.csv}\nstages: []", "`stages` must be a list of at least one stage"),
    (
        "source: {list: a.csv}\nstages: [fetch]\nshard: 4",
        "unknown key `shard`; the keys of a recipe are name, source, shards",
    ),
    ("source: {list: a.csv}\nstages: [fetch]\nshards: 4", "shards: settings are `name: value`, not 4"),
    ("source: {list: a.csv}\nstages: [fetch]\nshards: {size: 0}", "shards.size: Input should be greater than or equal"),
    ("source: {list: a.csv}\nstages: [fetch]\nshards: {sise: 4}", "shards: unknown setting `sise`; it has size, seed"),
    ("source: {list: a.csv}\nstages: [fetch]\nengine: {window: 0}", "engine.window: Input should be greater than or"),
    ("source: {list: a.csv}\nstages: [fetsh]", "stages[0]: no stage `fetsh`; did you mean `fetch`?"),
    ("source: {list: a.csv}\nstages: [zzz]", "stages[0]: no stage `zzz`; known: fetch, keep_source, probe"),
    ("source: {list: a.csv}\nstages: ['os:path']", "stages[0]: no stage `os:path` (os:path is not a stage); known"),
    ("source: {list: a.csv}\nstages: ['no.such:Stage']", "no stage `no.such:Stage` (No module named 'no'); known"),
    (
        "source: {list: a.csv}\nstages: [[fetch]]",
        "stages[0]: write a stage as `name` or `name: {setting: value}`, not [",
    ),
    (
        "source: {list: a.csv}\nstages: [{fetch: 3}]",
        "stages[0]: write a stage as `name` or `name: {setting: value}`, not {",
    ),
    ("source: {list: a.csv}\nstages: [fetch, fetch]", "stage `fetch` is listed twice; list each stage once"),
    (f"{FETCH_AND_PROBE}- too_long: {{max_sec: 3}}", "stages[2].too_long: unknown setting `max_sec`; it has "),
    (
        f"{FETCH_AND_PROBE}- too_long: {{max_s: -1}}",
        "stages[2].too_long.max_s: Input should be greater than 0 (got -1)",
    ),
    (f"{FETCH_AND_PROBE}- too_long: {{max_s: x}}", "stages[2].too_long.max_s: Input should be a valid number"),
    (f"{FETCH_AND_PROBE}- too_long: {{resources: {{gpu: 1}}}}", "too_long: unknown setting `resources.gpu`"),
    ("source: {list: a.csv}\nstages: [too_long]", "stages[0].too_long reads `duration_s`, which nothing before it"),
    ("source: {list: a.csv}\nstages: [too_long]", "writes; put `probe` before it"),
    (f"source: {{list: a.csv}}\nstages: ['{SHADE}']", "stages[0].shade reads `video`, which nothing before it writes"),
]


@pytest.mark.parametrize(("text", "message"), REJECTED)
def test_a_bad_recipe_is_rejected_in_one_line_that_names_the_place(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_or_is_no_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.yaml: no such file; it holds `source` and `stages`"):
        load(tmp_path / "no.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary\.yaml: cannot be read"):
        load(tmp_path / "binary.yaml")


SET = [
    ("shards.size=4", lambda r: r.shards.size, 4),
    ("shards.seed=-1", lambda r: r.shards.seed, -1),
    ("engine.window=3", lambda r: r.engine.window, 3),
    ("too_long.max_s=30", lambda r: r.stages[2].max_s, 30.0),
    ("stages.too_long.max_s=30", lambda r: r.stages[2].max_s, 30.0),
    ("probe.resources.batch_size=7", lambda r: r.stages[1].resources.batch_size, 7),
    ("tests.engine_toys:Paint.pixels=8", lambda r: r.stages[3].pixels, 8),
    ("source.folder=clips", lambda r: r.source.folder, str(Path("clips").resolve())),
]


@pytest.mark.parametrize(("override", "read", "value"), SET)
def test_a_setting_can_be_overridden(override: str, read: Any, value: object, tmp_path: Path) -> None:
    path = written(tmp_path, f"{FETCH_AND_PROBE}- too_long: {{max_s: 9}}\n- {PAINT}")
    assert read(load(path, [override])) == value


def test_half_is_for_every_stage_that_has_it_and_does_not_set_it(tmp_path: Path) -> None:
    stages = "source: {list: a.csv}\nstages: [fetch, probe, media, depth, infrared: {half: false}, text_match]\n"

    def halves(recipe: recipes.Recipe) -> dict[str, object]:
        return {stage.step_name(): stage.half for stage in recipe.stages if hasattr(stage, "half")}

    path = written(tmp_path, stages)
    assert halves(load(path)) == {"depth": True, "infrared": False, "text_match": True}
    plain = fingerprint(load(path).resolved())
    asked = {"depth": "bfloat16", "infrared": False, "text_match": "bfloat16"}
    assert halves(load(path, ["half=bfloat16"])) == asked
    recipe = load(written(tmp_path, stages + "half: bfloat16"))
    assert halves(recipe) == asked
    assert fingerprint(recipe.resolved()) != plain
    again = recipes.steps_again(recipe.definition, "dataset.json")
    assert {step.half for step in again if isinstance(step, Depth)} == {"bfloat16"}, (
        "a dataset's own recipe has it, too"
    )


STRANGERS = {
    "a stage": {"stages": ["strange.code:Stage"]},
    "a stage with settings": {"stages": [{"strange.code:Stage": {"size": 3}}]},
    "a model": {"stages": ["fetch", {"depth": {"model": "strange.code:load"}}]},
    "a model within a setting": {"stages": [{"depth": {"models": [{"first": "strange.code:load"}]}}]},
    "a modality": {"stages": ["fetch"], "modalities": ["strange.code:NORMALS"]},
}


@pytest.mark.parametrize("definition", STRANGERS.values(), ids=STRANGERS)
def test_the_modules_that_a_strangers_dataset_names_are_not_imported(definition: dict[str, Any]) -> None:
    for read in (recipes.steps_again, lambda of, place: recipes.again(of, (), place)):
        with pytest.raises(UserError, match=r"^dataset\.json: it names strange\.code:\w+, which is not imported"):
            read(definition, "dataset.json")


SET_REJECTED = [
    ("half=float8", "`half` is true (float16), bfloat16 or false, not 'float8'"),
    ("size", "--set size: write key.path=value"),
    ("size=4", "--set size: write key.path=value"),
    ("shards.size", "--set shards.size: write key.path=value"),
    ("shards.size=[", "--set shards.size: the value is not YAML"),
    ("shards.size=0", "shards.size: Input should be greater than or equal to 1 (got 0)"),
    ("too_short.min_s=1", "--set too_short.min_s: the recipe has no stage `too_short`"),
    ("too_lng.max_s=1", "--set too_lng.max_s: the recipe has no stage `too_lng`; did you mean `too_long`?"),
    ("stages.prob.x=1", "the recipe has no stage `prob`; did you mean `probe`?"),
    ("shard.size=1", "the recipe has no stage `shard`; did you mean `shards`?"),
    ("zzz.size=1", "the recipe has no stage `zzz`; its stages: fetch, probe, too_long"),
    ("shards.size.more=1", "--set shards.size.more: `size` holds no settings"),
]


@pytest.mark.parametrize(("override", "message"), SET_REJECTED)
def test_a_bad_override_is_rejected_in_one_line(override: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{FETCH_AND_PROBE}- too_long: {{max_s: 9}}\nshards: {{size: 8}}")
    with pytest.raises(RecipeError) as caught:
        load(path, [override])
    assert message in str(caught.value)


def test_an_override_of_a_source_that_is_no_mapping_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--set source\.list: `source` holds no settings"):
        load(written(tmp_path, "source: a.csv\nstages: [fetch]"), ["source.list=b.csv"])


def test_paths_in_a_recipe_start_from_its_folder_and_overrides_from_the_working_folder(tmp_path: Path) -> None:
    path = written(tmp_path, FETCH_AND_PROBE)
    assert load(path).source.list_ == str(tmp_path / "a.csv")
    assert load(path, ["source.list=b.csv"]).source.list_ == str(Path("b.csv").resolve())
    assert load(path, ["source.list=s3://bucket/b.csv"]).source.list_ == "s3://bucket/b.csv"


def of(folder: Path, *stages: Any, **keys: Any) -> dict[str, Any]:
    """What the output of a recipe depends on."""
    path = written(folder, yaml.safe_dump({"source": {"list": "a.csv"}, "stages": list(stages), **keys}))
    return load(path).resolved()


def test_the_fingerprint_changes_with_what_changes_the_output_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = ["fetch", "probe", {"too_long": {"max_s": 9}}]
    first = fingerprint(of(tmp_path, *stages))
    same = {
        "name": of(tmp_path, *stages, name="another"),
        "engine": of(tmp_path, *stages, engine={"window": 3}),
        "resources": of(tmp_path, "fetch", {"probe": {"resources": {"timeout_s": 3}}}, stages[2]),
        "a default spelled out": of(tmp_path, *stages, shards={"seed": 0, "size": 128}),
    }
    assert {name: fingerprint(resolved) == first for name, resolved in same.items()} == dict.fromkeys(same, True)

    others = {
        "setting": of(tmp_path, "fetch", "probe", {"too_long": {"max_s": 10}}),
        "stage left out": of(tmp_path, "fetch", "probe"),
        "shard size": of(tmp_path, *stages, shards={"size": 4}),
        "seed": of(tmp_path, *stages, shards={"seed": 4}),
    }
    path = written(tmp_path, yaml.safe_dump({"source": {"list": "a.csv"}, "stages": stages}))
    (tmp_path / "a.csv").write_text("url\nb.mp4\n")
    others["source's content"] = load(path).resolved()
    written(tmp_path, "")
    with monkeypatch.context() as patch:
        patch.setattr(type(load(written(tmp_path, FETCH_AND_PROBE)).stages[1]), "version", 99)
        others["stage's version"] = of(tmp_path, *stages)
    with monkeypatch.context() as patch:
        patch.setattr(recipes, "SCHEMA_VERSION", clips.SCHEMA_VERSION + 1)
        assert fingerprint(of(tmp_path, *stages)) != first
    prints = {name: fingerprint(resolved) for name, resolved in others.items()}
    assert [name for name, value in prints.items() if value == first] == []
    assert len(set(prints.values())) == len(prints)


def test_the_fingerprint_covers_the_identity_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(of(tmp_path, "fetch"))
    monkeypatch.setattr(Stage, "model_identities", lambda self: {"model": "sha256:1"})
    assert fingerprint(of(tmp_path, "fetch")) != first


DIFFERENCES = [
    (["fetch", "probe"], ["fetch", "probe"], {}, []),
    (["fetch", "probe", {"too_long": {"max_s": 9}}], ["fetch", "probe", {"too_long": {"max_s": 3}}], {},
     ["stages.too_long.settings.max_s: 9.0 → 3.0"]),
    (["fetch", "probe"], ["fetch"], {}, ["stages.probe: present → absent"]),
    (["fetch", "probe"], ["fetch", "probe"], {"shards": {"seed": 5}}, ["shards.seed: 0 → 5"]),
    ([PAINT, "fetch"], ["fetch", PAINT], {}, ["the order of the stages"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "keys", "lines"), DIFFERENCES)
def test_what_differs_is_said_line_by_line(
    old: list[Any], new: list[Any], keys: dict[str, Any], lines: list[str], tmp_path: Path
) -> None:
    found = differences(of(tmp_path, *old), of(tmp_path, *new, **keys))
    assert [line for line in found if ".version:" not in line and ".models" not in line][: len(lines) or 1] == lines


def test_stages_are_cut_into_phases_at_a_global_decision(tmp_path: Path) -> None:
    recipe = check({"source": {"list": "a.csv"}, "stages": [PAINT, SAME_TITLE, SHADE]}, "here")
    phases = recipe.phases()
    assert [[s.step_name() for s in phase.stages] for phase in phases] == [["paint"], ["shade"]]
    assert [phase.decision and phase.decision.step_name() for phase in phases] == ["same_title", None]
    assert [recipe.layers(0), recipe.layers(1), recipe.layers()] == [["video"], ["video", "depth"], ["video", "depth"]]


def test_the_definition_that_a_dataset_keeps_is_without_what_changes_no_byte() -> None:
    raw = {
        "source": {"list": "a.csv"},
        "engine": {"window": 2},
        "stages": [{PAINT: {"pixels": 8, "resources": {"timeout_s": 3}}}],
    }
    assert check(raw, "here").definition == {"source": {"list": "a.csv"}, "stages": [{PAINT: {"pixels": 8}}]}


def test_a_recipe_that_names_one_resource_leaves_the_others_as_they_are() -> None:
    from vidal.stages.modalities.depth import Depth

    needs = Depth.model_validate({"resources": {"batch_size": 2}}).needs
    assert (needs.batch_size, needs.gpus) == (2, Depth.default_resources.gpus)


@pytest.mark.parametrize("resources", [{"batch_size": 0}, {"gpus": -1}, {"timeout_s": 0}])
def test_resources_out_of_bounds_are_rejected(resources: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=r"stages\[0\]\.fetch\.resources"):
        check({"source": {"list": "x.csv"}, "stages": [{"fetch": {"resources": resources}}]}, "r.yaml")


def test_a_bare_module_name_is_no_stage() -> None:
    with pytest.raises(RecipeError, match="no stage `antigravity`"):
        check({"source": {"list": "x.csv"}, "stages": ["antigravity"]}, "r.yaml")


@pytest.mark.parametrize("between", [SAME_TITLE, SHADE], ids=["a global decision", "a stage for a GPU"])
def test_what_lives_in_one_worker_is_not_read_in_another(between: str) -> None:
    stages = ["fetch", "probe", "media", PAINT, between]
    check({"source": {"list": "x.csv"}, "stages": stages}, "r.yaml")
    with pytest.raises(RecipeError, match=r"media reads `source_file`.*no global decision"):
        check({"source": {"list": "x.csv"}, "stages": ["fetch", "probe", PAINT, between, "media"]}, "r.yaml")
