"""`TextTower`: a text encoder from a CLIP or sentence-transformers folder, frozen unless it is tuned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidal.errors import ModelError, one_line
from vidal.train.towers.config import clip_text_settings
from vidal.train.towers.settings import ClipTextSettings, LoraSettings, TextTune
from vidal.train.towers.vit import Layer, Layers, initialise, wide
from vidal.train.towers.weights import (
    State,
    digest,
    model_folder,
    plain_names,
    read_config,
    read_weights,
    text_part,
    with_weights,
)

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
_IDENTITY_FILES = ("*.json", "*.txt", "*/config.json")


class TextEmbeddings(nn.Module):
    """Token ids (b, n) to the sum of token and position embeddings (b, n, d)."""

    def __init__(self, s: ClipTextSettings) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(s.vocabulary, s.hidden_size)
        self.position_embedding = nn.Embedding(s.max_tokens, s.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]
        return embedded


class ClipText(nn.Module):
    """CLIP's text transformer (Radford et al., 2021) under transformers' parameter names, with its projection."""

    def __init__(self, settings: ClipTextSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.dim, self.max_tokens = s.projection_dim, s.max_tokens
        self.embeddings = TextEmbeddings(s)
        self.encoder = Layers([Layer(s) for _ in range(s.layers)])
        self.final_layer_norm = nn.LayerNorm(s.hidden_size, eps=s.layer_norm_eps)
        self.text_projection = nn.Linear(s.hidden_size, s.projection_dim, bias=False)
        with torch.no_grad():
            nn.init.normal_(self.embeddings.token_embedding.weight, std=0.02)
            nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)
            nn.init.normal_(self.text_projection.weight, std=s.hidden_size**-0.5)
        initialise(self.encoder, s.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return embeddings (b, d) of token ids (b, n), pooled at the end-of-text token; not normalised."""
        n = input_ids.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=input_ids.device).tril()
        if attention_mask is not None:
            # A padding token still attends to itself: the softmax of a row without any key would be NaN.
            mask = mask & (attention_mask[:, None, None, :].bool() | torch.eye(n, dtype=torch.bool, device=mask.device))
        x = self.final_layer_norm(self.encoder(self.embeddings(input_ids), mask=mask))
        # End of text has the largest id of the vocabulary.
        pooled = x[torch.arange(len(x), device=x.device), input_ids.argmax(-1)]
        embedding: Tensor = self.text_projection(pooled)
        return embedding


