"""Language models that complete prompts: a transformers model (a hub id, a folder or a GGUF file), or a server."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vidal.caption.prompt import Prompt
from vidal.errors import ClipError, ModelError
from vidal.models import cache
from vidal.models.auto import first_line, load_auto
from vidal.models.device import one_thread
from vidal.models.locate import identity, locate
from vidal.models.openai_server import ChatServer, MalformedReplyError, Reply


class Llm(Protocol):
    """Completes prompts, one reply for each.

    ``vocabularies`` holds for each prompt the words that its reply may use; an empty one allows any.
    """

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]: ...


@dataclass(frozen=True, slots=True)
class ServerLlm:
    """Completes prompts on an OpenAI-compatible server, which ignores vocabularies: only the guard checks its words.

    A malformed reply counts as an empty text. Raises what `ChatServer.ask` raises otherwise.
    """

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
    """Decodes greedily with a causal language model that has a chat template; raises `ModelError` for any other.

    Raises a transient `ClipError` where generation takes more than ``max_seconds``.
    """

    def __init__(self, reference: str, *, device: str, max_new_tokens: int, max_seconds: float) -> None:
        self._device, self._max_new_tokens, self._max_seconds = device, max_new_tokens, max_seconds
        self._model, self._tokenizer = load_causal_lm(reference, device)
        self._prefixes: dict[str, tuple[list[int], Any]] = {}
        self._word_tokens: dict[str, list[int]] = {}

    def complete(self, prompts: Sequence[Prompt], vocabularies: Sequence[Sequence[str]]) -> list[Reply]:
        import torch

        chats = [
            self._tokenizer.apply_chat_template(prompt.messages(), tokenize=False, add_generation_prompt=True)
            for prompt in prompts
        ]
        # The chat template has written the special tokens already; a second start token would shift every reply.
        batch = self._tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False).to(self._device)
        length = batch["input_ids"].shape[1]
        allowed = [self._allowed(words) for words in vocabularies]
        started = time.monotonic()
        with torch.inference_mode():
            output = self._model.generate(
                **batch,
                **self._cached_prefix(prompts, batch["input_ids"]),
                do_sample=False,
                max_new_tokens=self._max_new_tokens,
                max_time=self._max_seconds,
                prefix_allowed_tokens_fn=(lambda row, _: allowed[row]) if any(vocabularies) else None,
            )
        if time.monotonic() - started >= self._max_seconds:
            # A text cut off at the time limit would depend on the machine's load.
            raise ClipError("llm_timeout", f"no caption in {self._max_seconds:g} s", transient=True)
        texts = self._tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
        return [Reply(text.strip()) for text in texts]

    def _cached_prefix(self, prompts: Sequence[Prompt], ids: Any) -> dict[str, Any]:
        """Return the keys and values of the prefix that all prompts share: four fifths of a short prompt's time."""
        from transformers import DynamicCache

        # A model with a recurrent state has no keys and values that could be kept for a prefix.
        # Prompts of a batch are padded on the left, so that their common prefix begins at another place in each.
        if len(prompts) != 1 or getattr(self._model, "_is_stateful", False):
            return {}
        messages = prompts[0].fixed_messages()
        text = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
        if text not in self._prefixes:
            batch = self._tokenizer(text, return_tensors="pt", add_special_tokens=False).to(self._device)
            cache = DynamicCache(config=self._model.config)
            # Without the head, which would compute the logits of every token of the prefix.
            self._model.base_model(input_ids=batch["input_ids"], past_key_values=cache)
            self._prefixes[text] = batch["input_ids"][0].tolist(), cache
        prefix, cache = self._prefixes[text]
        # Not every chat template renders a conversation as a prefix of the longer one.
        if ids[0, : len(prefix)].tolist() != prefix:
            return {}
        # Copied, as `generate` appends the reply's keys and values to what it is given.
        return {"past_key_values": copy.deepcopy(cache)}

    def _allowed(self, words: Sequence[str]) -> list[int]:
        """Return the ids of the tokens that spell the words, and of the punctuation between them; without words, all.

        It is a bound on tokens, not on words: their parts can be put together anew, so the guard still reads the reply.
        """
        if not words:
            return list(range(self._model.config.get_text_config().vocab_size))
        allowed = {self._tokenizer.eos_token_id}
        for word in (".,'", ". , '", *words):
            if word not in self._word_tokens:
                # A tokenizer spells a word with other tokens behind a space, and in another case.
                forms = [space + form for form in (word, word.lower(), word.capitalize()) for space in ("", " ")]
                ids = self._tokenizer(forms, add_special_tokens=False)["input_ids"]
                self._word_tokens[word] = [token for form in ids for token in form]
            allowed.update(self._word_tokens[word])
        return sorted(allowed)


