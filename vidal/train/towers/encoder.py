"""`Encoder`: one tower per modality, a frozen text tower, and a learnt temperature for every pair that is trained."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidal.errors import ModelError, RecipeError
from vidal.train.towers.config import checked
from vidal.train.towers.settings import LoraSettings, TowerSettings, VisionSettings
from vidal.train.towers.start import tower_from
from vidal.train.towers.text import TextTower
from vidal.train.towers.tune import tune
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import State, put

__all__ = ["Encoder", "TextTower", "TowerSettings", "VisionSettings", "VisionTower", "tower_from"]

Pair = tuple[str, str]

MAX_LOGIT_SCALE = math.log(100)
_INFO_NCE_TEMPERATURE = 0.07
_SIGMOID_TEMPERATURE = 0.1
_SIGMOID_BIAS = -10.0


class Encoder(nn.Module):
    """Embeddings of every modality in one space; none is normalised."""

    def __init__(
        self, towers: Mapping[str, VisionTower], text: TextTower | None, *,
        pairs: Mapping[Pair, float | None] | None = None, is_sigmoid: bool = False,
        serves: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``pairs`` gives each its first temperature (None: the loss's own); ``serves`` says which tower a modality
        goes through, where that is not the one of its name."""
        super().__init__()
        self.towers = nn.ModuleDict(dict(towers))
        self.text = text
        self.serves = dict(serves) if serves is not None else {name: name for name in towers}
        self.is_sigmoid = is_sigmoid
        self.preprocessing: dict[str, dict[str, Any]] = {}
        """By modality, the settings of the transform that its inputs go through; none of a published encoder."""
        usual = _SIGMOID_TEMPERATURE if is_sigmoid else _INFO_NCE_TEMPERATURE
        scales = {_name(p): -math.log(t or usual) for p, t in (pairs or {}).items()}
        self.logit_scale = nn.ParameterDict({p: nn.Parameter(torch.tensor(s)) for p, s in scales.items()})
        biases = scales if is_sigmoid else {}
        self.logit_bias = nn.ParameterDict({p: nn.Parameter(torch.tensor(_SIGMOID_BIAS)) for p in biases})

    @classmethod
    def build(
        cls, towers: Mapping[str, TowerSettings], text: TextTower, *,
        pairs: Mapping[Pair, float | None], is_sigmoid: bool = False, seed: int = 0,
    ) -> Encoder:  # fmt: skip
        """Towers as a recipe has them, each drawn from (seed, modality): the same whatever others stand beside it."""
        built = {modality: _built(settings, text.dim, modality, seed) for modality, settings in towers.items()}
        return cls(built, text, pairs=pairs, is_sigmoid=is_sigmoid)

    @property
    def modalities(self) -> list[str]:
        return list(self.serves)

    def tower(self, modality: str) -> VisionTower:
        """Raises `RecipeError` for a modality that the encoder lacks."""
        if modality not in self.serves:
            has = [*self.serves, *(["text"] if self.text is not None else [])]
            raise RecipeError(f"no tower for `{modality}`: this encoder has {', '.join(has)}")
        tower = self.towers[self.serves[modality]]
        assert isinstance(tower, VisionTower)
        return tower

    def encode(self, modality: str, pixel_values: Tensor, keep: Tensor | None = None) -> Tensor:
        """(b, d) float32 after projection, not normalised; differentiable, so wrap it in `torch.no_grad` for use.

        ``pixel_values`` is (b, c, h, w) or, for video, (b, c, t, h, w); ``keep`` is what the tower's `draw_keep` drew.
        """
        embedding: Tensor = self.tower(modality)(pixel_values, keep)
        return embedding

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """(b, d) float32 after projection, not normalised."""
        embedding: Tensor = self.text_tower()(input_ids, attention_mask)
        return embedding

    def encode_texts(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """(n, d), the same to the bit for a text whatever texts are beside it."""
        return self.text_tower().encode(texts, batch_size)

    def text_tower(self) -> TextTower:
        if self.text is None:
            raise RecipeError(f"this encoder has no text tower, only {', '.join(self.serves)}")
        return self.text

    def pair_scale(self, pair: Pair) -> Tensor:
        """What the cosines of a pair are multiplied by: exp of its logit scale."""
        return self._of_pair(self.logit_scale, pair).clamp(0, MAX_LOGIT_SCALE).exp()

    def pair_bias(self, pair: Pair) -> Tensor | None:
        """What is added to the scaled cosines of a pair; None without the sigmoid loss."""
        return self._of_pair(self.logit_bias, pair) if self.is_sigmoid else None

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """After each optimiser step: every scale stays between 1 and 100."""
        for scale in self.logit_scale.values():
            scale.clamp_(0, MAX_LOGIT_SCALE)

    def describe(self) -> dict[str, Any]:
        """JSON-able: what `from_description` builds the same encoder from, its trainable state apart."""
        return {
            "towers": {name: _described(self.towers[name]) for name in self.towers},
            "serves": self.serves,
            "text": self.text.describe() if self.text is not None else None,
            "pairs": list(self.logit_scale),
            "is_sigmoid": self.is_sigmoid,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Encoder:
        """The encoder that was described, its towers with drawn weights until `load_trainable_state`."""
        towers = {name: _from_description(tower) for name, tower in description["towers"].items()}
        text = TextTower.from_description(description["text"]) if description["text"] is not None else None
        pairs: dict[Pair, float | None] = {_pair(name): None for name in description["pairs"]}
        return cls(towers, text, pairs=pairs, is_sigmoid=description["is_sigmoid"], serves=description["serves"])

    def trainable_state(self) -> State:
        """What a checkpoint stores: everything but the frozen text tower."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("text.")}

    def load_trainable_state(self, state: Mapping[str, Tensor], place: str = "checkpoint") -> None:
        """Raises `ModelError` where a tensor is missing, unknown or of another shape."""
        put(_AllButText(self), state, place)

    def _of_pair(self, parameters: nn.ParameterDict, pair: Pair) -> Tensor:
        name = _name(pair)
        if name not in parameters:
            raise RecipeError(f"pair `{name}` is not trained here, only {', '.join(parameters) or 'none'}")
        parameter: Tensor = parameters[name]
        return parameter


class _AllButText(nn.Module):
    """The parts of an encoder whose weights a checkpoint holds, under the same names."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.towers, self.logit_scale, self.logit_bias = encoder.towers, encoder.logit_scale, encoder.logit_bias


def _built(settings: TowerSettings, dim: int, modality: str, seed: int) -> VisionTower:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed} {modality}".encode()))
        tower = tower_from(settings, dim)
        tune(tower, settings.tune, settings.lora)
    return tower


def _described(tower: nn.Module) -> dict[str, Any]:
    assert isinstance(tower, VisionTower)
    lora = tower.adapters.model_dump(mode="json") if tower.adapters is not None else None
    return {"vision": tower.settings.model_dump(mode="json"), "tune": tower.tune, "lora": lora}


def _from_description(described: Mapping[str, Any]) -> VisionTower:
    try:
        vision, how, lora = described["vision"], described["tune"], described["lora"]
    except KeyError as error:
        raise ModelError(f"description of a tower: {error} is missing") from None
    tower = VisionTower(checked(VisionSettings, vision, "description"))
    tune(tower, how, checked(LoraSettings, lora, "description") if lora is not None else None)
    return tower


def _name(pair: Pair) -> str:
    return "-".join(pair)


def _pair(name: str) -> Pair:
    a, b = name.split("-")
    return a, b
