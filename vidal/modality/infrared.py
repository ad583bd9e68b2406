"""Infrared: one channel of heat."""

from __future__ import annotations

from typing import ClassVar

from vidal.modality.image import GREY, ImageModality, ImageTransform


class InfraredTransform(ImageTransform):
    """One channel as three equal ones; a stored image of three is taken by its brightness (`Infrared.decode`)."""


class Infrared(ImageModality):
    """``infrared.3.jpg``; decodes to (t, h, w) uint8."""

    layer = "infrared"
    stems = ("infrared", "tml")
    transform: ClassVar[type[InfraredTransform]] = InfraredTransform
    flags = GREY
    # As LanguageBind says.
    word = "photo"


INFRARED = Infrared()
