"""Captions for each stored frame and for the whole clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.models.captioner import (
    FRAME_PROMPT,
    IMAGES_PROMPT,
    Captioner,
    LabelCaptioner,
    ServerCaptioner,
    TransformersCaptioner,
    VideoInput,
)  # fmt: skip
from vidal.models.classifier import EFFICIENTNET_LITE0
from vidal.models.device import Half
from vidal.models.locate import identity
from vidal.models.openai_server import ChatServer
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage
from vidal.stages.text.spent import Prices, spend


class FrameCaptions(ModelStage):
    """Writes ``frame_captions`` and ``video_caption``: labels of a classifier or sentences of a captioning model."""

    version: ClassVar[int] = 5
    reads = ("video",)
    writes = ("frame_captions", "video_caption", "frame_caption_model", "frame_caption_score")
    imports = ("huggingface_hub", "safetensors", "timm", "torch", "torchvision", "transformers")
    # On resume, the same model may be served from another node.
    not_fingerprinted = ("device", "server_url", "key_variable", "request_timeout_s", "concurrency")
    default_resources: ClassVar[Resources] = Resources(batch_size=8, timeout_s=600.0)

    backend: Literal["labels", "transformers", "server"] = "labels"
    """An image classifier, a captioning model of transformers, or an OpenAI-compatible server."""
    model: str = EFFICIENTNET_LITE0
    """A model reference; for a server, the name of the model there."""
    min_score: float = Field(0.7, ge=0, le=1)
    """Smallest probability of a label, a class of ImageNet or a kind of them (cat, mammal, animal), to be used; a frame
    without one has an empty caption. At the default, 44 of the 47 labels of 184 frames judged by eye are right.
    """
    max_new_tokens: int = Field(40, ge=4, le=512)
    """Tokens of one caption."""
    frame_prompt: str | None = None
    """What a model is asked of a frame, by default as its class needs: Florence-2 a task, ``<CAPTION>``."""
    video_prompt: str | None = None
    """What a model with a chat template, or behind a server, is asked of the clip."""
    video_input: VideoInput = "auto"
    """Whether a model of transformers sees the clip as a ``video``, where its class supports that, or as ``images``."""
    batch_frames: int = Field(16, ge=1, le=1024)
    """Frames that a model of transformers takes at once; on a GPU, those of several clips."""
    half: Half = "bfloat16"
    """Whether a model of transformers has half precision on a GPU: true is float16."""
    server_url: str = ""
    """Address of the server, such as ``http://localhost:8000/v1``."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's API key."""
    request_timeout_s: float = Field(60.0, gt=0)
    """Time limit of one request, in seconds."""
    concurrency: int = Field(8, ge=1, le=256)
    """Number of concurrent requests of one worker, over the frames of a batch of clips."""
    prices: Prices = (0.0, 0.0)
    """Prices per million prompt and completion tokens; the cost is added to ``server_cost``."""

    _captioner: Captioner | None = PrivateAttr(None)

    def model_identities(self) -> dict[str, str]:
        return {"model": f"server {self.model}" if self.backend == "server" else identity(self.model)}

    def large_model(self) -> str | None:
        return self.model if self.backend == "transformers" else None

    @model_validator(mode="after")
    def _is_of_use_to_the_backend(self) -> Self:
        if self.video_input == "video" and self.backend != "transformers":
            raise ValueError("video_input: video needs backend: transformers; a server is shown images")
        if self.backend == "labels" and (self.frame_prompt or self.video_prompt):
            raise ValueError("a prompt needs backend: transformers or server; a classifier is asked nothing")
        return self

    def setup(self, captioner: Captioner | None = None) -> None:
        """Load the captioning model, unless one is passed; raises `RecipeError` for a server without an address."""
        if captioner is not None:
            self._captioner = captioner
            return
        device = self.chosen_device()
        if self.backend == "labels":
            self._captioner = LabelCaptioner(self.model, device=device, min_score=self.min_score)
        elif self.backend == "transformers":
            self._captioner = TransformersCaptioner(
                self.model, device=device, max_new_tokens=self.max_new_tokens, half=self.half,
                batch_frames=self.batch_frames, frame_prompt=self.frame_prompt, video_prompt=self.video_prompt,
                video_input=self.video_input,
            )  # fmt: skip
        else:
            server = ChatServer(
                base_url=self.server_url, model=self.model, key_variable=self.key_variable,
                timeout_s=self.request_timeout_s, concurrency=self.concurrency,
            )  # fmt: skip
            prompts = (self.frame_prompt or FRAME_PROMPT, self.video_prompt or IMAGES_PROMPT)
            self._captioner = ServerCaptioner(server, self.max_new_tokens, *prompts)

    def process_batch(self, clips: Sequence[Clip]) -> None:
        assert self._captioner is not None, "setup() comes first"
        clips = self.with_frames(clips)
        captioned = self._captioner.caption([clip.work for clip in clips])
        for clip, captions in zip(clips, captioned, strict=True):
            if isinstance(captions, ClipError):
                clip.fail(captions.reason, captions.detail, is_transient=captions.transient)
                continue
            clip.frame_captions, clip.video_caption = captions.frames, captions.video or None
            clip.frame_caption_score = captions.score
            clip.frame_caption_model = self.model_identities()["model"] + (" video" if captions.saw_video else "")
            spend(clip, captions.usage, self.prices)
