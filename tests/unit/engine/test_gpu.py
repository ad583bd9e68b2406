"""Whether there is a GPU is answered as torch answers it, and without torch where there is none."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vidal.engine import gpu
from vidal.engine.gpu import sees_gpu

CUDA, CPU, ROCM = "cuda = '13.2'\nhip = None\n", "cuda = None\nhip = None\n", "cuda = None\nhip = '7.0'\n"


def machine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, version: str, visible: str | None, driver: bool
) -> list[Any]:
    """A machine with this build of torch, which says that there is a GPU; gives the times that it was asked."""
    asked: list[Any] = []
    (folder / "version.py").write_text(version)
    found = SimpleNamespace(origin=str(folder / "__init__.py"))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setitem(
        sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: not asked.append(1)))
    )

    def load(name: str) -> None:
        assert name == "libcuda.so.1"
        if not driver:
            raise OSError("no such file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return asked


def test_this_machine_has_a_gpu_where_torch_says_so() -> None:
    assert sees_gpu() == torch.cuda.is_available()


@pytest.mark.parametrize(
    ("version", "visible", "driver", "is_torch_asked"),
    [
        (CUDA, None, True, True),
        (CUDA, "1", True, True),
        (CUDA, "GPU-8932f937", True, True),
        (CUDA, None, False, False),
        (CUDA, "", True, False),
        (CUDA, "-1", True, False),
        (CUDA, "-1,0", True, False),
        (CUDA, "0,-1", True, True),
        # A machine with a GPU, and torch from the index of CPU builds.
        (CPU, None, True, False),
        # AMD's has neither the driver nor the variable.
        (ROCM, "", False, True),
        ("", None, False, True),
    ],
)
def test_torch_is_asked_only_where_nothing_else_rules_a_gpu_out(
    version: str,
    visible: str | None,
    driver: bool,
    is_torch_asked: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = machine(monkeypatch, tmp_path, version, visible, driver)
    assert sees_gpu() == bool(asked) == is_torch_asked


def test_without_torch_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert not sees_gpu()
