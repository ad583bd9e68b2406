"""Tiny CLIP folders, for tests that start from one."""

from __future__ import annotations

import json
from pathlib import Path

import torch

VOCABULARY = 49408
"""Tokens of CLIP's own vocabulary."""


def clip_folder(path: Path, activation: str = "quick_gelu", vocabulary: int = 99) -> Path:
    """A tiny random CLIPModel, saved by transformers."""
    from transformers import CLIPConfig, CLIPModel

    stack = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": activation, "projection_dim": 24}
    text = stack | {
        "hidden_size": 32,
        "intermediate_size": 48,
        "vocab_size": vocabulary,
        "eos_token_id": vocabulary - 1,
        "bos_token_id": vocabulary - 2,
        "max_position_embeddings": 16,
    }
    vision = stack | {"hidden_size": 40, "intermediate_size": 80, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # so that norms and biases count
    model.save_pretrained(path)
    return path


def clip_tokenizer(folder: Path) -> None:
    """CLIP's vocabulary, as open_clip carries it, in the two files of a CLIP folder."""
    from open_clip.tokenizer import SimpleTokenizer

    theirs = SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    (folder / "vocab.json").write_text(json.dumps({names.get(token, token): n for token, n in theirs.encoder.items()}))
    merges = sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
