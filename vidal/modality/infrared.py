"""The infrared modality: thermal images of one channel."""

from __future__ import annotations

from typing import ClassVar

from vidal.modality.image import GREY, ImageModality, ImageTransform


class InfraredTransform(ImageTransform):
    """Preprocessing of thermal images, as three equal channels; stored colour images are decoded to grey."""

    channels: ClassVar[int] = 1


class Infrared(ImageModality):
    """Members ``infrared.3.jpg``; decodes to (t, h, w) uint8."""

    layer = "infrared"
    stems = ("infrared", "tml")
    transform: ClassVar[type[InfraredTransform]] = InfraredTransform
    flags = GREY
    # The wording of LanguageBind.
    word = "photo"


INFRARED = Infrared()
