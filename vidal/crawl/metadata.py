"""Converts yt-dlp's metadata to crawl columns, by one table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Convert = Callable[[Any], Any]

_TITLE_CHARACTERS = 2_000
_DESCRIPTION_CHARACTERS = 20_000
_LIST_LENGTH = 200


def clean(value: Any, limit: int = _TITLE_CHARACTERS) -> str | None:
    """The text of a value in any script, without lone surrogates and control characters; None for what is no text."""
    if value is None or isinstance(value, (dict, list, tuple, bool)):
        return None
    # Through UTF-16, which joins the halves of a surrogate pair; only those without their other half are replaced.
    text = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "", text).strip()
    return text[:limit] or None


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in map(clean, values[:_LIST_LENGTH]) if text is not None]


def _count(value: Any) -> int | None:
    number = _number(value)
    # What an int64 column can hold.
    return int(number) if number is not None and 0 <= number < 2**63 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _day(value: Any) -> str | None:
    """``20260131`` to ``2026-01-31``."""
    match = re.fullmatch(r"(\d{4})(\d{2})(\d{2})", str(value))
    return "-".join(match.groups()) if match else None


def _address(value: Any) -> str | None:
    text = clean(value)
    return text if text and re.match(r"https?://", text) else None


def _word(value: Any) -> str | None:
    text = clean(value)
    return text.lower() if text else None


TABLE: tuple[tuple[str, tuple[str, ...], Convert], ...] = (
    # column, yt-dlp's fields of which the first with a value counts, conversion
    ("extractor", ("extractor_key", "ie_key", "extractor"), _word),
    ("platform_id", ("id",), clean),
    ("title", ("fulltitle", "title"), clean),
    ("description", ("description",), lambda value: clean(value, _DESCRIPTION_CHARACTERS)),
    ("tags", ("tags",), _texts),
    ("categories", ("categories",), _texts),
    ("uploader", ("uploader", "channel", "creator", "artist"), clean),
    ("uploader_id", ("channel_id", "uploader_id"), clean),
    ("uploader_url", ("channel_url", "uploader_url"), _address),
    ("licence", ("license",), clean),
    ("upload_date", ("upload_date", "release_date"), _day),
    ("duration_s", ("duration",), _seconds),
    ("view_count", ("view_count",), _count),
    ("like_count", ("like_count",), _count),
    ("comment_count", ("comment_count",), _count),
    ("average_rating", ("average_rating",), _number),
    ("age_limit", ("age_limit",), _count),
    ("live_status", ("live_status",), clean),
    ("is_live", ("is_live",), _flag),
    ("was_live", ("was_live",), _flag),
    ("availability", ("availability",), clean),
    ("platform_language", ("language",), clean),
    ("chapter_count", ("chapters",), lambda value: len(value) if isinstance(value, list) else None),
    ("media_type", ("media_type",), clean),
    ("webpage_url", ("webpage_url", "original_url", "url"), _address),
    ("stated_width", ("width",), _count),
    ("stated_height", ("height",), _count),
    ("format_id", ("format_id",), clean),
)

# Behind & or / the sign begins an HTML entity or an address's fragment.
_TAG = re.compile(r"(?<![\w&/#])#([^\s#!@$%^&*()=+./,\[{\]};:'\"?><،。，、！？]+)")
# `post_live`: the stream has ended, and its recording is not ready yet.
_LIVE = {"is_live": True, "is_upcoming": True, "post_live": True, "not_live": False, "was_live": False}


def crawl_columns(info: dict[str, Any]) -> dict[str, Any]:
    """The crawl columns of a video, or of an entry of a search; a column without a value is None."""
    row = {
        column: convert(next((info[name] for name in fields if info.get(name) is not None), None))
        for column, fields, convert in TABLE
    }
    row["hashtags"] = hashtags(row["title"] or "", row["description"] or "")
    if row["is_live"] is None:
        row["is_live"] = _LIVE.get(row["live_status"] or "")
    elif row["live_status"] in ("is_upcoming", "post_live"):
        row["is_live"] = True
    if row["uploader_id"] and not row["uploader"]:
        row["uploader"] = row["uploader_id"]
    return row


def hashtags(*texts: str) -> list[str]:
    """The ``#words`` of the texts, in any script, without the sign, in order, each once regardless of case."""
    tags: dict[str, str] = {}
    for text in texts:
        for tag in _TAG.findall(text):
            # A number is no hashtag, nor is a keycap emoji, which is a digit with joiners.
            if not tag.strip("_-\ufe0f\u200d").isdigit():
                tags.setdefault(tag.casefold(), tag)
    return list(tags.values())[:_LIST_LENGTH]
