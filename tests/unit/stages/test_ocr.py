"""Burnt-in text of 256-pixel frames is read once, in order, and nothing is read where nothing is written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rapidocr.ch_ppocr_det.utils import DetPreProcess

from tests.conftest import ROOT
from tests.unit.media.numbered import ffmpeg
from vidal.clip import Clip
from vidal.errors import ModelError
from vidal.models.ocr import DETECTOR_VALUES, TextLine
from vidal.stages.text.ocr import Ocr, is_same_image, mixes_alphabets
from vidal.work import Member


@pytest.fixture(scope="module")
def stage() -> Ocr:
    stage = Ocr()
    stage.setup()
    return stage


def clip_of(frames: list[Image.Image]) -> Clip:
    clip = Clip(clip_id="a")
    for number, frame in enumerate(frames):
        data = io.BytesIO()
        frame.convert("RGB").save(data, "JPEG", quality=90)
        clip.work.put(Member(layer="video", suffix=f"frame.{number}.jpg", data=data.getvalue(), time_s=float(number)))
    return clip


def frame(*lines: str, height: int = 256, width: int = 456, size: int = 22, seed: int = 0) -> Image.Image:
    """White letters with a black edge over soft colours, drawn at twice the size as a platform would."""
    numbers = np.random.default_rng(seed).integers(70, 170, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(numbers).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(2 * size)
    for row, line in enumerate(lines):
        y = height + (row - len(lines) / 2) * 3 * size + size
        draw.text((width, y), line, font=font, fill="white", stroke_width=3, stroke_fill="black", anchor="mm")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def error_rate(truth: str, read: str) -> float:
    """Characters to change, as a share of the truth's."""
    row = list(range(len(read) + 1))
    for i, a in enumerate(truth, 1):
        before, row[0] = row[:], i
        for j, b in enumerate(read, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
    return row[-1] / len(truth)


RENDERED = [
    (["How to tie a bowline"], 22, 256, 456),
    (["Day 12 in Lisbon", "wait for the end"], 18, 256, 456),
    (["FIRST LINE", "SECOND LINE", "THIRD LINE"], 22, 456, 256),
    (["2 cups of flour"], 14, 456, 256),
    (["the light at the end of it"], 13, 256, 456),
]


def test_rendered_text_is_read(stage: Ocr) -> None:
    truth = read = ""
    for lines, size, height, width in RENDERED:
        clip = clip_of([frame(*lines, size=size, height=height, width=width)])
        stage.process(clip)
        assert clip.ocr_text is not None
        # The recogniser loses spaces in small print, but no letter.
        assert "".join(clip.ocr_text.split()) == "".join("".join(lines).split())
        assert clip.ocr_model and "PP-OCRv6_det" in clip.ocr_model
        assert 0.01 < (clip.ocr_area_share or 0) < 0.3
        truth, read = truth + "\n".join(lines), read + clip.ocr_text
    assert error_rate(truth, read) < 0.05


def sample_rows() -> list[dict[str, str]]:
    with (ROOT / "manifests/sample.csv").open(encoding="utf-8", newline="") as rows:
        return [row for row in csv.DictReader(rows) if row["expected"] == "kept"]


def sample_clip(samples: Path, name: str, count: int = 3) -> Clip:
    """``count`` frames of a sample, short side 256, as the media stage stores them."""
    with av.open(str(next(samples.glob(f"{name}.*")))) as container:
        images = [image.to_image().rotate(image.rotation, expand=True) for image in container.decode(video=0)]
    chosen = [images[round((k + 0.5) * len(images) / count)] for k in range(count)]
    scale = 256 / min(chosen[0].size)
    size = (round(chosen[0].width * scale), round(chosen[0].height * scale))
    return clip_of([image.resize(size, Image.Resampling.BICUBIC) for image in chosen])


def test_burnt_in_text_of_the_samples_is_read(stage: Ocr, samples: Path) -> None:
    rows = [row for row in sample_rows() if row["burnt_in_text"]]
    assert len(rows) >= 3
    for row in rows[1:5]:
        clip = sample_clip(samples, row["clip_id"])
        stage.process(clip)
        assert error_rate(row["burnt_in_text"], (clip.ocr_text or "").replace("\n", " ")) < 0.05, row["clip_id"]


def test_nothing_is_read_where_nothing_is_written(stage: Ocr, samples: Path) -> None:
    names = ["bunny-forest", "sintel-ruins", "band-session", "city-night", "coffee-still"]
    for name in names:
        clip = sample_clip(samples, name, count=2)
        stage.process(clip)
        assert (clip.ocr_text, clip.ocr_lines, clip.ocr_area_share) == (None, [], 0.0), name


def test_frames_that_stand_still_are_read_once_and_all_have_the_lines(stage: Ocr, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    still, other = frame("wait for it"), frame("there it is")
    reads = 0
    real = type(stage._reader).read

    def counted(reader, image):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return real(reader, image)

    monkeypatch.setattr(type(stage._reader), "read", counted)
    clip = clip_of([still, still, still, other, other])
    stage.process(clip)
    assert reads == 2
    assert [line.frame for line in clip.ocr_lines] == [0, 1, 2, 3, 4]
    assert clip.ocr_text == "wait for it\nthere it is"


def test_a_page_of_print_costs_no_more_than_the_limit_of_lines() -> None:
    stage = Ocr(max_lines_per_frame=5)
    stage.setup()
    clip = clip_of([frame(*[f"line number {n} of the page" for n in range(12)], size=7)])
    stage.process(clip)
    assert len(clip.ocr_lines) <= 5


def test_lines_read_with_doubt_too_high_ones_and_single_characters_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scripted:
        def read(self, image: np.ndarray) -> list[TextLine]:
            said = [("sure", 0.8), ("unsure", 0.79), ("x", 0.99), ("竜!", 0.99), ("ok", 0.99)]
            lines = [TextLine(text=text, score=score, box=(0, 0, 1, 0.1)) for text, score in said]
            # Two poles in a snowstorm.
            return [*lines, TextLine(text="10", score=0.92, box=(0, 0.3, 1, 0.87))]

    stage = Ocr()
    monkeypatch.setattr(stage, "_reader", Scripted(), raising=False)
    clip = clip_of([frame()])
    stage.process(clip)
    assert clip.ocr_text == "sure\nok"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("german", "Größe und Maße prüfen"),
        ("japanese", "最後まで見てください"),
        # "HAKPALA NILA B MICTI", "A ρχÍσουµε πáλι" and "Bt đu li tr đu", of which each is sure enough
        ("ukrainian", None),
        ("greek", None),
        ("vietnamese", None),
        ("russian", None),
    ],
)
def test_lines_in_letters_that_the_recogniser_lacks_are_dropped(stage: Ocr, name: str, text: str | None) -> None:
    clip = clip_of([drawn(name)])
    stage.process(clip)
    assert clip.ocr_text == text


