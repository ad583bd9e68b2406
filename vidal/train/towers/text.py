"""`TextTower`: the frozen text side, from a CLIP folder or a sentence-transformers folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidal.errors import ModelError
from vidal.train.towers.config import clip_text_settings
from vidal.train.towers.settings import ClipTextSettings
from vidal.train.towers.vit import Layer, Layers, initialise
from vidal.train.towers.weights import model_folder, plain_names, read_config, read_weights, text_part, with_weights

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")


class TextEmbeddings(nn.Module):
    """Tokens and their positions."""

    def __init__(self, s: ClipTextSettings) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(s.vocabulary, s.hidden_size)
        self.position_embedding = nn.Embedding(s.max_tokens, s.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.token_embedding(input_ids) + self.position_embedding.weight[: input_ids.shape[1]]
        return embedded


class ClipText(nn.Module):
    """CLIP's text transformer with transformers' parameter names, and its projection."""

    def __init__(self, settings: ClipTextSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.embeddings = TextEmbeddings(s)
        self.encoder = Layers([Layer(s) for _ in range(s.layers)])
        self.final_layer_norm = nn.LayerNorm(s.hidden_size, eps=s.layer_norm_eps)
        self.text_projection = nn.Linear(s.hidden_size, s.projection_dim, bias=False)
        with torch.no_grad():
            nn.init.normal_(self.embeddings.token_embedding.weight, std=0.02)
            nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)
            nn.init.normal_(self.text_projection.weight, std=s.hidden_size**-0.5)
        initialise(self.encoder, s.hidden_size)

    @property
    def dim(self) -> int:
        return self.settings.projection_dim

    @property
    def max_tokens(self) -> int:
        return self.settings.max_tokens

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        n = input_ids.shape[1]
        square = torch.ones(n, n, dtype=torch.bool, device=input_ids.device)
        mask = square.tril()
        if attention_mask is not None:
            # A padding token still sees itself: a row without any key would be NaN and spread.
            mask = mask & (attention_mask[:, None, None, :].bool() | torch.eye(n, dtype=torch.bool, device=mask.device))
        x = self.final_layer_norm(self.encoder(self.embeddings(input_ids), mask=mask))
        # The end of text has the largest number of the vocabulary.
        pooled = x[torch.arange(len(x), device=x.device), input_ids.argmax(-1)]
        embedding: Tensor = self.text_projection(pooled)
        return embedding


class SentenceModel(nn.Module):
    """A sentence-transformers folder: a transformer, and one vector from its tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.pooling = _pooling(folder)
        self.transformer = _auto_model(folder)
        self.dim = int(self.transformer.config.hidden_size)
        self.max_tokens = _max_tokens(folder, int(self.transformer.config.max_position_embeddings))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        tokens: Tensor = self.transformer(input_ids=input_ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def _auto_model(folder: Path) -> Any:
    from transformers import AutoModel
    from transformers.utils import logging

    # Its bar over a second's work would stand among the run's own lines.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if not any(folder.glob("*.safetensors")):
        read_weights(folder)  # refuses a pickle with code, in one line
    try:
        return AutoModel.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:200]}") from error


def _tokenizer(folder: Path, *, is_clip: bool) -> Any:
    from transformers import AutoTokenizer, CLIPTokenizer

    # By name: AutoTokenizer asks config.json, whose model_type transformers may not know (LanguageBind's, ours).
    kind = CLIPTokenizer if is_clip else AutoTokenizer
    try:
        return kind.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {' '.join(str(error).split())[:200]}") from error


def _pooling(folder: Path) -> str:
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in json.loads(_read(folder / "modules.json"))}
    # Normalize may be there: every loss and metric normalises by itself.
    unknown = kinds.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown or "Pooling" not in kinds:
        raise ModelError(
            f"{folder}: modules.json has {', '.join(kinds)}; only Transformer, Pooling, Normalize are known"
        )
    config = json.loads(_read(folder / kinds["Pooling"] / "config.json"))
    on = [k.removeprefix("pooling_mode_") for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    mode = config.get("pooling_mode") or (on[0] if len(on) == 1 else " and ".join(on))
    known = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}
    if mode not in known:
        raise ModelError(f"{folder}: pools by {mode or 'nothing'}; only mean_tokens and cls_token are known")
    return known[mode]


