"""Tiny captioning models of transformers with random weights: they show that the paths work, not what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

SPECIAL = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<image>", "<video>", "<|image_pad|>", "<|video_pad|>",
    "<|vision_start|>", "<|vision_end|>",
]  # fmt: skip
WORDS = [
    *SPECIAL, "a", "dog", "cat", "car", "man", "runs", "sits", "sleeps", "in", "on", "the", "park", "grass", "road", "red",
]  # fmt: skip
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
IDS = {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
SQUARE = {"height": 32, "width": 32}
LLAMA = {"model_type": "llama", **SMALL, **IDS, "num_key_value_heads": 2}

# As the published templates do, this one knows videos.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE "
    "{% elif c['type'] == 'video' %}VIDEO {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
)
TEMPLATE = CHAT_TEMPLATE.replace("IMAGE", "<image>").replace("VIDEO", "<video>")
QWEN_TEMPLATE = CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
    "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
)


def word(name: str) -> int:
    return WORDS.index(name)


def bert_tokenizer(folder: Path) -> Any:
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))


def fast_tokenizer(**named: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    # Florence-2 looks for these two by their names.
    names = {"[CLS]": "<s>", "[SEP]": "</s>"}
    ids = {names.get(each, each): index for index, each in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", bos_token="<s>", eos_token="</s>", unk_token="[UNK]",
        additional_special_tokens=SPECIAL[5:], **named,
    )  # fmt: skip


def save(folder: Path, model_class: Any, config: Any, processor: Any) -> str:
    torch.manual_seed(0)
    model = model_class(config=config)
    for weights in model.parameters():
        # As large as to tell images and prompts apart, where initial weights say the same of all.
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def blip(folder: Path) -> str:
    text = {**SMALL, **IDS, "sep_token_id": 3, "encoder_hidden_size": 32}
    config = transformers.BlipConfig(text_config=text, vision_config={**SMALL, "image_size": 32, "patch_size": 16})
    processor = transformers.BlipProcessor(transformers.BlipImageProcessor(size=SQUARE), bert_tokenizer(folder))
    return save(folder, transformers.BlipForConditionalGeneration, config, processor)


def _queried(folder: Path, kind: str) -> tuple[Any, Any]:
    qformer = {**SMALL, "vocab_size": len(WORDS), "encoder_hidden_size": 32}
    text = {"model_type": "opt", **SMALL, **IDS, "ffn_dim": 32, "word_embed_proj_dim": 32}
    config = getattr(transformers, f"{kind}Config")(
        vision_config={**SMALL, "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
        qformer_config=qformer, text_config=text, num_query_tokens=2, image_token_index=word("<image>"),
    )  # fmt: skip
    images, tokenizer = transformers.BlipImageProcessor(size=SQUARE), bert_tokenizer(folder)
    tokenizers = (tokenizer, tokenizer) if kind == "InstructBlip" else (tokenizer,)
    return config, getattr(transformers, f"{kind}Processor")(images, *tokenizers, num_query_tokens=2)


def blip_2(folder: Path) -> str:
    return save(folder, transformers.Blip2ForConditionalGeneration, *_queried(folder, "Blip2"))


def instructblip(folder: Path) -> str:
    return save(folder, transformers.InstructBlipForConditionalGeneration, *_queried(folder, "InstructBlip"))


def git(folder: Path) -> str:
    config = transformers.GitConfig(**SMALL, **IDS, vision_config={**SMALL, "image_size": 32, "patch_size": 16})
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return save(folder, transformers.GitForCausalLM, config, transformers.GitProcessor(images, bert_tokenizer(folder)))


def encoder_decoder(folder: Path) -> str:
    decoder = transformers.BertConfig(**SMALL, **IDS, is_decoder=True, add_cross_attention=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**SMALL, image_size=32, patch_size=16), decoder
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    bert_tokenizer(folder).save_pretrained(folder)
    images = transformers.ViTImageProcessor(size=SQUARE)
    return save(folder, transformers.VisionEncoderDecoderModel, config, images)


def florence_2(folder: Path) -> str:
    vision = {
        "depths": (1, 1, 1, 1), "embed_dim": (8, 8, 16, 32), "num_heads": (1, 1, 2, 2), "num_groups": (1, 1, 2, 2),
        "window_size": 2, "projection_dim": 32, "drop_path_rate": 0.0,
    }  # fmt: skip
    text = {
        "model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, **IDS, "decoder_start_token_id": 3,
        "forced_eos_token_id": 3, "max_position_embeddings": 128,
    }  # fmt: skip
    config = transformers.Florence2Config(vision_config=vision, text_config=text, image_token_id=word("<image>"))
    tokenizer = fast_tokenizer(extra_special_tokens={"image_token": "<image>"})
    images = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    rules = {"pure_text": {"pattern": None}}
    processor = transformers.Florence2Processor(images, tokenizer, post_processor_config=rules)
    return save(folder, transformers.Florence2ForConditionalGeneration, config, processor)


def llava(folder: Path) -> str:
    """A model of images alone, with a chat template."""
    vision = {**SMALL, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, "projection_dim": 16}
    config = transformers.LlavaConfig(vision_config=vision, text_config=LLAMA, image_token_index=word("<image>"))
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE), fast_tokenizer(), patch_size=16,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    return save(folder, transformers.LlavaForConditionalGeneration, config, processor)


def llava_onevision(folder: Path) -> str:
    vision = {**SMALL, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8}
    config = transformers.LlavaOnevisionConfig(
        vision_config=vision, text_config={**LLAMA, "model_type": "qwen2"}, image_grid_pinpoints=[[32, 32], [32, 64]],
        image_token_index=word("<image>"), video_token_index=word("<video>"), vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    pinpoints = {"image_grid_pinpoints": [[32, 32], [32, 64]]}
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=SQUARE, **pinpoints), fast_tokenizer(),
        transformers.LlavaOnevisionVideoProcessor(size=SQUARE), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=TEMPLATE,
    )  # fmt: skip
    return save(folder, transformers.LlavaOnevisionForConditionalGeneration, config, processor)


def _qwen(folder: Path, name: str, vision: dict[str, Any], sections: list[int]) -> str:
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 10000.0}
    text = {**SMALL, **IDS, "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": rope}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision, text_config=text, image_token_id=word("<|image_pad|>"),
        video_token_id=word("<|video_pad|>"), vision_start_token_id=word("<|vision_start|>"),
        vision_end_token_id=word("<|vision_end|>"),
    )  # fmt: skip
    pixels = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 8}
    patches = {"patch_size": vision["patch_size"], "temporal_patch_size": 2, "merge_size": 2}
    videos = transformers.Qwen3VLVideoProcessor if name == "Qwen3VL" else transformers.Qwen2VLVideoProcessor
    processor = getattr(transformers, f"{name}Processor")(
        transformers.Qwen2VLImageProcessor(**pixels, **patches), fast_tokenizer(),
        videos(**patches, size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}),
        chat_template=QWEN_TEMPLATE,
    )  # fmt: skip
    return save(folder, getattr(transformers, f"{name}ForConditionalGeneration"), config, processor)


def qwen2_5_vl(folder: Path) -> str:
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 14, "window_size": 56,
        "out_hidden_size": 32, "fullatt_block_indexes": [0],
    }  # fmt: skip
    return _qwen(folder, "Qwen2_5_VL", vision, [2, 3, 3])


def qwen3_vl(folder: Path) -> str:
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 16,
        "num_position_embeddings": 16, "out_hidden_size": 32, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    return _qwen(folder, "Qwen3VL", vision, [2, 3, 3])


ALL: dict[str, Callable[[Path], str]] = {
    build.__name__: build
    for build in (
        blip, blip_2, instructblip, git, encoder_decoder, florence_2, llava, llava_onevision, qwen2_5_vl, qwen3_vl,
    )
}  # fmt: skip
TAKE_VIDEO = ("llava_onevision", "qwen2_5_vl", "qwen3_vl")
