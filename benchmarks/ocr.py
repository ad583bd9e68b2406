"""What the OCR reads of lines in 16 languages: errors, wrong lines kept, right ones dropped, and the time per frame.

    apt install fonts-noto-core fonts-noto-cjk
    python benchmarks/ocr.py [--languages en,ru] [--detector FILE.onnx] [--recogniser FILE.onnx]

The lines of ``ocr_lines.tsv`` are drawn as captions on frames of 256 pixels in four ways: large, bold, as small as is
legible, and noisy. A kept line is right if its letters are those that were drawn. ``untested`` is what would be kept
without the test of lines against the recogniser's alphabet. Target: with the default models, no line in Cyrillic,
Arabic, Devanagari, Hangul or Thai script is kept, and no right line is dropped.
"""

from __future__ import annotations

import csv
import io
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from figures import log, options, show
from PIL import Image, ImageDraw, ImageFont

from vidal.models.ocr import TextLine
from vidal.stages.text.ocr import Ocr

LINES = Path(__file__).with_name("ocr_lines.tsv")
NOTO = Path("/usr/share/fonts/truetype/noto")
CJK = Path("/usr/share/fonts/opentype/noto")
SCRIPTS = {"ar": "Arabic", "hi": "Devanagari", "th": "Thai"}
CJK_FACES = {"ja": 0, "ko": 1, "zh": 2}
# Size in pixels of the frame, weight, and standard deviation of the noise in grey levels.
WAYS = [(20, "Regular", 0), (14, "Bold", 0), (11, "Regular", 0), (14, "Regular", 15)]
WIDTH, HEIGHT = 456, 256


def font(language: str, size: int, weight: str) -> Any:
    if language in CJK_FACES:
        return ImageFont.truetype(str(CJK / f"NotoSansCJK-{weight}.ttc"), size, index=CJK_FACES[language])
    return ImageFont.truetype(str(NOTO / f"NotoSans{SCRIPTS.get(language, '')}-{weight}.ttf"), size)


def frame(text: str, face: Any, noise: float, seed: int) -> np.ndarray:
    """White letters with a black edge over soft colours, drawn at twice the size, as a JPEG leaves them."""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(70, 170, (6, 8, 3), dtype=np.uint8))
    image = colours.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).text(
        (WIDTH, HEIGHT), text, font=face, fill="white", stroke_width=3, stroke_fill="black", anchor="mm"
    )
    small = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), dtype=np.float32)
    noisy = np.clip(small + noise * rng.standard_normal(small.shape), 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noisy).save(data, "JPEG", quality=85)
    return np.asarray(Image.open(data))


def letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[:], i
        for j, other in enumerate(b, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (one != other))
    return row[-1]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--languages", help="some of them, with commas; all by default")
    for model in ("detector", "recogniser"):
        parser.add_argument(f"--{model}", default=getattr(Ocr(), model), help="ONNX file")
    asked = parser.parse_args()
    stage = Ocr(detector=asked.detector, recogniser=asked.recogniser)
    stage.setup()
    lines = list(csv.reader(LINES.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    ways = WAYS[:1] if asked.quick else WAYS
    if asked.quick:
        lines = [line for line in lines if line[0] == "en"][:3]
    elif asked.languages:
        lines = [line for line in lines if line[0] in asked.languages.split(",")]
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    frames, cpu_s = 0, 0.0
    for language, text in lines:
        of = counts[language]
        for size, weight, noise in ways:
            face = ImageFont.load_default(2 * size) if asked.quick else font(language, 2 * size, weight)
            image = frame(text, face, noise, frames)
            started = time.process_time()
            read: list[TextLine] = stage._reader.read(image)
            cpu_s += time.process_time() - started
            frames += 1
            sure = [line for line in read if line.score >= stage.min_score and len(letters(line.text)) > 1]
            kept = [line for line in sure if stage.keeps(line)]
            right = {id(line) for line in sure if letters(line.text) and letters(line.text) in letters(text)}
            for line in sure:
                if (id(line) in right) != (line in kept):
                    word = "kept" if line in kept else "dropped"
                    log(f"{word} {language} {size} px: {text!r} read as {line.text!r}, unread {line.unread:.3f}")
            of["letters"] += len(letters(text))
            of["errors"] += edits(letters(text), letters(" ".join(line.text for line in kept)))
            of["drawn"] += 1
            of["kept_right"] += sum(id(line) in right for line in kept)
            of["kept_wrong"] += sum(id(line) not in right for line in kept)
            of["untested_wrong"] += sum(id(line) not in right for line in sure)
            of["dropped_right"] += sum(id(line) in right and line not in kept for line in sure)
    figures: dict[str, Any] = {"cpu_s_per_frame": cpu_s / frames}
    for language, of in counts.items():
        figures[language] = {"error_rate": of["errors"] / of["letters"]}
        figures[language] |= {name: value for name, value in of.items() if name not in ("errors", "letters")}
    show(figures, as_json=asked.json)


if __name__ == "__main__":
    main()
