from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, PrivateAttr

from vidal.clip import Clip
from vidal.models.device import Half
from vidal.models.locate import identity
from vidal.stage import Resources
from vidal.stages.modalities.frame_series import finishing, flicker, for_each_frame, put_images, steadied
from vidal.stages.model_stage import ModelStage

Grey = npt.NDArray[np.uint8]
Image = npt.NDArray[np.uint8]


class Infrared(ModelStage):
    """Generates an infrared image of each stored frame, as one-channel 8-bit JPEG with the frame's size and time.

    The images are generated from the colours and are not those of a thermal camera, so ``synthetic_layers`` lists them.
    All frames of all clips have the same style and the same mapping to grey levels.
    """

    version = 2
    reads = ("video",)
    writes = ("infrared", "infrared_model", "infrared_flicker", "infrared_edge_agreement", "synthetic_layers")
    imports = ("huggingface_hub", "safetensors", "timm", "torch", "transformers")
    not_fingerprinted = ()  # the device has been part of the fingerprint of this stage from its first version
    layers = ("infrared",)
    default_resources: ClassVar[Resources] = Resources(gpus=1.0, batch_size=8, timeout_s=300)

    model: str = "vidal:infrared-small"
    """sRGB-TIR weights or a transformers image-to-image model: a file, a folder, or a downloaded hub id.

    Or ``package.module:load``, a function of yours: ``load(device=..., dtype=...)`` returns what translates frames.
    """
    style_seed: int = Field(0, ge=0)
    """Seed of the style that all images of an sRGB-TIR generator have."""
    half: Half = True
    """Whether to use half precision on a GPU: float16, or ``bfloat16``."""
    steady: bool = True
    """Whether to average each pixel over the clip's frames in which the colours around it are the same."""
    batch_frames: int = Field(8, ge=1, le=1024)
    """Frames that the model takes at once."""
    jpeg_quality: int = Field(92, ge=1, le=100)
    """Quality of the JPEG files, 100 is best."""

    _translator: Any = PrivateAttr(default=None)
    _identity: str = PrivateAttr(default="")

    def model_identities(self) -> dict[str, str]:
        return {"model": identity(self.model)}

    def setup(self) -> None:
        import cv2

        from vidal.models.infrared import load_infrared

        # Workers are the parallelism: OpenCV's own threads would only compete with them.
        cv2.setNumThreads(1)
        self._translator = load_infrared(
            self.model, device=self.chosen_device(), half=self.half, style_seed=self.style_seed
        )
        self._identity = self.model_identities()["model"]

    def process_batch(self, clips: Sequence[Clip]) -> None:
        clips = self.with_frames(clips)
        translated = for_each_frame(
            [clip.work for clip in clips],
            self._translator.translate,
            batch_frames=self.batch_frames,
            mix_clips=self.chosen_device() == "cuda",
        )
        with finishing(in_threads=self.chosen_device() == "cuda") as finish:
            for clip, images in zip(clips, translated, strict=True):
                finish(self._finish, clip, images)

    def _finish(self, clip: Clip, images: Sequence[Grey]) -> None:
        import cv2

        if self.steady:
            images = steadied(clip.work.frames(), images)
        put_images(clip, "infrared", images, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.jpeg_quality])
        frames = clip.work.frames()
        clip.infrared_model = self._identity
        clip.infrared_flicker = flicker(frames, images, 255.0)
        agreements = [edge_agreement(frame, image) for frame, image in zip(frames, images, strict=True)]
        known = [agreement for agreement in agreements if agreement is not None]
        clip.infrared_edge_agreement = round(float(np.mean(known)), 5) if known else None


def edge_agreement(frame: Image, image: Grey) -> float | None:
    """Return the correlation of edge strengths in an RGB frame and in its infrared image; None without edges."""
    import cv2

    strengths: list[npt.NDArray[np.float32]] = []
    for grey in (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), image):
        across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        strengths.append(np.ravel(cv2.magnitude(across, down)))
    # A constant correlates with nothing: NumPy would divide by zero.
    if min(strength.std() for strength in strengths) < 1e-6:
        return None
    return float(np.corrcoef(strengths[0], strengths[1])[0, 1])
