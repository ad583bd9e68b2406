"""Zero-shot classification: prompts, classes, and figures of one who knows and of one who has collapsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidal
from tests.learned import CLIPS, SCENES, TRANSFORMS, Blank, Knowing, small_set
from vidal import modality as modalities
from vidal.errors import SourceError
from vidal.reader.samples import Samples
from vidal.train.evaluate.clips import embed
from vidal.train.evaluate.zero_shot import (
    class_embeddings,
    labels_of,
    read_class_names,
    read_templates,
    zero_shot,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return vidal.open(small_set(tmp_path_factory.mktemp("material") / "set"))


def test_who_knows_is_right_and_who_has_collapsed_is_not(samples: Samples) -> None:
    labels, classes = labels_of(samples, range(len(samples)), "caption", None)
    encoders: list[Any] = [Knowing(samples, TRANSFORMS), Blank(samples, {})]
    sides = embed(encoders, samples, range(len(samples)), TRANSFORMS)
    knowing, blank = (
        zero_shot({m: (side.numbers, side.rows[k]) for m, side in sides.items()}, one.encode_texts, labels, classes)
        for k, one in enumerate(encoders)
    )
    assert set(knowing) == set(blank) == {"depth", "audio"}
    for modality, row in knowing.items():
        assert (row["top1"], row["top5"], row["mean_per_class"]) == (1.0, 1.0, 1.0)
        assert (row["n"], row["classes"], row["chance_top1"]) == (CLIPS, SCENES, 1 / SCENES)
        assert blank[modality]["top1"] == 0.0


@pytest.mark.parametrize(
    ("modality", "said"),
    [("video", "a video of a dog."), ("depth", "a depth photo of a dog."), ("infrared", "a photo of a dog."),
     ("audio", "a sound of dog.")],
)  # fmt: skip
def test_each_modality_has_prompts_of_its_own(modality: str, said: str) -> None:
    filled = [template.replace("{c}", "dog") for template in modalities.get(modality).prompts]
    assert said in filled and len(set(filled)) == len(filled)
    assert not any("{" in prompt for prompt in filled)


def test_a_class_is_the_normalised_mean_of_its_prompts(samples: Samples) -> None:
    vectors = class_embeddings(Knowing(samples, {}).encode_texts, ["a calm harbour at dawn"], ["{c}", "a view of {c}."])
    assert vectors.shape == (1, 128) and np.linalg.norm(vectors) == pytest.approx(1)
    assert vectors[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_templates, "a photo\n", "'a photo' lacks the placeholder {c}"),
        (read_templates, "\n", "has no templates"),
        (read_templates, None, "cannot be read as a list"),
        (read_class_names, "one\n\n", "has 1 classes"),
        (read_class_names, None, "cannot be read as a list"),
    ],
)
def test_a_file_of_no_templates_or_classes_is_one_line(
    tmp_path: Path, read: Callable[[Path], object], text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(SourceError) as caught:
        read(tmp_path / "list.txt")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_templates_are_read_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\ufeffa photo of {c}\n\n  the {c} \n", encoding="utf-8")
    assert read_templates(tmp_path / "t.txt") == ["a photo of {c}", "the {c}"]


@pytest.mark.parametrize("column", ["licence", "captoin"])
def test_a_column_without_classes_is_rejected(samples: Samples, column: str) -> None:
    with pytest.raises(SourceError, match=f"column `{column}`"):
        labels_of(samples, range(len(samples)), column, None)


def test_classes_of_a_file_have_names_of_their_own_and_may_have_no_clip(samples: Samples, tmp_path: Path) -> None:
    captions = sorted(set(samples.column("caption").to_pylist()))
    (tmp_path / "classes.txt").write_text("".join(f"{c}\tthe {c}\n" for c in captions) + "a thing that is nowhere\n")
    names = read_class_names(tmp_path / "classes.txt")
    assert names == {c: f"the {c}" for c in captions} | {"a thing that is nowhere": "a thing that is nowhere"}
    labels, classes = labels_of(samples, range(CLIPS), "caption", names)
    assert classes == names and [labels[n] for n in range(CLIPS)] == samples.column("caption").to_pylist()
    with pytest.raises(SourceError, match=f"label '{captions[1]}' of column `caption` is not in the list of classes"):
        labels_of(samples, range(CLIPS), "caption", {captions[0]: "a", **dict.fromkeys(captions[2:], "b")})
