"""A training that cannot be is one clear line and an exit code, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import vidal
from tests.sentence_models import sentence_model
from tools.rendering import learning_set
from vidal.errors import DivergedError, MachineError, OutputError, SourceError, VidalError
from vidal.train import recipe as recipes
from vidal.train.assemble import build_encoder
from vidal.train.run import TrainResult, train

TOWER = {"sizes": {"hidden_size": 16, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}}
RECIPE: dict[str, Any] = {
    "text": {"model": "of the fixture text_model", "max_tokens": 16},
    "towers": {"depth": TOWER}, "batch_size": 8, "steps": 4, "threads": 1,
    "data": {"workers": 0}, "checkpoints": {"every_steps": 2},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A small one, as no failure here depends on what texts mean."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPE["text"], "model", sentence_model(tmp_path_factory.mktemp("text")))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material") / "set"
    learning_set.write(str(folder), clips=40, scenes=8, size=32, workers=1)
    return folder


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "set")
    return tmp_path / "set"


def run(data: Path | list[str], out: Path, change: dict[str, Any] | None = None, **keys: Any) -> TrainResult:
    raw = {**RECIPE, **(change or {})}
    checked = recipes.check(yaml.safe_load(yaml.safe_dump(raw)), "small.yaml")
    addresses = data if isinstance(data, list) else [str(data)]
    return train(checked, addresses, str(out), Console(quiet=True), quiet=True, device="cpu", **keys)


def shard(data: Path, layer: str) -> Path:
    return next((data / layer).iterdir())


REJECTED: dict[str, tuple[Any, dict[str, Any], dict[str, Any], type[VidalError], str]] = {
    "a shard that is gone": (lambda d: shard(d, "depth").unlink(), {}, {}, SourceError, "depth/000000.tar is missing"),
    "a shard that is cut": (
        lambda d: shard(d, "depth").write_bytes(shard(d, "depth").read_bytes()[:9000]), {}, {}, SourceError,
        "depth/000000.tar has 9000 bytes of at least",
    ),
    "a manifest that is no parquet": (
        lambda d: shard(d, "manifest").write_bytes(b"PAR1"), {}, {}, SourceError, "shard 000000: its manifest cannot be read"
    ),
    "a condition that selects nothing": (None, {}, {"where": "duration_s > 99"}, SourceError, "selects none of 40 samples"),
    "a condition on no column": (None, {}, {"where": "blurr < 1"}, SourceError, "no column `blurr`; near it: blur"),
    "a condition that is none": (None, {}, {"where": "blur <"}, SourceError, "--where blur <: "),
    "a layer that is absent": (
        None, {"towers": {"infrared": TOWER}}, {"where": "clip_id < 's'"}, SourceError, "selects none"
    ),
    "too few samples": (None, {"data": {"workers": 0, "drop_last": True}, "batch_size": 64}, {}, SourceError, "do not fill a batch of 64"),
    "no dataset": ("nowhere", {}, {}, SourceError, "no dataset there"),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_it_is_rejected_in_one_line(name: str, data: Path, tmp_path: Path) -> None:
    harm, change, keys, kind, said = REJECTED[name]
    if callable(harm):
        harm(data)
    place = [str(tmp_path / harm)] if isinstance(harm, str) else data
    with pytest.raises(kind) as caught:
        run(place, tmp_path / "run", change, **keys)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_shards_are_left_out_and_counted_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_set, "SHARD_SIZE", 40)
    learning_set.write(str(tmp_path / "set"), clips=50, scenes=8, size=32, workers=1)
    (tmp_path / "set" / "depth" / "000001.tar").unlink()
    result = run(tmp_path / "set", tmp_path / "run", skip_damaged=True)
    assert (result.steps, result.skipped) == (4, 10)


@pytest.mark.parametrize("skip_damaged", [False, True])
def test_only_the_layers_that_the_towers_read_need_be_there(skip_damaged: bool, data: Path, tmp_path: Path) -> None:
    for layer in ("video", "infrared", "audio"):
        shutil.rmtree(data / layer)
    result = run(data, tmp_path / "run", {"epochs": 1, "steps": None}, skip_damaged=skip_damaged)
    assert (result.steps, result.skipped, result.broken) == (5, 0, 0)


@pytest.mark.parametrize(
    ("kind", "given", "temperature", "bias"),
    [("info_nce", {}, 0.07, None), ("sigmoid", {}, 0.1, -10.0), ("sigmoid", {"init_temperature": 0.05}, 0.05, -10.0)],
)
def test_a_loss_starts_at_its_own_scale_unless_the_recipe_names_one(
    kind: str, given: dict[str, float], temperature: float, bias: float | None
) -> None:
    raw = {**RECIPE, "loss": {"kind": kind}, "pairs": {"text-depth": given}}
    encoder = build_encoder(recipes.check(raw, "small.yaml"))
    found = encoder.pair_bias(("text", "depth"))
    assert encoder.pair_scale(("text", "depth")).item() == pytest.approx(1 / temperature, rel=1e-5)
    assert (None if found is None else found.item()) == bias


def test_tensors_that_are_learnt_anew_are_named_in_the_log(data: Path, tmp_path: Path) -> None:
    published = Path(__file__).parents[1] / "parity" / "fixtures" / "languagebind" / "depth"
    tower = {"model": str(published), "frames": 2, "temporal": True}
    run(data, tmp_path / "run", {"towers": {"depth": tower}, "steps": 1})
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (drawn,) = (line for line in lines if line["event"] == "drawn")
    assert drawn["modality"] == "depth" and "visual_projection.weight" in drawn["tensors"]
    assert all(".temporal_" in name for name in drawn["tensors"] if name != "visual_projection.weight")


def spoil(data: Path, clips: Iterable[int]) -> list[str]:
    """Zeros over the depth of some clips; gives their ids."""
    samples, tar = vidal.open(str(data)), shard(data, "depth")
    raw = bytearray(tar.read_bytes())
    for clip in clips:
        for _, offset, size, _ in samples._offsets.places(int(samples._numbers[clip]), "depth", None):
            raw[offset : offset + size] = bytes(size)
    tar.write_bytes(bytes(raw))
    return [samples.clip_id(clip) for clip in clips]


def test_a_broken_sample_is_named_and_counted_and_the_rest_is_trained_on(data: Path, tmp_path: Path) -> None:
    (gone,) = spoil(data, [3])
    result = run(data, tmp_path / "run", {"steps": 5})
    assert result.broken == 1 and result.broken_clips == [gone]
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    broken = [event for event in events if event["event"] == "broken"]
    assert [event["clip_id"] for event in broken] == [gone]
    assert sum(event["samples"] for event in events if event["event"] == "step") == 39


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_checkpoint_is_intact(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", {"steps": 4})
    change = {"steps": 4, "optimiser": {"lr": 1e30, "clip_norm": None, "weight_decay": 0.0}}
    with pytest.raises(
        MachineError, match=r"step \d+ \(text-depth\): loss .*3 such steps in a row; lower optimiser.lr"
    ):
        run(data, tmp_path / "hot", {**change, "steps": 40})
    events = [json.loads(line) for line in (tmp_path / "hot" / "log.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "not_finite" for event in events) >= 2


@pytest.mark.parametrize(("change", "said"), [
    ({"towers": {"depth": {"sizes": {**TOWER["sizes"], "hidden_size": 32}}}}, "recipe.towers.depth.sizes.hidden_size: 16 → 32"),
    ({"optimiser": {"weight_decay": 0.5}}, "recipe.optimiser.weight_decay"),
    ({"steps": 3}, "recipe.steps: 4 → 3"),
    ({"batch_size": 10}, "recipe.batch_size: 8 → 10"),
])  # fmt: skip
def test_a_run_is_not_continued_as_another(change: dict[str, Any], said: str, data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run")
    with pytest.raises(OutputError) as caught:
        run(data, tmp_path / "run", change, resume=True)
    assert said in str(caught.value)


HOT = {"optimiser": {"lr": 1e30, "clip_norm": None, "weight_decay": 0.0}, "max_nan_steps": 3}
COOL = {**HOT, "optimiser": {**HOT["optimiser"], "lr": 1e-4}}


def checkpoints(run_folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("warm_steps", "every_steps", "left"),
    [
        (4, 5, ["000004", "000005.diverged"]),
        (4, 6, ["000004"]),
        (4, 1, ["000004", "000005.diverged"]),
        (0, 1, ["000001.diverged"]),
    ],
    ids=["saved before the streak", "due within the streak", "saved at every step", "no sound state"],
)
def test_no_checkpoint_of_a_divergence_is_resumed_and_a_lower_rate_mends_it(
    warm_steps: int, every_steps: int, left: list[str], data: Path, tmp_path: Path
) -> None:
    saved = {"checkpoints": {"every_steps": every_steps, "keep_last": 2}}
    if warm_steps:
        run(data, tmp_path / "run", {**COOL, **saved, "steps": warm_steps})
    with pytest.raises(DivergedError) as caught:
        run(data, tmp_path / "run", {**HOT, **saved, "steps": 40}, resume=bool(warm_steps))
    said = str(caught.value)
    assert "\n" not in said and ("was set aside" in said) == left[-1].endswith(".diverged")
    assert (f"resumes from checkpoint {warm_steps:06d}" if warm_steps else "starts over") in said
    assert checkpoints(tmp_path / "run") == left
    result = run(data, tmp_path / "run", {**COOL, **saved, "steps": 40}, resume=True)
    assert (result.resumed_at, result.steps) == (warm_steps, 40) and 0 < result.loss < 10
    changes = json.loads((tmp_path / "run" / "run.json").read_text())["changes"]
    assert any(change.startswith("optimiser.lr: 1e+30 → 0.0001") for change in changes)


def test_a_run_whose_last_steps_give_no_number_does_not_end_well(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="1 such steps in a row"):
        run(data, tmp_path / "run", {**HOT, "steps": 2, "checkpoints": {"every_steps": 1}})
    assert checkpoints(tmp_path / "run") == ["000001.diverged"]


@pytest.mark.parametrize(("before", "after"), [({"steps": 4}, {"steps": 7}), ({"epochs": 1}, {"epochs": 2})])
def test_a_run_that_is_prolonged_takes_the_steps_of_the_longer_one(
    before: dict[str, int], after: dict[str, int], data: Path, tmp_path: Path
) -> None:
    steady = {"steps": None, "optimiser": {"schedule": "constant"}}
    run(data, tmp_path / "run", {**steady, **before})
    result = run(data, tmp_path / "run", {**steady, **after}, resume=True)
    whole = run(data, tmp_path / "whole", {**steady, **after})
    assert result.resumed_at == 4 + ("epochs" in before) and (result.steps, result.loss) == (whole.steps, whole.loss)


@pytest.mark.parametrize(
    ("broken", "limit", "is_rejected"), [(40, 0.5, True), (21, 0.5, True), (19, 0.5, False), (39, 1, False)]
)
def test_a_run_whose_samples_are_mostly_broken_is_rejected(
    broken: int, limit: float, is_rejected: bool, data: Path, tmp_path: Path
) -> None:
    spoil(data, range(broken))
    change = {"epochs": 1, "steps": None, "max_broken_share": limit}
    if not is_rejected:
        assert run(data, tmp_path / "run", change).broken == broken
        return
    with pytest.raises(SourceError, match=rf"{broken} of the last 40 samples cannot be read \(.*max_broken_share"):
        run(data, tmp_path / "run", change)


def test_a_folder_with_something_else_in_it_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(OutputError, match="not empty and no training run"):
        run(data, tmp_path / "mine")


def test_removed_clips_are_not_trained_on(data: Path, tmp_path: Path) -> None:
    gone = vidal.open(str(data)).clip_id(5)
    (tmp_path / "gone.txt").write_text(f"{gone}\n")
    run(data, tmp_path / "run", {"steps": 5}, removals=tmp_path / "gone.txt")
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(event["samples"] for event in events if event["event"] == "step") == 39
