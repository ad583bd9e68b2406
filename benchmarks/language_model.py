"""What the language model of `enhance_caption` costs: CPU of its conversion, and of a reply by size of weights.

    python benchmarks/language_model.py data/sample

The dataset's clips are asked for anew. ``in_32_bits`` holds all weights in float32; ``differing`` counts the replies
that are not the same text as theirs. Target: none, and half the CPU.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

from figures import options, show, spread

import vidal
from vidal.caption.guard import vocabulary
from vidal.caption.prompt import build_prompt
from vidal.caption.views import View, views_of
from vidal.models.llm import TransformersLlm
from vidal.record import from_row
from vidal.stages.text.clean_title import read_stop_words
from vidal.stages.text.enhance_caption import EnhanceCaption

STAGE = EnhanceCaption()


def load() -> tuple[TransformersLlm, float]:
    """The default model, and the CPU seconds of loading it."""
    started = time.process_time()
    model = TransformersLlm(STAGE.model, device="cpu", max_new_tokens=STAGE.max_new_tokens, max_seconds=600.0)
    return model, time.process_time() - started


def replies(model: TransformersLlm, clips: list[list[View]]) -> Iterator[tuple[str, float]]:
    """The reply for each clip, and its CPU seconds."""
    for views in clips:
        started = time.process_time()
        (reply,) = model.complete([build_prompt(views)], [vocabulary(views)])
        yield reply.text, time.process_time() - started


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    stop_words = frozenset().union(*read_stop_words(STAGE.stop_words))
    rows = [dict(sample["row"]) for sample in vidal.open(arguments.dataset)][: 2 if arguments.quick else None]
    clips = [views for row in rows if (views := views_of(from_row(row), STAGE.max_view_chars, stop_words)[0])]
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, VIDAL_CACHE=cache):
        _, converted_s = load()
        with mock.patch("vidal.models.half_linear.halve_exact_weights"):
            plain, plain_s = load()
        halved, halved_s = load()
    texts, times_s = zip(*replies(halved, clips), strict=True)
    as_before, before_s = zip(*replies(plain, clips), strict=True)
    show(
        {
            "clips": len(clips),
            "conversion_and_imports_cpu_s": converted_s - halved_s,
            "loading_cpu_s": halved_s,
            "loading_cpu_s_in_32_bits": plain_s,
            "reply_cpu_s": spread(times_s),
            "reply_cpu_s_in_32_bits": spread(before_s),
            "differing": sum(one != other for one, other in zip(texts, as_before, strict=True)),
        },
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
