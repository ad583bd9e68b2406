"""The texts of a clip, and the columns with the models that made them; apart from the page, which needs Jinja."""

from __future__ import annotations

MODEL_OF: dict[str, str | None] = {
    "title": None,
    "hashtags": None,
    "clean_title": None,
    "ocr_text": "ocr_model",
    "transcript": "transcript_model",
    "frame_captions": "frame_caption_model",
    "video_caption": "frame_caption_model",
    "sound_caption": "sound_caption_model",
    "caption": "caption_model",
}