class SentenceModel(nn.Module):
    """A sentence-transformers model: a transformer, and mean or class-token pooling of its output.

    Raises `ModelError` for a folder whose model or pooling cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel
        from transformers.utils import logging

        super().__init__()
        self.pooling = _pooling(folder)
        # Loading takes a second; its progress bar would only clutter the run's own output.
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if not any(folder.glob("*.safetensors")):
            read_weights(folder)  # rejects a pickle that holds code, with an error of one line
        try:
            # A model folder may bring Python files of its own; none of them is run.
            self.transformer: Any = AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder}: transformers cannot load it: {one_line(error, 200)}") from error
        self.dim = int(self.transformer.config.hidden_size)
        self.max_tokens = int(self.transformer.config.max_position_embeddings)
        limits = folder / "sentence_bert_config.json"
        if limits.is_file() and (max_tokens := json.loads(_read(limits)).get("max_seq_length")):
            self.max_tokens = min(int(max_tokens), self.max_tokens)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return embeddings (b, d) of token ids (b, n), not normalised."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        tokens: Tensor = self.transformer(input_ids=input_ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _pooling(folder: Path) -> str:
    paths = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in json.loads(_read(folder / "modules.json"))}
    # Normalize changes nothing here: every loss and metric normalises its inputs.
    unknown = paths.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown or "Pooling" not in paths:
        raise ModelError(
            f"{folder}: modules.json lists {', '.join(paths)}; only Transformer, Pooling and Normalize are supported"
        )
    config = json.loads(_read(folder / paths["Pooling"] / "config.json"))
    enabled = [
        key.removeprefix("pooling_mode_")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    mode = config.get("pooling_mode") or " and ".join(enabled)
    supported = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if mode not in supported:
        raise ModelError(f"{folder}: pools by {mode or 'nothing'}; only mean_tokens and cls_token are supported")
    return supported[mode]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


class TextTower(nn.Module):
    """A text model; until `tune_text` tunes it, no parameter requires a gradient, and it stays in evaluation mode."""

    def __init__(
        self, model: ClipText | SentenceModel, reference: str = "", folder: Path | None = None,
        max_tokens: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.reference = reference
        self.folder = folder
        """The folder of the tokenizer files; None for a model that encodes token ids only."""
        self.dim = model.dim
        self.max_tokens = min(max_tokens or model.max_tokens, model.max_tokens)
        self.tune: TextTune = "frozen"
        self.adapters: LoraSettings | None = None
        """Settings of the injected adapters; None without adapters."""
        self.base_sha256: str | None = None
        """Digest of the weights that a tuned tower started from; None for a frozen tower."""
        self._tokenizer: Any = None

    @classmethod
    def load(cls, reference: str | Path, max_tokens: int | None = None) -> TextTower:
        """Load a CLIP or sentence-transformers folder, hub id or ``package:NAME/folder``.

        ``max_tokens`` lowers the model's own limit. Raises `ModelError` for a missing or unsupported model.
        """
        folder = model_folder(reference)
        if (folder / "modules.json").is_file():
            return cls(SentenceModel(folder), str(reference), folder, max_tokens)
        config = read_config(folder)
        if "text_config" not in config:
            raise ModelError(
                f"{folder}: neither a CLIP folder (text_config) nor a sentence-transformers one (modules.json)"
            )
        return cls.of_clip(folder, config, read_weights(folder), max_tokens, reference=str(reference))

    @classmethod
    def of_clip(
        cls, folder: Path, config: Mapping[str, object], weights: State, max_tokens: int | None = None, *,
        reference: str | None = None,
    ) -> TextTower:  # fmt: skip
        """Build the text tower of a CLIP folder whose configuration and weights have been read already."""
        settings = clip_text_settings(config, str(folder))
        text = with_weights(lambda: ClipText(settings), text_part(plain_names(weights)), str(folder))
        return cls(text, reference or str(folder), folder, max_tokens)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description: the model's reference, a digest of its weights, how it is tuned."""
        lora = self.adapters.model_dump(mode="json") if self.adapters is not None else None
        return {
            "model": self.reference, "max_tokens": self.max_tokens, "weights_sha256": self._start_digest(),
            "tune": self.tune, "lora": lora,
        }  # fmt: skip

    def _start_digest(self) -> str:
        return self.base_sha256 or self.weights_digest()

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TextTower:
        """Load the described tower, not tuned yet; raises `ModelError` if it is missing or its weights have changed."""
        tower = cls.load(description["model"], description["max_tokens"])
        tower.check_start(description)
        return tower

    def check_start(self, description: Mapping[str, Any]) -> None:
        """Raise `ModelError` if the tower did not start from the weights that the described one started from."""
        if self._start_digest() != description["weights_sha256"]:
            raise ModelError(
                f"text model {self.reference}: its weights differ from those used in training; restore them"
            )

    def train(self, mode: bool = True) -> TextTower:
        """Set the mode of a tuned tower; a frozen one stays in evaluation mode."""
        return super().train(mode and self.tune != "frozen")

    @property
    def layers(self) -> nn.ModuleList:
        """The model's transformer layers."""
        return next(module for module in self.model.modules() if isinstance(module, nn.ModuleList))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return embeddings (b, d) of token ids (b, n), in at least float32, not normalised."""
        return wide(self.model(input_ids, attention_mask))

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, loaded on first use; raises `ModelError` if the folder has none."""
        if self._tokenizer is None:
            from transformers import AutoTokenizer, CLIPTokenizer

            if self.folder is None or not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
                raise ModelError(f"{self.folder}: has no tokenizer.json; it can encode token ids only, not texts")
            # AutoTokenizer reads config.json's model_type, and transformers knows neither LanguageBind's nor vidal's.
            tokenizer = CLIPTokenizer if isinstance(self.model, ClipText) else AutoTokenizer
            try:
                self._tokenizer = tokenizer.from_pretrained(self.folder, trust_remote_code=False)
            except (OSError, ValueError, KeyError) as error:
                raise ModelError(f"{self.folder}: its tokenizer cannot be loaded: {one_line(error, 200)}") from error
        return self._tokenizer

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask (b, max_tokens) int64, always truncated and padded to that length."""
        encoded = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """Tokenise and encode n texts as (n, d), on the tower's device, as `encode_tokens` does."""
        if not texts:
            return torch.zeros(0, self.dim, device=next(self.model.parameters()).device)
        return self.encode_tokens(*self.tokenize(texts), batch_size)

    @torch.no_grad()
    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor, batch_size: int = 16) -> Tensor:
        """Encode n tokenised texts (n, max_tokens), at least one, as (n, d), on the tower's device.

        Every forward pass has ``batch_size`` rows of ``max_tokens`` tokens, the last batch padded with copies of the
        first text, so that a text's embedding is bitwise identical whatever other texts are encoded with it.
        """
        device, missing = next(self.model.parameters()).device, -len(input_ids) % batch_size
        ids, mask = (torch.cat([x, x[:1].expand(missing, -1)]).to(device) for x in (input_ids, attention_mask))
        batches = zip(torch.split(ids, batch_size), torch.split(mask, batch_size), strict=True)
        return torch.cat([self(i, m) for i, m in batches])[: len(input_ids)]

    def identity(self) -> str:
        """Return a SHA-256 of all that embeddings depend on: weights, ``max_tokens``, configuration and tokenizer."""
        found = hashlib.sha256(f"{self.weights_digest()} {self.max_tokens}".encode())
        folder = self.folder or Path()
        for path in sorted(path for pattern in _IDENTITY_FILES for path in folder.glob(pattern)) if self.folder else ():
            found.update(f" {path.relative_to(folder)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()

    def weights_digest(self) -> str:
        """Return the SHA-256 of the names, dtypes, shapes and bytes of all weights, as hex."""
        return digest(self.model.state_dict())
