"""That the trainer learns: the rendered set, small towers, held-out retrieval; and the plot of it.

    python benchmarks/learning.py --work build/learning      the set, the run (five minutes of CPU), the figures
    python benchmarks/learning.py --work build/learning --plot docs/learning.svg

One run, on half of the scenes. Prints R@1 of every direction, trained and emergent, with the untrained towers' beside,
among held-out clips of the scenes it was trained on and among all clips of the other half, whose captions it never
read. Every clip of a query's scene is correct.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from figures import options, show

from vidal.commands import app

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"video": "#1b6ca8", "depth": "#2a9d55", "infrared": "#c0392b", "audio": "#8e5bb5"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 360, 50, 30, 60
_COLUMNS = {"known scenes": 624, "held-out scenes": 734}
"""The x of each part in the legend."""
_SMOOTH = 0.9


def vidal(*arguments: str | Path) -> str:
    """What a command prints, run in this process: a process for each imported torch anew."""
    said = io.StringIO()
    with chdir(ROOT), redirect_stdout(said):
        app([*map(str, arguments)], standalone_mode=False)
    return said.getvalue()


PARTS = {
    "known scenes": ("--where", "not scene_is_held_out", "--split", "held_out"),
    "held-out scenes": ("--where", "scene_is_held_out", "--split", "all"),
}
QUICK_SET = ("--clips", "32", "--scenes", "8", "--size", "16", "--workers", "1")
QUICK_TRAINING = ("--set", "batch_size=8", "--set", "epochs=1", "--set", "data.workers=0")


def learn(work: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Whatever of the three steps is not done yet; gives, for each of `PARTS`, the row of each direction."""
    if not (work / "set" / "dataset.json").exists():
        tool = [sys.executable, "-m", "tools.rendering.learning_set", "--out", work / "set"]
        subprocess.run([*tool, *(QUICK_SET if quick else ())], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    vidal("train", "pipelines/train/learning.yaml", "--data", work / "set", "--out", work / "run", "--resume",
        "--where", "not scene_is_held_out", "--set", "threads=1", *(QUICK_TRAINING if quick else ()))  # fmt: skip
    told = {
        part: json.loads(vidal("eval", work / "run", "--data", work / "set", *which, "--json"))
        for part, which in PARTS.items()
    }
    (work / "figures.json").write_text(json.dumps(told))
    return {part: {name: row for name, row in rows.items() if "_to_" in name} for part, rows in told.items()}


def losses(run_folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By modality: step and smoothed loss."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in (run_folder / "log.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            curve = curves.setdefault(event["pair"].removeprefix("text-"), [])
            before = curve[-1][1] if curve else event["loss"]
            curve.append((event["step"], _SMOOTH * before + (1 - _SMOOTH) * event["loss"]))
    return curves


def plot(curves: dict[str, list[tuple[int, float]]], figures: dict[str, dict[str, Any]]) -> str:
    """Loss over steps, and R@1 on each part in the legend."""
    last = max(step for curve in curves.values() for step, _ in curve)
    top = max(loss for curve in curves.values() for _, loss in curve)
    right = 480

    def at(step: float, loss: float) -> str:
        x = LEFT + (right - LEFT) * step / last
        return f"{x:.1f},{TOP + (HEIGHT - TOP - BOTTOM) * (1 - loss / top):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{at(0, top)} L{at(0, 0)} L{at(last, 0)}" fill="none" stroke="#333"/>',
    ]
    for tick in range(int(top) + 1):
        x, y = at(0, tick).split(",")
        parts.append(f'<text x="{float(x) - 8}" y="{float(y) + 4}" text-anchor="end">{tick}</text>')
    for tick in range(0, last + 1, max(200, last // 5 // 100 * 100)):
        x, y = at(tick, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 14}" text-anchor="middle">step</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 12}">contrastive loss with the text, smoothed</text>')
    parts.append(f'<text x="{right + 20}" y="{TOP - 12}">R@1 (untrained)</text>')
    for part, x in _COLUMNS.items():
        clips = figures[part]["audio_to_depth"]["gallery"]
        parts.append(f'<text x="{x}" y="{TOP - 12}">{part}</text>')
        parts.append(f'<text x="{x}" y="{TOP + 4}">of {clips} clips</text>')
    rows = [(name, COLOURS[name], f"text_to_{name}") for name in curves]
    for number, (name, colour, direction) in enumerate(rows):
        path = " ".join(at(step, loss) for step, loss in curves[name])
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_line(right + 20, TOP + 34 + 20 * number, colour, f"text to {name}", direction, figures))
    emergent = [("audio_to_depth", "audio to depth"), ("depth_to_audio", "depth to audio")]
    parts.append(f'<text x="{right + 20}" y="{TOP + 142}">never trained together:</text>')
    for number, (direction, said) in enumerate(emergent):
        parts.append(_line(right + 20, TOP + 162 + 20 * number, "#555", said, direction, figures))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(x: float, y: float, colour: str, said: str, direction: str, figures: dict[str, dict[str, Any]]) -> str:
    cells = [f'<text x="{x}" y="{y}" fill="{colour}">{escape(said)}</text>']
    for part, column in _COLUMNS.items():
        row = figures[part][direction]
        cells.append(
            f'<text x="{column}" y="{y}" fill="{colour}">{row["R@1"]:.0%} ({row["baseline"]["R@1"]:.0%})</text>'
        )
    return "\n".join(cells)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--work", type=Path, help="folder of the set and the run, resumed if they are there")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch if given.quick else ROOT / "build" / "learning")
        parts = learn(work.resolve(), quick=given.quick)
        svg = plot(losses(work / "run"), parts)
    figures = {
        f"{name}, {part}": {
            "kind": "trained" if row["trained"] else "emergent", "R@1": row["R@1"], "of": row["gallery"],
            "untrained": row["baseline"]["R@1"],
        }
        for part, rows in parts.items() for name, row in sorted(rows.items(), key=lambda item: not item[1]["trained"])
    }  # fmt: skip
    show(figures, as_json=given.json)
    if given.plot:
        given.plot.write_text(svg)


if __name__ == "__main__":
    main()
