"""Score an infrared checkpoint against the written rule on held-out renders, and look at what it makes of clips.

    python -m tools.rendering.evaluate_infrared --json

Renders: root mean square error as a share of that of the best constant grey, and correlation with the rule. Clips have
no true infrared; what is measured there is whether there is contrast, whether it is more than inverted brightness,
whether it holds still, and whether a caption that is drawn over a frame shows. All of it is SYNTHETIC.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import torch

from tools.rendering.frames import REPORTING_SEEDS, held_out_frames, held_out_library
from tools.rendering.overlays import with_caption
from tools.rendering.scenes import Frame
from tools.rendering.textures import noise_library
from tools.rendering.thermal import infrared
from vidal.models.infrared import Translator, load_infrared
from vidal.stages.modalities.frame_series import flicker, steadied

CHECKPOINT = Path(str(files("vidal"))) / "models" / "checkpoints" / "infrared-small"
FRAMES = 8

Bytes = npt.NDArray[np.uint8]


def score_renders(model: Translator, frames: list[Frame], *, first: int) -> dict[str, float]:
    """Root mean square error over that of the best constant, and correlation, over all pixels and within frames.

    `first` is the seed of the first frame, as the rule draws each object's departure from it.
    """
    truths = [infrared(frame, first + number).astype(np.float32) for number, frame in enumerate(frames)]
    guesses = [model.translate([frame.rgb])[0].astype(np.float32) for frame in frames]
    truth, guess = (np.concatenate([image.ravel() for image in images]) for images in (truths, guesses))
    rms = float(np.sqrt(np.square(guess - truth).mean()))
    within = [
        np.corrcoef(g.ravel(), t.ravel())[0, 1]
        for g, t in zip(guesses, truths, strict=True)
        if min(np.ptp(g), np.ptp(t)) > 0
    ]
    return {
        "rms": rms,
        "constant_rms": float(truth.std()),
        "rms_ratio": rms / float(truth.std()),
        "correlation": float(np.corrcoef(guess, truth)[0, 1]),
        "correlation_within_frames": float(np.mean(within)),
        "frames": len(frames),
    }


def score_clips(model: Translator, clips: list[list[Bytes]]) -> dict[str, float]:
    """Contrast, likeness to brightness, flicker and captions on clips, each a list of frames (h, w, 3).

    caption_contrast is by how much a caption that is drawn over a frame sets its glyphs off from what is around them.
    """
    # As the stage does with the frames of a clip.
    images = [steadied(clip, model.translate(clip)) for clip in clips]
    brightness = [[np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8) for frame in clip] for clip in clips]
    spans = [np.subtract(*np.percentile(np.stack(clip), (99, 1))) for clip in images]
    alike = [_correlation(g, b) for g, b in zip(images, brightness, strict=True)]
    flickers = [
        (flicker(clip, grey, 255.0), flicker(clip, bright, 255.0))
        for clip, grey, bright in zip(clips, images, brightness, strict=True)
    ]
    known = np.array([pair for pair in flickers if None not in pair], np.float64)
    pooled = np.concatenate([np.stack(clip).ravel() for clip in images])
    low, high = np.percentile(pooled, (1, 99))
    return {
        "p1": float(low),
        "p99": float(high),
        "span": float(high - low),
        "span_median_of_clips": float(np.median(spans)),
        "span_least_of_clips": float(np.min(spans)),
        "brightness_correlation": _correlation(
            list(chain.from_iterable(images)), list(chain.from_iterable(brightness))
        ),
        "brightness_correlation_mean_of_clips": float(np.mean(np.abs(alike))),
        "flicker": float(known[:, 0].mean()),
        "flicker_of_colour": float(known[:, 1].mean()),
        "clips_that_flicker_more": int((known[:, 0] > known[:, 1]).sum()),
        **_captions(model, clips),
        "clips": len(clips),
    }


def _captions(model: Translator, clips: list[list[Bytes]]) -> dict[str, float]:
    rng = np.random.default_rng(REPORTING_SEEDS)
    shows, changed = [], []
    for clip in clips:
        frame = clip[len(clip) // 2]
        written, glyphs = with_caption(rng, frame)
        before, after = (image.astype(np.float32) for image in model.translate([frame, written]))
        # What surrounds the glyphs is the caption's background: text is legible where the two differ.
        around = cv2.dilate(glyphs.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~glyphs
        change = after - before
        shows.append(abs(change[glyphs].mean() - change[around].mean()))
        grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in (frame, written))
        colour = np.subtract(*grey)
        changed.append(abs(colour[glyphs].mean()))
    return {"caption_contrast": float(np.mean(shows)), "caption_contrast_of_colour": float(np.mean(changed))}


def _correlation(greys: list[Bytes], brightness: list[Bytes]) -> float:
    a, b = (np.concatenate([image.ravel() for image in images]).astype(np.float64) for images in (greys, brightness))
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def read_clips(folder: Path) -> Iterator[list[Bytes]]:
    """The frames of every clip in a folder that decodes."""
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(av.FFmpegError, IndexError):
            yield frames_of(path)


def frames_of(path: Path) -> list[Bytes]:
    """Eight evenly spaced frames of a video, their short side 256 px at most; raises `av.FFmpegError`."""
    with av.open(str(path), "r") as container:
        frames = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]
    return [_shrunk(frames[int((k + 0.5) * len(frames) / FRAMES)]) for k in range(FRAMES)]


def _shrunk(frame: Bytes) -> Bytes:
    h, w = frame.shape[:2]
    scale = min(256 / min(h, w), 1)
    return np.asarray(cv2.resize(frame, (round(w * scale), round(h * scale)), interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(CHECKPOINT), help="what the infrared stage's `model` takes")
    parser.add_argument("--textures", type=Path, help="where train_infrared kept its images; without it, noise only")
    parser.add_argument("--clips", type=Path, default=Path("samples/clips"))
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_infrared(args.model, device="cpu")
    library = held_out_library(args.textures) if args.textures else noise_library(REPORTING_SEEDS)
    frames = held_out_frames(library, first=REPORTING_SEEDS, count=args.frames, honest=True)
    scores = {
        "renders": score_renders(model, frames, first=REPORTING_SEEDS),
        "clips": score_clips(model, list(read_clips(args.clips))),
    }
    if args.json:
        print(json.dumps(scores, indent=2))
    else:
        for name, score in scores.items():
            print(name, *(f"{key} {value:.3f}" for key, value in score.items()))


if __name__ == "__main__":
    main()