def load_causal_lm(reference: str, device: str) -> tuple[Any, Any]:
    """Return model and tokenizer, ready to generate; raises `ModelError`.

    The model is float32 on a CPU, with weights of 16 bits where that is exact, and bfloat16 on a GPU. A GGUF file is
    converted once and cached.
    """
    import torch

    from vidal.models.half_linear import halve_exact_weights

    one_thread(device)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    path = locate(reference).path
    if path is not None and path.suffix == ".gguf":
        model, tokenizer = _load_gguf(path, reference, dtype)
    else:
        tokenizer = load_auto("AutoTokenizer", reference)
        model = load_auto("AutoModelForCausalLM", reference, dtype=dtype)
    if tokenizer.chat_template is None:
        raise ModelError(f"model {reference}: its tokenizer has no chat template; name an instruct model")
    # Replies start where prompts end, so batches are padded on the left.
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if device == "cpu":
        halve_exact_weights(model)
    return model.to(device).eval(), tokenizer


def _load_gguf(path: Path, reference: str, dtype: Any) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    def dequantised() -> tuple[Any, Any]:
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        config = GgufConfig(dequantize=True)
        # Rounded to bfloat16, as the cached model is, so that both write the same text.
        model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=config, dtype=torch.bfloat16)
        return model, tokenizer

    def save(folder: Path) -> None:
        with parsing_once():
            for part in dequantised():
                part.save_pretrained(folder)

    try:
        folder = cached_folder(f"{path.stem}-{identity(reference).rsplit(':', 1)[1]}", save)
        if folder is None:
            with parsing_once():
                model, tokenizer = dequantised()
            return model.to(dtype), tokenizer
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"model {reference}: {first_line(error)}") from error
    return load_auto("AutoModelForCausalLM", str(folder), dtype=dtype), load_auto("AutoTokenizer", str(folder))


@contextlib.contextmanager
def parsing_once() -> Iterator[None]:
    """Keep transformers from parsing a GGUF file three times, and from listing its tensors' names for every module.

    That is 11 of the 20 s of CPU that a model of 0.1 B parameters takes; two more are slices of a `numpy.memmap`.
    """
    import gguf
    import numpy as np

    class PlainReader(gguf.GGUFReader):
        """Slices the mapped file as an ordinary array: a vocabulary has some 250,000 parts."""

        data = property(lambda self: self._data, lambda self, mapped: setattr(self, "_data", np.asarray(mapped)))

    quick: dict[str, Callable[..., Any]] = {"GGUFReader": PlainReader, "get_tensor_name_map": gguf.get_tensor_name_map}
    own = {name: getattr(gguf, name) for name in quick}
    try:
        for name, function in quick.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in own.items():
            setattr(gguf, name, function)


def cached_folder(key: str, build: Callable[[Path], None]) -> Path | None:
    """Return the folder ``key`` of the user's cache, built on first use; None where the cache cannot be written.

    Workers that need it at once wait for the first of them. It is built under a temporary name and renamed: others see
    all of it or nothing, and of hosts that build at once one wins.
    """
    folder = cache.root() / key
    if folder.is_dir():
        return folder
    try:
        with cache.alone():
            return folder if folder.is_dir() else _built(folder, build)
    except OSError:
        return None


def _built(folder: Path, build: Callable[[Path], None]) -> Path | None:
    try:
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError:
        return None
    try:
        build(building)
        for file in building.iterdir():
            # Without it, a power cut could leave the final name over half-written files.
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        # Fails where another host was first, as its folder is not empty: that one is returned.
        building.rename(folder)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
    return folder if folder.is_dir() else None
