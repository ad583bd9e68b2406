"""What is drawn over a video and has no temperature: captions, as platforms and editors burn them in."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Bytes = npt.NDArray[np.uint8]
WORDS = ("wait", "for it", "POV:", "nobody", "told you", "DAY 1", "best of", "no way", "LOL", "100%", "@user", "#fyp")


def with_caption(rng: np.random.Generator, rgb: Bytes) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The frame (h, w, 3) with one to three lines of text on it, and where the glyphs are (h, w)."""
    h, w = rgb.shape[:2]
    lines = ["".join(f"{WORDS[rng.integers(len(WORDS))]} " for _ in range(rng.integers(1, 5))).strip() for _ in "abc"]
    text = "\n".join(lines[: rng.integers(1, 4)])
    font = ImageFont.load_default(float(rng.uniform(0.05, 0.16) * min(h, w)))
    edge = int(rng.choice([0, 1, 2]))
    fill = [(255, 255, 255), (255, 235, 60), (0, 0, 0), tuple(rng.integers(0, 256, 3).tolist())][
        rng.choice(4, p=[0.55, 0.15, 0.1, 0.2])
    ]
    outline = (255, 255, 255) if sum(fill) < 200 else (0, 0, 0)
    canvas = Image.fromarray(rgb)
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, stroke_width=edge)
    x = rng.uniform(0, max(w - (right - left), 1)) - left
    y = rng.uniform(0, max(h - (bottom - top), 1)) - top
    if rng.random() < 0.25:
        draw.rectangle((x + left - 3, y + top - 3, x + right + 3, y + bottom + 3), fill=outline)
    draw.multiline_text((x, y), text, fill=fill, font=font, stroke_width=edge, stroke_fill=outline, align="center")
    drawn = np.asarray(canvas, np.uint8)
    return drawn, (drawn != rgb).any(2)