def drawn(name: str) -> Image.Image:
    image = Image.new("RGB", (456, 256), (120, 110, 100))
    # Drawn in Noto Sans, as captions are: no package of the tests brings a font with these letters.
    image.paste(Image.open(Path(__file__).with_name("lines") / f"{name}.png"), (78, 96))
    return image


@pytest.mark.parametrize(
    ("text", "is_mixed"),
    [
        ("ΔEV TO", True),
        ("Ας αρχίσουμε", False),
        ("Wait", False),
        ("angle α of a", False),
        ("最後 OK", False),
        ("5 µm", False),
    ],
)
def test_a_word_of_two_alphabets_is_none_of_either(text: str, is_mixed: bool) -> None:
    assert mixes_alphabets(text) == is_mixed


def recogniser(path: Path, letter: str, probability: float) -> str:
    """A recogniser that reads whatever it sees as one letter, with this probability."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    classes = np.array([1 - probability, probability, 0], np.float32).reshape(1, 1, 3)
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "classes"], ["y"]),
    ]
    constants = {
        "axes": np.array([1, 2, 3]), "shape": np.array([-1, 1, 1]), "zero": np.float32(0), "classes": classes,
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 48, "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"character": letter})
    checker.check_model(model)
    save(model, path)
    return str(path)


@pytest.mark.parametrize(("probability", "text"), [(0.9999, "ж"), (0.5, "How to tie a bowline")])
def test_the_most_confident_recogniser_reads_a_line(tmp_path: Path, probability: float, text: str) -> None:
    other = recogniser(tmp_path / "other.onnx", "ж", probability)
    stage = Ocr(other_recognisers=[other], min_letters=1)
    stage.setup()
    clip = clip_of([frame("How to tie a bowline")])
    stage.process(clip)
    assert clip.ocr_text == text
    assert clip.ocr_model and "other.onnx sha256:" in clip.ocr_model


@pytest.mark.parametrize("name", ["russian", "ukrainian", "vietnamese"])
def test_a_line_is_read_by_the_recogniser_that_has_its_letters_though_another_is_surer(
    name: str, tmp_path: Path
) -> None:
    """The default reads them as look-alikes or as nothing, with scores of .99, .94 and .99."""
    stage = Ocr(other_recognisers=[recogniser(tmp_path / "other.onnx", "ж", 0.9)], min_letters=1)
    stage.setup()
    clip = clip_of([drawn(name)])
    stage.process(clip)
    assert clip.ocr_text == "ж"


def test_text_between_the_stored_frames_is_read_if_more_are_asked_for(stage: Ocr) -> None:
    shown = [frame("only for a moment") if 8 <= k < 12 else frame() for k in range(20)]
    command = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "456x256", "-r", "10", "-i", "-", "-pix_fmt", "yuv420p"]
    data = b"".join(image.tobytes() for image in shown)
    mp4 = ffmpeg(*command, "-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-", data=data)
    for frames_per_s, text, numbers in ((0, None, set()), (4, "only for a moment", {1})):
        clip = clip_of([shown[0], shown[12], shown[19]])
        clip.work.put(Member(layer="video", suffix="mp4", data=mp4))
        stage.model_copy(update={"frames_per_s": frames_per_s}).process(clip)
        assert (clip.ocr_text, {line.frame for line in clip.ocr_lines}) == (text, numbers)


def test_a_line_that_scrolls_is_read_as_one(stage: Ocr) -> None:
    text = "The mayor opens the new bridge over the river on Sunday morning at ten"
    frames = []
    for left in range(456, -1000, -180):
        image = frame()
        font = ImageFont.load_default(28)
        ImageDraw.Draw(image).text((left, 200), text, font=font, fill="white", stroke_width=2, stroke_fill="black")
        frames.append(image)
    clip = clip_of(frames)
    stage.process(clip)
    assert clip.ocr_text and error_rate(text, clip.ocr_text) < 0.05, clip.ocr_text


def test_a_clip_without_frames_was_not_read(stage: Ocr) -> None:
    clip = Clip(clip_id="a")
    stage.process(clip)
    assert (clip.ocr_text, clip.ocr_area_share, clip.ocr_model) == (None, None, None)


def test_a_new_word_makes_another_image_and_noise_does_not() -> None:
    plain = np.asarray(frame(), dtype=np.uint8)
    noisy = np.clip(plain + np.random.default_rng(0).normal(0, 3, plain.shape), 0, 255).astype(np.uint8)
    assert is_same_image(plain, noisy, 6.0)
    assert not is_same_image(plain, np.asarray(frame("hi", size=10)), 6.0)
    assert not is_same_image(plain, plain[:-8], 6.0)


@pytest.mark.parametrize("setting", ["detector", "recogniser"])
@pytest.mark.parametrize("reference", ["some/hub-id", "bad.onnx"])
def test_a_model_that_cannot_be_loaded_is_one_clear_error(tmp_path: Path, setting: str, reference: str) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    named = str(tmp_path / reference) if reference.endswith("onnx") else reference
    with pytest.raises(ModelError, match=r"ocr: .*name") as caught:
        Ocr(**{setting: named}).setup()
    assert named in str(caught.value)


def test_the_detector_is_shown_what_rapidocr_would_show_it() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1).repeat(3, axis=2)
    theirs = DetPreProcess(mean=[0.5] * 3, std=[0.5] * 3).normalize(levels).astype(np.float32)
    assert np.array_equal(theirs[:, 0, 0], DETECTOR_VALUES)
