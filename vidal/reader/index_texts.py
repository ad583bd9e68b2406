"""Sets manifest columns from the text members of foreign tars.

The names of LanguageBind's tars, vidal's own and the common ones are recognised:

    raw.txt          title#tag#tag             title, hashtags
    mplug.txt        polish_mplug.txt          video_caption, caption
    sound_mplug.txt  ofa0.txt … ofa7.txt       sound_caption, frame_captions
    txt              caption.txt, text.txt     caption
    json             the columns of vidal's json; caption, text and title of any other
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from vidal.clip import Clip
from vidal.errors import ClipError

_COLUMNS = {
    "mplug.txt": "video_caption", "sound_mplug.txt": "sound_caption", "polish_mplug.txt": "caption",
    "txt": "caption", "caption.txt": "caption", "text.txt": "caption",
}  # fmt: skip
"""Column by suffix; the first suffix of a column takes precedence."""
_OF_JSON = (
    "title", "clean_title", "caption", "video_caption", "sound_caption", "transcript", "ocr_text", "uploader",
    "licence", "attribution",
)  # fmt: skip
_LISTS_OF_JSON = ("hashtags", "frame_captions")
_FRAME = re.compile(r"ofa([0-9]{1,2})\.txt")


def is_text(suffix: str) -> bool:
    """Return whether a member with this suffix holds texts of its clip."""
    return suffix in _COLUMNS or suffix in ("raw.txt", "json") or _FRAME.fullmatch(suffix) is not None


def fill(clip: Clip, texts: Mapping[str, bytes]) -> None:
    """Set the columns of the text members, given by suffix. Raises `ClipError` with reason ``bad_text``."""
    try:
        text_of = {suffix: data.decode("utf-8-sig").strip() for suffix, data in texts.items()}
        record = json.loads(text_of.pop("json", "{}"))
    except (ValueError, RecursionError) as error:
        raise ClipError("bad_text", str(error)) from None
    if not isinstance(record, dict):
        raise ClipError("bad_text", "json that is no object")
    # Only values of the right type: the json member is a stranger's.
    for column, key in [*zip(_OF_JSON, _OF_JSON, strict=True), ("caption", "text")]:
        if getattr(clip, column) is None and isinstance(text := record.get(key), str) and text.strip():
            setattr(clip, column, _with_surrogates_replaced(text.strip()))
    for column in _LISTS_OF_JSON:
        if isinstance(parts := record.get(column), list) and all(isinstance(part, str) for part in parts):
            setattr(clip, column, [_with_surrogates_replaced(part) for part in parts])
    if raw := text_of.get("raw.txt"):
        title, *tags = (part.strip() for part in raw.split("#"))
        clip.title, clip.hashtags = title or None, [tag for tag in tags if tag]
    for suffix, column in reversed(_COLUMNS.items()):
        if text_of.get(suffix):
            setattr(clip, column, text_of[suffix])
    frames = {int(match[1]): text for suffix, text in text_of.items() if (match := _FRAME.fullmatch(suffix))}
    if frames:
        # Caption k is that of frame k, so a missing one is empty.
        clip.frame_captions = [frames.get(k, "") for k in range(max(frames) + 1)]


def _with_surrogates_replaced(text: str) -> str:
    """Put "?" for lone surrogates, which JSON can escape and Parquet cannot store."""
    return text.encode("utf-8", "replace").decode()
