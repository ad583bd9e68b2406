"""The report is one file that shows everything, loads nothing, and lets no clip's text become markup."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from PIL import Image

import vidal.clip
from tests.toys import encoded, frames
from vidal.clip import Clip, MemberRecord
from vidal.modality.depth import DEPTH
from vidal.record import to_row
from vidal.report.funnel import EvenChoice, Funnel
from vidal.report.page import write_report

Row = dict[str, Any]
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' & {{ 7 * 7 }} javascript:alert(3)"


def _png(depth: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(depth.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def _members(clip_id: str, seed: int) -> dict[str, bytes]:
    ramp = np.linspace(800, 6000, 256)[::-1, None] + np.zeros((256, 144))
    made = {}
    for k, frame in enumerate(frames(seed)):
        made[f"{clip_id}.frame.{k}.jpg"] = encoded(frame)
        made[f"{clip_id}.infrared.{k}.jpg"] = encoded(frame[:, :, 1])
        made[f"{clip_id}.depth.{k}.png"] = _png(ramp + 3 * frame[:, :, 0])
    stream = io.BytesIO()
    time = np.arange(16_000 * 4) / 16_000
    soundfile.write(stream, np.sin(2 * np.pi * 220 * time) * np.abs(np.sin(2 * time)), 16_000, format="FLAC")
    return made | {f"{clip_id}.flac": stream.getvalue()}


def _kept(number: int, text: str = "A dog runs on the beach") -> tuple[Row, dict[str, bytes]]:
    clip_id = f"clip{number:03d}"
    members = _members(clip_id, number)
    clip = Clip(
        clip_id=clip_id,
        url=f"https://example.org/{text}",
        title=text,
        hashtags=["dog", text],
        licence=f"CC BY 4.0 {text}",
        attribution=f"by somebody {text}",
        duration_s=8.0,
        width=720,
        height=1280,
        fps=29.97,
        has_audio=True,
        frame_times=[0.5 + k for k in range(8)],
        clean_title=text,
        ocr_text=text,
        ocr_model=f"reader {text}",
        transcript=text,
        transcript_model="whisper",
        frame_captions=[f"{text} {k}" for k in range(8)],
        video_caption=text,
        frame_caption_model="captioner",
        caption=f"{text}, seen from above.",
        caption_source="merge",
        caption_refusal=f"invented a cat {text}",
        caption_model="merge 1",
        motion=3.25,
        luma_mean=0.5,
        depth_scale="metric",
        depth_model="depth-toy",
        infrared_model="infrared-toy",
        synthetic_layers=["depth", "infrared"],
        status="kept",
        members=[MemberRecord(layer="any", name=name, offset=0, size=1, sha256="0") for name in members],
    )
    return to_row(clip), members


def _dropped(number: int, status: str, stage: str, reason: str, detail: str = "9 > 8", **columns: Any) -> Row:
    clip = Clip(clip_id=f"away{number:03d}", status=status, stage=stage, reason=reason, detail=detail, **columns)
    return to_row(clip)


def _page(tmp_path: Path, rows: Any, members: dict[str, bytes], **settings: Any) -> str:
    out = tmp_path / "report.html"
    write_report(rows, lambda row, name: members[name], out, **settings)
    return out.read_text("utf-8")


class _Tags(html.parser.HTMLParser):
    """What a browser makes of a page: its elements, their attributes and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


AWAY = [
    _dropped(1, "rejected", "too_long", "too_long", "31.20 s > 20 s"),
    _dropped(2, "rejected", "too_long", "too_long", "41.20 s > 20 s"),
    _dropped(3, "rejected", "duplicates", "duplicate", "same SHA-256", duplicate_of="clip000"),
    _dropped(4, "failed", "media", "undecodable", EVIL, title=EVIL),
]


def test_the_funnel_counts_every_row_once() -> None:
    kept, _ = _kept(0)
    open_row = to_row(Clip(clip_id="open"))
    funnel = Funnel()
    for row in [kept, *AWAY, open_row]:
        funnel.count(row)
    lines = funnel.lines(stage_order=["media", "too_long", "duplicates"])
    assert [(line.stage, line.outcome, line.reason, line.count, line.left) for line in lines] == [
        ("media", "failed", "undecodable", 1, 5),
        ("too_long", "rejected", "too_long", 2, 3),
        ("duplicates", "rejected", "duplicate", 1, 2),
    ]
    assert funnel.candidates == 6 == funnel.kept + sum(line.count for line in lines) + funnel.open
    assert (funnel.kept, funnel.open, lines[-1].left) == (1, 1, funnel.kept + funnel.open)


@pytest.mark.parametrize(
    ("most", "offered", "chosen"),
    [
        (4, 3, [0, 1, 2]),
        (4, 4, [0, 1, 2, 3]),
        (4, 8, [0, 2, 4, 6]),
        (3, 1200, [0, 384, 768]),
        (0, 5, []),
    ],
)
def test_an_even_choice_spreads_over_all_rows(most: int, offered: int, chosen: list[int]) -> None:
    choice = EvenChoice(most)
    for number in range(offered):
        choice.offer({"number": number})
    assert [row["number"] for row in choice.rows()] == chosen
    assert (choice.seen, choice.is_all) == (offered, offered <= most)


