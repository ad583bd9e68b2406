"""Language models that complete prompts: a transformers model (a hub id, a folder or a GGUF file), or a server."""

from __future__ import annotations

import copy
import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidal.caption.prompt import Prompt
from vidal.errors import ClipError, ModelError
from vidal.models.device import one_thread
from vidal.models.locate import ModelPlace, identity, locate
from vidal.models.openai_server import ChatServer, MalformedReplyError, Reply


class Llm(Protocol):
    """Completes prompts; ``vocabularies`` holds for each prompt the words that its answer may use."""

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]: ...


@dataclass(frozen=True, slots=True)
class ServerLlm:
    """An OpenAI-compatible server; it cannot be held to a vocabulary, so the guard alone judges its words."""

    server: ChatServer
    max_new_tokens: int

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]:
        return self.server.each(self._complete, prompts)

    def _complete(self, prompt: Prompt) -> Reply:
        try:
            return self.server.ask(prompt.messages(), "caption", self.max_new_tokens)
        except MalformedReplyError as error:
            return Reply("", error.usage)


class TransformersLlm:
    """Greedy decoding by a causal language model that has a chat template."""

    def __init__(self, reference: str, *, device: str, max_new_tokens: int, max_seconds: float) -> None:
        self._device, self._max_new_tokens, self._max_seconds = device, max_new_tokens, max_seconds
        self._model, self._tokenizer = load_causal_lm(reference, device)
        self._openings: dict[str, tuple[list[int], Any]] = {}
        self._word_tokens: dict[str, list[int]] = {}

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]:
        import torch

        talks = [self._render(prompt.messages(), for_reply=True) for prompt in prompts]
        batch = self._tokenizer(talks, return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        length = batch["input_ids"].shape[1]
        started = time.monotonic()
        with torch.inference_mode():
            output = self._model.generate(
                **batch,
                **self._remembered(prompts, batch["input_ids"]),
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                max_time=self._max_seconds,
                logits_processor=[_Only([self._allowed(words) for words in vocabularies])],
            )
        if time.monotonic() - started >= self._max_seconds:
            # A text cut off by the clock would depend on how busy the machine was.
            raise ClipError("llm_timeout", f"no caption in {self._max_seconds:g} s", transient=True)
        texts = self._tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return [Reply(text.strip()) for text in texts]

    def _render(self, messages: list[dict[str, str]], *, for_reply: bool) -> str:
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=for_reply))

    def _remembered(self, prompts: Sequence[Prompt], ids: Any) -> dict[str, Any]:
        """Keys and values of the opening that all prompts share: four fifths of a short prompt's time."""
        if len(prompts) != 1 or getattr(self._model, "_is_stateful", False):
            return {}
        text = self._render(prompts[0].fixed_messages(), for_reply=False)
        if text not in self._openings:
            self._openings[text] = self._read_opening(text)
        opening, cache = self._openings[text]
        # Not every template writes a conversation as the start of the longer one.
        if ids[0, : len(opening)].tolist() != opening:
            return {}
        return {"past_key_values": copy.deepcopy(cache)}

    def _read_opening(self, text: str) -> tuple[list[int], Any]:
        from transformers import DynamicCache

        batch = self._tokenizer(text, return_tensors="pt", add_special_tokens=False).to(self._device)
        cache = DynamicCache(config=self._model.config)
        self._model(input_ids=batch["input_ids"], past_key_values=cache)
        return batch["input_ids"][0].tolist(), cache

    def _allowed(self, words: Sequence[str]) -> list[int] | None:
        """The tokens that the words are spelt with, or None where any is allowed."""
        if not words:
            return None
        allowed = {self._tokenizer.eos_token_id, *self._spelling(".,'"), *self._spelling(". , '")}
        for word in words:
            allowed.update(self._spelling(word))
        return sorted(allowed)

    def _spelling(self, word: str) -> list[int]:
        if word not in self._word_tokens:
            forms = [space + form for form in (word, word.lower(), word.capitalize()) for space in ("", " ")]
            ids = self._tokenizer(forms, add_special_tokens=False)["input_ids"]
            self._word_tokens[word] = [token for form in ids for token in form]
        return self._word_tokens[word]


class _Only:
    """A logits processor that leaves each text of the batch only its allowed tokens."""

    def __init__(self, allowed: Sequence[list[int] | None]) -> None:
        self._allowed = allowed

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        limited = scores.clone()
        for row, allowed in enumerate(self._allowed):
            if allowed is not None:
                limited[row] = float("-inf")
                limited[row, allowed] = scores[row, allowed]
        return limited


def load_causal_lm(reference: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer, ready to generate; raises `ModelError` with one line that says which and why."""
    import torch
    from safetensors import SafetensorError

    # Its annotations are partial: as Any, it is held to none of them.
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    one_thread(device)
    try:
        model, tokenizer = _load(locate(reference), torch.float32 if device == "cpu" else torch.bfloat16)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"model {reference}: {str(error).splitlines()[0]}") from error
    if tokenizer.chat_template is None:
        raise ModelError(f"model {reference}: its tokenizer has no chat template; name an instruct model")
    # Replies start where prompts end, so the padding of a batch stands before them.
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device).eval(), tokenizer


def _load(place: ModelPlace, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, revision = place.source, place.revision
    if place.path is not None and place.path.suffix == ".gguf":
        path = place.path
        key = f"{path.stem}-{identity(place.reference).rsplit(':', 1)[1]}"
        folder = cached_folder(key, lambda into: _save(_unpack_gguf(path), into))
        if folder is None:
            model, tokenizer = _unpack_gguf(path)
            return model.to(dtype), tokenizer
        source = str(folder)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    return AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype), tokenizer


def _unpack_gguf(path: Path) -> tuple[Any, Any]:
    """The GGUF's model with plain weights; rounded to bfloat16 here, so that a cached model writes the same text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    config = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(**where, quantization_config=config, dtype=torch.bfloat16), tokenizer


def _save(loaded: tuple[Any, Any], folder: Path) -> None:
    for part in loaded:
        part.save_pretrained(folder)


def cached_folder(key: str, build: Callable[[Path], None]) -> Path | None:
    """The folder of that name in the user's cache, built on first use; None where the cache cannot be written.

    It is built beside its place and renamed: a worker sees it whole or not at all, and of several
    that build at once one wins.
    """
    root = Path(os.environ.get("VIDAL_CACHE") or Path.home() / ".cache" / "vidal")
    folder = root / key
    if folder.is_dir():
        return folder
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=root))
    except OSError:
        return None
    try:
        build(building)
        for file in building.iterdir():
            # Else a power cut could leave the name with half the bytes.
            with file.open("rb") as written:
                os.fsync(written.fileno())
        building.rename(folder)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
    return folder if folder.is_dir() else None
