"""FrameCaptions: with the real classifier on real frames, tiny transformers models, and a real local server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import transformers

from tests.chat_site import Site, running_site
from tests.toys import clip_of
from vidal.clip import Clip
from vidal.errors import ClipError, ModelError, RecipeError
from vidal.models.captioner import Captioned, ServerCaptioner, TransformersCaptioner, most_shared
from vidal.models.openai_server import ChatServer
from vidal.stages.text.frame_captions import FrameCaptions
from vidal.work import Work


def sample(path: Path, count: int = 3) -> Clip:
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return clip_of([np.asarray(frames[index * len(frames) // count]) for index in range(count)])


def noise(count: int = 2, size: int = 48) -> Clip:
    random = np.random.default_rng(0)
    return clip_of([random.integers(0, 255, (size, size, 3), dtype=np.uint8) for _ in range(count)])


# ---- labels, by the real classifier


@pytest.fixture(scope="module")
def labels() -> FrameCaptions:
    stage = FrameCaptions()
    stage.setup()
    return stage


def test_a_cup_of_coffee_is_a_guessed_espresso(labels: FrameCaptions, samples: Path) -> None:
    clip = sample(samples / "coffee-still.mp4")
    labels.process_batch([clip])
    assert clip.frame_captions == ["a frame that may show an espresso"] * 3
    assert clip.video_caption == "a video that may show an espresso"
    assert clip.frame_caption_score is not None and 0.6 < clip.frame_caption_score < 1
    assert (
        clip.frame_caption_model is not None and "efficientnet-lite0-57934424.pth sha256:" in clip.frame_caption_model
    )


def test_a_cat_is_a_cat(labels: FrameCaptions, samples: Path) -> None:
    clip = sample(samples / "cat-stare.mp4")
    labels.process_batch([clip])
    assert clip.video_caption is not None and " cat" in clip.video_caption


def test_what_the_classifier_does_not_know_is_not_named(labels: FrameCaptions) -> None:
    clip = clip_of([np.full((48, 64, 3), 128, np.uint8)] * 2)
    labels.process_batch([clip])
    assert clip.frame_captions == ["a frame with no object recognised"] * 2
    assert clip.video_caption == "a video with no object recognised"
    assert clip.frame_caption_score is not None and clip.frame_caption_score < 0.3


def test_the_same_frames_give_the_same_row(labels: FrameCaptions, samples: Path) -> None:
    one, two = (sample(samples / "cat-stare.mp4") for _ in range(2))
    labels.process_batch([one])
    labels.process_batch([noise()])
    labels.process_batch([two])
    assert one == two


def test_a_higher_limit_names_less(samples: Path) -> None:
    stage = FrameCaptions(min_score=1.0)
    stage.setup()
    clip = sample(samples / "coffee-still.mp4", 1)
    stage.process_batch([clip])
    assert clip.video_caption == "a video with no object recognised"


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ModelError, match="no EfficientNet-lite0 checkpoint") as caught:
        FrameCaptions(model=str(tmp_path / "x.pth")).setup()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_one_line(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match="no EfficientNet-lite0 checkpoint"):
        FrameCaptions(model=str(tmp_path / "x.pth")).setup()


# ---- transformers: tiny models with random weights show that the paths work, not what they say

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<image>", "a", "dog", "runs", "in", "the", "park", "."]


def tiny_blip(folder: Path) -> str:
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(0)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer: Any = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**small, **ids, "vocab_size": len(WORDS), "encoder_hidden_size": 16}
    config = BlipConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return str(folder)


CHAT_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)


def tiny_llava(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers import PreTrainedTokenizerFast as Fast

    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Fast(
        tokenizer_object=words,
        pad_token="[PAD]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        additional_special_tokens=["<image>"],
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**small, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, "projection_dim": 16}
    text = {**small, "model_type": "llama", "vocab_size": len(WORDS), "num_key_value_heads": 2, "pad_token_id": 0}
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=WORDS.index("<image>"))
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("build", [tiny_blip, tiny_llava])
def test_any_image_text_model_captions_frames_and_clip(build: Any, tmp_path: Path) -> None:
    reference = build(tmp_path)
    rows = []
    for _ in range(2):
        stage = FrameCaptions(backend="transformers", model=reference, max_new_tokens=6)
        stage.setup()
        clip = noise()
        stage.process_batch([clip])
        rows.append(clip)
    assert rows[0] == rows[1]
    assert len(clip.frame_captions) == 2 and clip.video_caption
    assert "describe" not in clip.video_caption.lower()
    assert clip.frame_caption_score is not None and 0 < clip.frame_caption_score <= 1
    assert clip.frame_caption_model is not None and "sha256:" in clip.frame_caption_model


def tiny_instructblip(folder: Path) -> str:
    tokenizer: Any = transformers.BertTokenizerFast(vocab=str(vocabulary(folder)))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = {"model_type": "opt", **small, "ffn_dim": 16, "word_embed_proj_dim": 16, **ids}
    config = transformers.InstructBlipConfig(
        vision_config={**small, "image_size": 32, "patch_size": 16},
        qformer_config={**small, "vocab_size": len(WORDS), "encoder_hidden_size": 16},
        text_config=text, num_query_tokens=2, image_token_index=5,
    )  # fmt: skip
    transformers.InstructBlipForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.InstructBlipProcessor(images, tokenizer, tokenizer, num_query_tokens=2).save_pretrained(folder)
    return "instructblip cannot be driven as a captioner"


def tiny_encoder_decoder(folder: Path) -> str:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder = transformers.BertConfig(**small, vocab_size=len(WORDS), is_decoder=True, add_cross_attention=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**small, image_size=32, patch_size=16), decoder
    )
    transformers.VisionEncoderDecoderModel(config=config).save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(vocabulary(folder))).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return "vision-encoder-decoder cannot be driven as a captioner"


def florence(folder: Path) -> str:
    transformers.Florence2Config().save_pretrained(folder)
    return "florence2 cannot be driven as a captioner (it is prompted with task tokens)"


def smolvlm(folder: Path) -> str:
    transformers.SmolVLMConfig().save_pretrained(folder)
    transformers.BertTokenizerFast(vocab=str(vocabulary(folder))).save_pretrained(folder)
    transformers.SmolVLMImageProcessor().save_pretrained(folder)
    transformers.SmolVLMVideoProcessor().save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "SmolVLMProcessor"}')
    return "num2words"


def vocabulary(folder: Path) -> Path:
    torch.manual_seed(0)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder / "vocab.txt"


@pytest.mark.parametrize("build", [tiny_instructblip, tiny_encoder_decoder, florence, smolvlm])
def test_a_class_that_cannot_be_driven_is_rejected_in_one_line_before_any_clip(build: Any, tmp_path: Path) -> None:
    why = build(tmp_path)
    with pytest.raises(ModelError, match=re.escape(why)) as caught:
        FrameCaptions(backend="transformers", model=str(tmp_path)).setup()
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"^model /") as caught:
        TransformersCaptioner(str(tmp_path), device="cpu", max_new_tokens=4)
    assert "\n" not in str(caught.value)


def test_the_clip_gets_the_caption_that_shares_most() -> None:
    assert most_shared(["a red car", "a dog runs", "a dog sleeps", "dogs run"]) == "a dog runs"


# ---- a real server on the loopback


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as site:
        yield site


def captioner(site: Site) -> ServerCaptioner:
    return ServerCaptioner(ChatServer(base_url=site.url, model="vlm", sleep=lambda seconds: None), 40)


def test_a_server_sees_the_stored_bytes_of_each_frame_then_of_all(site: Site) -> None:
    for text in ("a  dog\nruns", "a dog sits", "a dog in a park"):
        site.says(f'{{"caption": {text!r}}}'.replace("'", '"'))
    clip = noise()
    stage = FrameCaptions(backend="server", model="vlm")
    stage.setup(captioner(site))
    stage.process_batch([clip])
    assert (clip.frame_captions, clip.video_caption) == (["a dog runs", "a dog sits"], "a dog in a park")
    assert (clip.frame_caption_score, clip.frame_caption_model) == (None, "server vlm")
    parts = [request["messages"][0]["content"] for request in site.requests]
    assert [[part["type"] for part in content] for content in parts] == [
        ["image_url", "text"],
        ["image_url", "text"],
        ["image_url", "image_url", "text"],
    ]
    addresses = [part["image_url"]["url"] for content in parts for part in content if part["type"] == "image_url"]
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)


def test_frames_of_many_clips_are_asked_about_at_once_and_each_clip_gets_its_own() -> None:
    def answer(request: dict[str, Any]) -> str:
        shown = [part for part in request["messages"][0]["content"] if part["type"] == "image_url"]
        size = sum(len(part["image_url"]["url"]) for part in shown)
        return json.dumps({"caption": f"{len(shown)} images of {size}"})

    clips = [noise(2, size=16 + 8 * n) for n in range(3)]
    with running_site(answer=answer, wait_for=5) as site:
        stage = FrameCaptions(backend="server", model="vlm", server_url=site.url, concurrency=5, prices=(1.0, 0.0))
        stage.setup()
        stage.process_batch(clips)
        assert site.most_at_once == 5
        for clip in clips:
            alone = clip_of([])
            alone.work.members = clip.work.members
            stage.process_batch([alone])
            assert (alone.frame_captions, alone.video_caption) == (clip.frame_captions, clip.video_caption)
            assert (clip.prompt_tokens, clip.completion_tokens) == (3 * 100, 3 * 10)
            assert clip.server_cost == 300 / 1e6
    assert len({clip.video_caption for clip in clips}) == 3


def test_replies_that_are_all_outside_the_schema_fail_the_clip(site: Site) -> None:
    for _ in range(9):
        site.says("a dog")
    with pytest.raises(ClipError, match="malformed_caption"):
        captioner(site).caption([noise().work])


def test_a_server_needs_its_address() -> None:
    with pytest.raises(RecipeError, match="server_url"):
        FrameCaptions(backend="server", model="vlm").setup()


class Blank:
    """A captioner that finds nothing to say."""

    def caption(self, works: Sequence[Work]) -> list[Captioned]:
        return [Captioned(frames=[""] * len(work.frame_members()), video="", score=None) for work in works]


def test_a_caption_without_words_is_none() -> None:
    stage = FrameCaptions()
    stage.setup(Blank())
    clip = noise()
    stage.process_batch([clip])
    assert (clip.frame_captions, clip.video_caption) == (["", ""], None)