def test_a_kept_clip_is_shown_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    row, members = _kept(0)
    page = _page(tmp_path, [row, *AWAY], members)
    tags = _Tags(page)
    alts = [attrs["alt"] for tag, attrs in tags.elements if tag == "img"]
    times = [f"{0.5 + k:.2f} s" for k in range(8)]
    assert alts == [f"{name} at {time}" for name in ("colour", "infrared", "depth") for time in times]
    assert sum(tag == "path" for tag, _ in tags.elements) == 1
    assert tags.text.count("synthetic: generated by a model") == 2
    shown = ["A dog runs on the beach, seen from above.", "caption by merge, merge 1", "invented a cat", "#dog"]
    shown += ["CC BY 4.0", "by somebody", "A dog runs on the beach 7", "whisper", "captioner", "depth-toy"]
    shown += ["infrared-toy", "motion", "3.25", "720×1280", "29.97 fps", "31.20 s > 20 s", "repeats clip000"]
    assert [text for text in shown if text not in tags.text] == []


def test_no_text_of_a_clip_becomes_markup(tmp_path: Path) -> None:
    row, members = _kept(0, EVIL)
    tags = _Tags(_page(tmp_path, [row, *AWAY], members, title=EVIL))
    assert {tag for tag, _ in tags.elements} & {"script", "iframe", "link", "object", "embed", "a", "form"} == set()
    assert [attrs for _, attrs in tags.elements if any(name.startswith("on") for name in attrs)] == []
    assert tags.text.count(EVIL) >= 17
    assert "49" not in re.sub(r"[\d.]{4,}", "", tags.text.split("javascript")[0])


def test_the_page_forbids_scripts_and_loads_nothing(tmp_path: Path) -> None:
    row, members = _kept(0)
    page = _page(tmp_path, [row], members)
    tags = _Tags(page)
    addresses = [value for _, attrs in tags.elements for name, value in attrs.items() if name in ("src", "href")]
    assert len(addresses) == 24 and all(str(address).startswith("data:image/webp;base64,") for address in addresses)
    assert not any("style" in attrs for _, attrs in tags.elements)
    (policy,) = [a["content"] for t, a in tags.elements if a.get("http-equiv") == "Content-Security-Policy"]
    style = page.partition("<style>")[2].partition("</style>")[0]
    sha256 = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{sha256}'; base-uri 'none'; form-action 'none'"
    )


def test_a_clip_with_one_layer_and_no_audio_is_shown_as_it_is(tmp_path: Path) -> None:
    row, members = _kept(0)
    row["members"] = [m for m in row["members"] if ".frame." in m["name"] and ".frame.3." not in m["name"]]
    row |= {"synthetic_layers": None, "has_audio": False}
    tags = _Tags(_page(tmp_path, [row], members))
    assert [a["alt"] for t, a in tags.elements if t == "img"] == [
        f"colour at {k + 0.5:.2f} s" for k in (0, 1, 2, 4, 5, 6, 7)
    ]
    assert "path" not in {tag for tag, _ in tags.elements}


def test_more_clips_than_asked_for_are_chosen_evenly_and_the_page_says_so(tmp_path: Path) -> None:
    made = [_kept(number) for number in range(6)]
    members = {name: data for _, of_one in made for name, data in of_one.items()}
    away = [_dropped(number, "rejected", "too_long", "too_long") for number in range(9)]
    page = _page(tmp_path, [*(row for row, _ in made), *away], members, max_clips=2, max_dropped=3)
    assert re.findall(r'<article class="card" id="(\w+)"', page) == ["clip000", "clip003"]
    assert "2 of 6 kept clips are shown, sampled evenly" in page
    assert "3 of 9 clips are shown, sampled evenly" in page
    assert re.findall(r"<td>(away\d+)</td>", page) == ["away000", "away003", "away006"]


def test_arrow_pandas_and_dicts_give_the_same_page(tmp_path: Path) -> None:
    row, members = _kept(0)
    table = pa.Table.from_pylist([row, *AWAY], schema=vidal.clip.schema())
    in_pandas: pd.DataFrame = table.to_pandas()
    expected = _page(tmp_path, [row, *AWAY], members)
    for rows in (iter([row, *AWAY]), table, in_pandas):
        assert _page(tmp_path, rows, members) == expected, type(rows)


def test_near_is_bright_and_far_is_dark() -> None:
    depth = DEPTH.decode({"depth.0.png": _png(np.repeat([[500, 9000]], 2, axis=0))})
    shown = np.asarray(Image.fromarray(DEPTH.show(depth, {"depth_scale": "metric"}).images[0]).convert("L"))
    assert shown[:, 0].mean() > 180 > 60 > shown[:, -1].mean()


def test_rejected_clips_are_shown_by_stage_and_reason_with_what_decided(tmp_path: Path) -> None:
    small = encoded(frames(1)[0])
    dark = [
        _dropped(
            n, "rejected", "too_dark", "dark", title=EVIL, decided_value=0.01 * n, decided_limit=0.2, thumbnail=small
        )
        for n in range(20)
    ]
    member = MemberRecord(layer="video", name="away030.frame.0.jpg", offset=0, size=1, sha256="0")
    lately = _dropped(30, "rejected", "blurred", "blur", EVIL, members=[member])
    rows = [*dark, lately, *AWAY]
    page = _page(tmp_path, rows, {"away030.frame.0.jpg": small}, stage_order=["blurred", "too_dark"], max_rejected=5)
    strip = page.partition("<h2>Rejected clips</h2>")[2].partition("<h2>")[0]
    tags = _Tags(strip)
    assert [tag for tag, _ in tags.elements].count("img") == 6
    shown = ["blurred blur 1 of 1", "too_dark dark 5 of 20", "0.04, limit 0.2", EVIL, "away030"]
    assert [text for text in shown if text not in tags.text] == [] and "too_long" not in tags.text
    assert {tag for tag, _ in tags.elements} == {"h3", "span", "div", "figure", "img", "figcaption", "bdi", "br"}
    assert "Rejected clips" not in _page(tmp_path, AWAY, {})
