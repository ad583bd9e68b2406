"""Whether this process sees a GPU that PyTorch can use, without two seconds of importing PyTorch where none is."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

from vidal import extras


def sees_gpu() -> bool:
    """Return what ``torch.cuda.is_available()`` returns; imports torch only where nothing cheaper rules a GPU out."""
    if extras.missing(["torch"]):
        return False
    build = _build_of_torch()
    if build == "cpu" or (build == "cuda" and not _may_see_nvidia()):
        return False
    import torch

    return torch.cuda.is_available()


def _may_see_nvidia() -> bool:
    """Whether CUDA may find a device: its driver is installed, and ``CUDA_VISIBLE_DEVICES`` does not hide them all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA ignores all devices from the first one on that it does not know, such as -1.
    if visible is not None and (not visible or visible.startswith("-")):
        return False
    try:
        # Loaded, as CUDA does by this name, and not initialised: whoever forks after that has no CUDA.
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _build_of_torch() -> str:
    """``cuda`` or ``cpu`` by the version file of the installed torch, or ``other``: ROCm, or one that says neither."""
    package = importlib.util.find_spec("torch")
    assert package is not None and package.origin is not None
    # Run without its package, whose import it is that takes the time.
    spec = importlib.util.spec_from_file_location("torch_version", Path(package.origin).with_name("version.py"))
    assert spec is not None and spec.loader is not None
    version = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(version)
    if getattr(version, "hip", None) or not hasattr(version, "cuda"):
        return "other"
    return "cuda" if version.cuda else "cpu"
