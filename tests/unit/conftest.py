"""What several of the unit tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidal.models.llm import TransformersLlm
from vidal.stages.text.enhance_caption import EnhanceCaption


@pytest.fixture(scope="session")
def smollm(converted_models: Path) -> TransformersLlm:
    """The model that writes the captions of the sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDAL_CACHE", str(converted_models))
        return TransformersLlm(EnhanceCaption().model, device="cpu", max_new_tokens=24, max_seconds=120.0)
