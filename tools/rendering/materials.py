"""What a rendered surface is made of, the thermal numbers that go with it, and what kind of thing it belongs to."""

from dataclasses import dataclass
from enum import IntEnum


class Material(IntEnum):
    """One byte per pixel in a rendered frame."""

    SKY = 0
    BACKDROP = 1
    SOIL = 2
    CONCRETE = 3
    WOOD = 4
    PLASTIC = 5
    METAL = 6
    FABRIC = 7
    PLANT = 8
    VEHICLE = 9
    BODY = 10
    SKIN = 11
    WATER = 12
    ENGINE = 13
    RUBBER = 14


class Category(IntEnum):
    """What a pixel of a rendered frame shows: the kind of thing rather than what it is made of."""

    SCENERY = 0
    PERSON = 1
    ANIMAL = 2
    PLANT = 3
    FOOD = 4
    VEHICLE = 5
    BUILDING = 6
    FURNITURE = 7
    OBJECT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Thermal:
    """Temperature above the air in kelvin, its spread between objects, what full sun adds, and emissivity (8-14 um)."""

    above_air_k: float
    spread_k: float
    sun_k: float
    emissivity: float


# Emissivities are the usual handbook values for the long-wave band; the temperatures are plausible, not measured.
THERMAL = {
    Material.SKY: Thermal(above_air_k=-40.0, spread_k=8.0, sun_k=0.0, emissivity=1.0),
    Material.BACKDROP: Thermal(above_air_k=-1.0, spread_k=1.5, sun_k=5.0, emissivity=0.95),
    Material.SOIL: Thermal(above_air_k=1.0, spread_k=1.5, sun_k=8.0, emissivity=0.94),
    Material.CONCRETE: Thermal(above_air_k=0.5, spread_k=1.5, sun_k=7.0, emissivity=0.92),
    Material.WOOD: Thermal(above_air_k=0.0, spread_k=1.0, sun_k=6.0, emissivity=0.90),
    Material.PLASTIC: Thermal(above_air_k=0.0, spread_k=1.5, sun_k=6.0, emissivity=0.92),
    Material.METAL: Thermal(above_air_k=0.0, spread_k=2.0, sun_k=5.0, emissivity=0.30),
    Material.FABRIC: Thermal(above_air_k=0.5, spread_k=1.5, sun_k=4.0, emissivity=0.95),
    Material.PLANT: Thermal(above_air_k=-1.5, spread_k=1.0, sun_k=2.0, emissivity=0.96),
    Material.VEHICLE: Thermal(above_air_k=6.0, spread_k=3.0, sun_k=5.0, emissivity=0.85),
    Material.BODY: Thermal(above_air_k=10.0, spread_k=1.5, sun_k=1.0, emissivity=0.97),
    Material.SKIN: Thermal(above_air_k=13.0, spread_k=1.0, sun_k=0.5, emissivity=0.98),
    Material.WATER: Thermal(above_air_k=-3.0, spread_k=1.0, sun_k=1.0, emissivity=0.96),
    Material.ENGINE: Thermal(above_air_k=22.0, spread_k=6.0, sun_k=5.0, emissivity=0.90),
    Material.RUBBER: Thermal(above_air_k=4.0, spread_k=3.0, sun_k=5.0, emissivity=0.95),
}