def _max_tokens(folder: Path, most: int) -> int:
    path = folder / "sentence_bert_config.json"
    said = json.loads(_read(path)).get("max_seq_length") if path.is_file() else None
    return min(int(said), most) if said else most


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error


class TextTower(nn.Module):
    """A text model that is never trained: its parameters need no gradient, and it stays in evaluation mode."""

    def __init__(
        self, model: ClipText | SentenceModel, reference: str = "", folder: Path | None = None,
        max_tokens: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.reference = reference
        self.folder = folder
        """Where the tokenizer's files are."""
        self.dim = model.dim
        self.max_tokens = min(max_tokens or model.max_tokens, model.max_tokens)
        self._tokenizer: Any = None

    @classmethod
    def load(cls, reference: str | Path, max_tokens: int | None = None) -> TextTower:
        """From a CLIP or sentence-transformers folder, hub id or ``package:NAME/folder``; raises `ModelError`."""
        folder = model_folder(reference)
        if (folder / "modules.json").is_file():
            return cls(SentenceModel(folder), str(reference), folder, max_tokens)
        config = read_config(folder)
        if "text_config" not in config:
            raise ModelError(f"{folder}: neither a CLIP folder (text_config) nor sentence-transformers (modules.json)")
        settings = clip_text_settings(config, str(folder))
        text = with_weights(lambda: ClipText(settings), text_part(plain_names(read_weights(folder))), str(folder))
        return cls(text, str(reference), folder, max_tokens)

    def describe(self) -> dict[str, Any]:
        """JSON-able: where the tower is from, and a digest by which it is known again."""
        return {"model": self.reference, "max_tokens": self.max_tokens, "weights_sha256": self.weights_digest()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> TextTower:
        """Raises `ModelError` where the model is gone or has other weights by now."""
        tower = cls.load(description["model"], description["max_tokens"])
        if tower.weights_digest() != description["weights_sha256"]:
            raise ModelError(f"text model {tower.reference}: has other weights than it was trained with; restore it")
        return tower

    def train(self, mode: bool = True) -> TextTower:
        return super().train(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(b, n) token numbers to (b, d) float32, not normalised."""
        embedding: Tensor = self.model(input_ids, attention_mask)
        return embedding.float() if embedding.dtype in (torch.bfloat16, torch.float16) else embedding

    @property
    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            if self.folder is None or not any((self.folder / name).is_file() for name in _TOKENIZER_FILES):
                raise ModelError(f"{self.folder}: has no tokenizer.json; it encodes token numbers, not texts")
            self._tokenizer = _tokenizer(self.folder, is_clip=isinstance(self.model, ClipText))
        return self._tokenizer

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token numbers and mask (b, max_tokens), cut and padded to that length whatever the texts."""
        encoded = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"]

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """(n, d) float32 on the tower's device.

        Every pass has ``batch_size`` rows of ``max_tokens`` tokens, the last one filled up, so that a text's
        embedding is the same to the bit whatever it is encoded with.
        """
        device = next(self.model.parameters()).device
        if not texts:
            return torch.zeros(0, self.dim, device=device)
        ids, mask = self.tokenize(texts)
        missing = -len(ids) % batch_size
        ids, mask = (torch.cat([x, x[:1].expand(missing, -1)]).to(device) for x in (ids, mask))
        batches = zip(torch.split(ids, batch_size), torch.split(mask, batch_size), strict=True)
        return torch.cat([self(i, m) for i, m in batches])[: len(texts)]

    def weights_digest(self) -> str:
        """sha256 over the names and bytes of all weights: equal before and after training."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return total.hexdigest()
