"""A training run on an object store that is slow and fails one request in twenty ends as one on a disk does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
import yaml

from benchmarks.loader_store import BUCKET, FAULTS, Faults, slow_store
from tests import learned
from tests.conftest import ROOT
from tests.forks import Fork
from tests.sentence_models import sentence_model
from vidal.dataset.storage import Storage
from vidal.train.checkpoint import Checkpoints

STEPS = 12
RECIPE = learned.RECIPE | {
    "towers": {"video": learned.RECIPE["towers"]["video"]}, "steps": STEPS,
    "checkpoints": {"every_steps": 3, "keep_last": 2},
    # Without a cache, a clip is fetched whenever it is needed.
    "data": {"workers": 2, "cache_bytes": 0},
}  # fmt: skip
# A seed with which all kinds meet both reads of clips and requests of the run's folder.
FLAKY = Faults(latency_s=0.01, errors=0.05, seed=137)
REMOTE = f"s3://{BUCKET}/run"


def trained(recipe: Path, data: str | Path, out: str | Path) -> dict[str, Any]:
    command = ["-m", "vidal", "train", recipe, "--data", data, "--out", out, "--json"]
    done = Fork(*command, cwd=ROOT).ended()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def losses(run: str | Path) -> list[tuple[int, float]]:
    lines = map(json.loads, Storage(str(run)).read("log.jsonl").splitlines())
    return [(line["step"], line["loss"]) for line in lines if line["event"] == "step"]


def test_a_training_on_a_flaky_store_is_bitwise_that_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, local, recipe = tmp_path / "set", tmp_path / "run", tmp_path / "small.yaml"
    learned.small_set(data)
    text = {"model": sentence_model(tmp_path / "text"), "max_tokens": 16}
    recipe.write_text(yaml.safe_dump(RECIPE | {"text": text}))
    monkeypatch.setenv("VIDAL_CACHE", str(tmp_path / "cache"))
    expected = trained(recipe, data, local)

    with slow_store() as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store.upload(data, "set")
        store.counts_then(FLAKY)
        assert trained(recipe, f"s3://{BUCKET}/set", REMOTE) == expected | {"out": REMOTE}
        met = store.counts_then(FLAKY)
        assert all(met[kind] > 0 for kind in (*FAULTS, "failed writes")), met

        # Of an earlier server in this process, fsspec would hand out its connections again.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        assert losses(REMOTE) == losses(local) and len(losses(local)) == STEPS
        ours, theirs = Checkpoints(REMOTE, work=tmp_path / "work"), Checkpoints(local)
        assert ours.steps() == theirs.steps() == [9, 12]
        for step in ("000009", "000012"):
            one, other = ours.named(step), theirs.named(step)
            assert one is not None and other is not None
            for found, kept in ((one.model(), other.model()), (one.optimiser(), other.optimiser())):
                assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
