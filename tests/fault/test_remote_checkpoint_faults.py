"""A writer that dies at any request to the store: a whole checkpoint is found there, and never a torn one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.store import s3_server
from vidal.dataset.lock import Lock, LostLockError, take
from vidal.dataset.storage import Storage
from vidal.errors import ModelError, VidalWarning
from vidal.train.checkpoint import Checkpoints

SMALL = {"w": torch.arange(6.0)}
BUCKET = "runs"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with s3_server(BUCKET):
        yield


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}"


def at(address: str, work: Path, **keys: int) -> Checkpoints:
    return Checkpoints(address, **{"keep_last": 2, **keys}, work=work)


def names(address: str) -> list[str]:
    return Storage(address).names("checkpoints")


class Killed(BaseException):
    """Nothing that a machine does after its death."""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("step", [20, 30], ids=["written again", "new"])
def test_killed_before_any_write_to_the_store_there_is_a_whole_one(
    step: int, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    while True:
        before = at(address, tmp_path)
        for number in (10, 20):
            before.save(number, SMALL, SMALL, {"depth": "1"})
        left = [kills]
        with monkeypatch.context() as patch:
            for name in ("upload", "remove", "write"):
                real = getattr(Storage, name)

                def dying(*arguments: object, real=real, left=left) -> None:  # type: ignore[no-untyped-def]
                    if left[0] == 0:
                        raise Killed
                    left[0] -= 1
                    real(*arguments)

                patch.setattr(Storage, name, dying)
            try:
                at(address, tmp_path).save(step, {"w": SMALL["w"] + 1}, SMALL, {"depth": "2"})
                is_killed = False
            except Killed:
                is_killed = True
        latest = at(address, tmp_path / "elsewhere").latest()
        assert latest is not None and latest.step in (10, 20, step), kills
        assert torch.equal(latest.optimiser()["w"], SMALL["w"])
        # Both files are of one save.
        assert (latest.bases()["depth"] == "2") == torch.equal(latest.model()["w"], SMALL["w"] + 1)
        at(address, tmp_path).save(40, SMALL, SMALL)
        assert len(names(address)) == 2 and not [*(tmp_path / "checkpoints").iterdir()], kills
        Storage(address).remove("checkpoints")
        if not is_killed:
            break
        kills += 1
    assert kills >= 4


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors"])
def test_one_that_was_damaged_in_the_store_is_no_checkpoint_or_refused(name: str, address: str, tmp_path: Path) -> None:
    checkpoints = at(address, tmp_path)
    for step in (10, 20):
        checkpoints.save(step, SMALL, SMALL)
    store = Storage(f"{address}/checkpoints")
    whole = store.read(f"000020/{name}")
    store.write(f"000020/{name}", whole[:-1] + bytes([whole[-1] ^ 1]))
    found = checkpoints.latest()
    assert found is not None and found.step == 20
    with pytest.raises(ModelError, match=rf"000020/{name}: does not match its checksum"):
        found.model() if name.startswith("model") else found.optimiser()
    store.remove(f"000020/{name}")
    with pytest.warns(VidalWarning, match=rf"000020: {name} is missing; skipped"):
        found = checkpoints.latest()
    assert found is not None and found.step == 10 and checkpoints.named("000020") is None


def test_the_best_is_kept_and_what_led_to_nothing_is_set_aside(address: str, tmp_path: Path) -> None:
    checkpoints = at(address, tmp_path, keep_every=40)
    checkpoints.save(10, SMALL, SMALL)
    checkpoints.mark_best(10, 0.5)
    for step in (20, 30, 40, 50, 60):
        checkpoints.save(step, SMALL, SMALL)
    assert names(address) == ["000010", "000040", "000050", "000060", "best.json"]
    found = at(address, tmp_path / "elsewhere").named("best")
    assert found is not None and (found.step, checkpoints.best()) == (10, (10, 0.5))
    checkpoints.mark_best(60, 0.6)
    assert checkpoints.set_aside(60) == ["000060"]
    assert names(address) == ["000010", "000040", "000050", "000060.diverged"]
    found = checkpoints.latest()
    assert found is not None and found.step == 50 and checkpoints.best() is None
    assert Storage(address).read("checkpoints/000060.diverged/model.safetensors")


def test_a_training_that_lost_its_lock_uploads_and_deletes_nothing(address: str, tmp_path: Path) -> None:
    storage = Storage(address)
    with Lock(storage) as lock:
        late = Checkpoints(address, keep_last=1, fence=lock, work=tmp_path)
        late.save(10, SMALL, SMALL)
        storage.fence = None
        for name in storage.names(".lock"):
            storage.remove(f".lock/{name}")
        storage.write(".lock/000008", b"{}")
        take(storage)
        for attempt in (lambda: late.save(20, SMALL, SMALL), lambda: late.set_aside(10)):
            with pytest.raises(LostLockError, match="lost the lock"):
                attempt()
    assert names(address) == ["000010"]
