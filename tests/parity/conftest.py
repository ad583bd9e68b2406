"""A cache of Hugging Face datasets for each test alone."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
