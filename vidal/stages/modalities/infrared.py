from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.errors import ClipError
from vidal.models.locate import identity
from vidal.stage import Resources
from vidal.stages.modalities.frame_series import flicker, for_each_frame
from vidal.stages.model_stage import ModelStage
from vidal.work import Member

Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]


class Infrared(ModelStage):
    """Generates an infrared image of each stored frame, as one-channel 8-bit JPEG with the frame's size and time.

    The images are generated from the colours and are not those of a thermal camera, so ``synthetic_layers`` lists them.
    All frames of all clips have the same style and the same mapping to grey levels.
    """

    version = 1
    reads = ("video",)
    writes = ("infrared", "infrared_model", "infrared_flicker", "infrared_edge_agreement", "synthetic_layers")
    imports = ("huggingface_hub", "safetensors", "torch", "transformers")
    not_fingerprinted = ()  # the device has been part of the fingerprint of this stage from its first version
    layers = ("infrared",)
    default_resources: ClassVar[Resources] = Resources(gpus=1.0, batch_size=8, timeout_s=300)

    model: str = "vidal:infrared-small"
    """Weights of an sRGB-TIR generator, such as the published checkpoint: a file, a folder, or a downloaded hub id."""
    style_seed: int = Field(0, ge=0)
    """Seed of the style that all images have."""
    batch_frames: int = Field(8, ge=1, le=1024)
    """Frames that the model takes at once."""
    jpeg_quality: int = Field(92, ge=1, le=100)
    """Quality of the JPEG files, 100 is best."""

    _generator: Any = PrivateAttr(default=None)
    _identity: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        import cv2

        from vidal.models.infrared import load_infrared

        cv2.setNumThreads(1)
        self._generator = load_infrared(self.model, device=self.chosen_device(), style_seed=self.style_seed)
        self._identity = self.model_identities()["model"]

    def process(self, clip: Clip) -> None:
        self.process_batch([clip])

    def process_batch(self, clips: Sequence[Clip]) -> None:
        clips = [clip for clip in clips if clip.work.frame_members()]
        translated = for_each_frame(
            [clip.work.frames() for clip in clips],
            self._generator.translate,
            batch_frames=self.batch_frames,
            mix_clips=self._generator.device.type == "cuda",
        )
        for clip, images in zip(clips, translated, strict=True):
            self._store(clip, images)

    def _store(self, clip: Clip, images: Sequence[Grey]) -> None:
        for frame, image in zip(clip.work.frame_members(), images, strict=True):
            suffix = frame.suffix.replace("frame.", "infrared.")
            data = _jpeg(image, self.jpeg_quality)
            clip.work.put(Member(layer="infrared", suffix=suffix, data=data, time_s=frame.time_s))
        frames = clip.work.frames()
        clip.infrared_model = self._identity
        clip.infrared_flicker = flicker(frames, images, 255.0)
        clip.infrared_edge_agreement = mean_edge_agreement(frames, images)
        if images and "infrared" not in clip.synthetic_layers:
            clip.synthetic_layers = [*clip.synthetic_layers, "infrared"]


def mean_edge_agreement(frames: Sequence[Image], images: Sequence[Grey]) -> float | None:
    """Return the mean of `edge_agreement` over the frames, -1 to 1; None if no frame has edges."""
    agreements = [edge_agreement(frame, image) for frame, image in zip(frames, images, strict=True)]
    known = [agreement for agreement in agreements if agreement is not None]
    return round(float(np.mean(known)), 5) if known else None


def edge_agreement(frame: Image, image: Grey) -> float | None:
    """Return the correlation of edge strengths in an RGB frame and in its infrared image; None without edges."""
    import cv2

    strengths = [_edges(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)), _edges(image)]
    if min(strength.std() for strength in strengths) < 1e-6:
        return None
    return float(np.corrcoef(strengths[0].ravel(), strengths[1].ravel())[0, 1])


def _edges(grey: Any) -> npt.NDArray[np.float32]:
    import cv2

    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(across, down), dtype=np.float32)


def _jpeg(image: Grey, quality: int) -> bytes:
    import cv2

    is_encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise ClipError("bad_infrared", f"an image of shape {image.shape} cannot be encoded as JPEG")
    return data.tobytes()
