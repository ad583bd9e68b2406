"""Decoding: members to arrays as they were stored, and damage told, never guessed around."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tests.toys import encoded, image
from vidal import modality as modalities
from vidal.errors import ClipError
from vidal.modality.image import ImageModality
from vidal.modality.modality import Array
from vidal.modality.video import VideoTransform

PHOTO = image(1)
DEPTH = np.arange(144 * 256, dtype=np.uint16).reshape(256, 144)


def decode(layer: str, members: dict[str, bytes]) -> Array:
    return modalities.get(layer).decode(members)


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=array.dtype == object)
    return file.getvalue()


def audio(samples: np.ndarray, rate: int = 16_000, kind: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype="FLOAT" if kind == "WAV" else "PCM_16")
    return file.getvalue()


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.stack([wave] * channels, axis=1) if channels > 1 else wave


@pytest.mark.parametrize(
    ("suffix", "layer", "number"),
    [
        ("frame.3.jpg", "video", 3), ("depth.10.png", "depth", 10), ("infrared.0.jpg", "infrared", 0),
        ("frm7.jpg", "video", 7), ("dep0.npy", "depth", 0), ("tml5.jpg", "infrared", 5), ("jpg", "video", 0),
        ("depth.png", "depth", 0), ("mp4", "video", None), ("flac", "audio", None), ("x.wav", "audio", None),
        ("json", None, None), ("npy", None, None), ("frame.0.npy", None, None), ("frame.².jpg", None, None),
        ("frame.x.jpg", None, None), ("ofa3.txt", None, None), ("frame.3.txt", None, None), ("scene.3.jpg", None, None),
    ],
)  # fmt: skip
def test_a_suffix_says_the_layer_and_the_number_of_a_frame(suffix, layer, number):
    assert modalities.layer_of(suffix) == layer
    numbers = {m.frame_number(suffix) for m in modalities.all() if isinstance(m, ImageModality)}
    assert numbers - {None} == {number} - {None}


def test_frames_are_in_order_of_time():
    there = ["frame.10.jpg", "json", "frame.2.jpg", "mp4", "frame.0.jpg"]
    assert list(modalities.get("video").members(there).items()) == list(
        {0: "frame.0.jpg", 2: "frame.2.jpg", 10: "frame.10.jpg"}.items()
    )


def test_layers_decode_to_their_shapes_and_values():
    colour = [image(1), image(2)]
    video = decode("video", {"mp4": b"not looked at", **{f"frame.{k}.jpg": encoded(p) for k, p in enumerate(colour)}})
    assert video.shape == (2, 256, 144, 3) and video.dtype == np.uint8
    expected = np.asarray(Image.open(io.BytesIO(encoded(colour[1]))).convert("RGB"))
    assert np.array_equal(video[1], expected)
    depth = decode("depth", {"depth.1.png": png(DEPTH), "depth.0.png": png(DEPTH // 2)})
    assert depth.dtype == np.uint16 and np.array_equal(depth, np.stack([DEPTH // 2, DEPTH]))
    grey = Image.fromarray(PHOTO).convert("L")
    infrared = decode("infrared", {"infrared.0.jpg": encoded(np.asarray(grey))})
    assert infrared.shape == (1, 256, 144) and np.abs(infrared[0].astype(int) - np.asarray(grey)).mean() < 3
    assert decode("infrared", {"tml0.jpg": encoded(PHOTO)}).shape == (1, 256, 144)


def test_an_image_stands_as_it_is_stored():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PHOTO).save(file, "JPEG", exif=exif)
    assert decode("video", {"frame.0.jpg": file.getvalue()})[0].shape == PHOTO.shape


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize(
    ("layer", "suffix", "data"),
    [
        ("video", "frame.0.jpg", encoded(PHOTO)),
        ("infrared", "infrared.0.jpg", encoded(PHOTO)),
        ("depth", "depth.0.png", png(DEPTH)),
        ("depth", "dep0.npy", npy(DEPTH)),
        ("audio", "flac", audio(tone(1))),
        ("audio", "wav", audio(tone(1), kind="WAV")),
    ],
)
def test_a_member_that_ends_early_is_an_error(layer, suffix, data, share):
    with pytest.raises(ClipError, match="undecodable"):
        decode(layer, {suffix: data[: int(share * len(data))]})


@pytest.mark.parametrize(
    ("layer", "suffix", "data"), [("depth", "depth.0.png", png(DEPTH)), ("audio", "flac", audio(tone(1)))]
)
def test_a_changed_byte_is_seen_where_the_format_has_checksums(layer, suffix, data):
    for at in np.linspace(len(data) // 3, len(data) - 40, 20).astype(int):
        with pytest.raises(ClipError, match="undecodable"):
            decode(layer, {suffix: data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]})


@pytest.mark.parametrize(
    ("layer", "suffix", "data", "said"),
    [
        ("video", "frame.0.jpg", b"", "neither PNG nor JPEG"),
        ("video", "frame.0.jpg", b"<html>", "neither PNG nor JPEG"),
        ("video", "frame.0.jpg", b"\xff\xd8\xff\xc0", "neither PNG nor JPEG"),
        (
            "video",
            "frame.0.jpg",
            png(DEPTH)[:16] + b"\x00\x01\x00\x00" * 2 + png(DEPTH)[24:],
            "an image of 65536x65536",
        ),
        ("depth", "depth.0.png", png(PHOTO), "16-bit grey image"),
        ("depth", "depth.0.png", png(PHOTO[..., 0]), "16-bit grey image"),
        ("depth", "dep0.npy", npy(np.array([{"a": 1}], dtype=object)), "not depth"),
        (
            "depth",
            "dep0.npy",
            npy(DEPTH).replace(b"(256, 144)", b"(999999999, 99999999)"),
            "not depth|not a NumPy array|size that its header",
        ),
        ("depth", "dep0.npy", npy(np.full((4, 4), np.nan)), "not finite"),
        ("depth", "dep0.npy", npy(np.zeros((2, 4, 4), np.uint16)), "depth of shape"),
        ("depth", "dep0.npy", npy(np.zeros((4, 4), "datetime64[s]")), "not depth"),
        ("depth", "dep0.npy", b"PK\x03\x04zip", "not a NumPy array"),
        ("audio", "flac", b"fLaC", "cannot be decoded"),
        ("audio", "wav", audio(np.array([np.nan, 0.0]), kind="WAV"), "not finite"),
        ("audio", "wav", audio(tone(1, 1000), rate=1000, kind="WAV"), "at 1000 Hz"),
        ("audio", "mp4", b"", "no audio member among: mp4"),
        ("video", "mp4", b"", "no video image among: mp4"),
    ],
    # Not by their bytes: a WAV file holds the time at which it was made.
    ids=lambda value: value if isinstance(value, str) else "data",
)
def test_what_is_no_such_member_is_one_clear_line(layer, suffix, data, said):
    with pytest.raises(ClipError, match=said) as caught:
        decode(layer, {suffix: data})
    assert "\n" not in str(caught.value)


def test_images_of_a_clip_have_one_size():
    with pytest.raises(ClipError, match="different sizes"):
        decode("video", {"frame.0.jpg": encoded(PHOTO), "frame.1.jpg": encoded(PHOTO[:200])})


@pytest.mark.parametrize(
    ("stored", "millimetres"),
    [
        (np.array([[0.5, 2.25]], np.float32), [[500, 2250]]),
        (np.array([[-1.0, 99.0]], np.float64), [[0, 65535]]),
        (np.array([[[1200, 70000]]], np.int32), [[1200, 65535]]),
        (np.asfortranarray(np.array([[1, 2], [3, 4]], np.uint16)), [[1, 2], [3, 4]]),
        (np.array([[0.5, 1.0]], ">f4"), [[500, 1000]]),
    ],
)
def test_arrays_are_metres_as_floats_and_millimetres_as_integers(stored, millimetres):
    assert decode("depth", {"dep0.npy": npy(stored)})[0].tolist() == millimetres


@pytest.mark.parametrize(("rate", "channels", "kind"), [(16_000, 1, "FLAC"), (44_100, 2, "FLAC"), (8_000, 1, "WAV")])
def test_audio_is_mono_at_16_khz(rate, channels, kind):
    made = decode("audio", {kind.lower(): audio(tone(1, rate, channels), rate, kind)})
    assert made.dtype == np.float32 and len(made) == 16_000
    assert np.abs(made - tone(1))[200:-200].max() < 5e-3


@pytest.mark.parametrize("size", [48, 144, 300])
def test_a_frame_alone_becomes_the_same_pixels_as_among_others_and_its_colours_stay_packed(size):
    members = {f"frame.{k}.png": png(image(k)[..., ::-1]) for k in range(2)}
    both, alone = decode("video", members), decode("video", dict([*members.items()][:1]))
    seen = VideoTransform(size=size, frames=1).prepare(alone, None).values
    assert torch.equal(seen[0], VideoTransform(size=size, frames=2).prepare(both, None).values[0])
    # So that a row is written into its batch without rearranging it.
    assert seen.stride()[-2:] == (3, 1)
