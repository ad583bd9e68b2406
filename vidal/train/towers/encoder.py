"""`Encoder`: one tower per modality, a text tower, and a learned temperature for each trained pair."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vidal.errors import ModelError, RecipeError
from vidal.train.towers.config import checked
from vidal.train.towers.settings import LoraSettings, TextTune, TowerSettings, VisionSettings
from vidal.train.towers.start import tower_from
from vidal.train.towers.text import TextTower
from vidal.train.towers.tune import merged, merged_text, tune, tune_text
from vidal.train.towers.vit import VisionTower
from vidal.train.towers.weights import State, clean_name, digest, put

__all__ = ["Encoder", "TextTower", "TowerSettings", "VisionSettings", "VisionTower", "tower_from"]

Pair = tuple[str, str]

# Radford et al. (2021) start the temperature at 0.07 and bound the scale at 100.
MAX_LOGIT_SCALE = math.log(100)
_INFO_NCE_TEMPERATURE = 0.07
# SigLIP's start (Zhai et al., 2023): nearly all pairs of a batch are negatives, and the bias expects that from step 0.
_SIGMOID_TEMPERATURE = 0.1
_SIGMOID_BIAS = -10.0


class Encoder(nn.Module):
    """Encodes every modality into one joint embedding space; embeddings are not normalised.

    Each trained pair has its own ``logit_scale`` and, with the sigmoid loss, ``logit_bias``: float32 scalars.
    """

    def __init__(
        self, towers: Mapping[str, VisionTower], text: TextTower | None, *,
        pairs: Mapping[Pair, float | None] | None = None, is_sigmoid: bool = False,
        serves: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """``pairs`` maps each pair to its initial temperature (None: the default of the loss).

        ``serves`` maps each modality to the name of its tower; by default the two names are the same.
        """
        super().__init__()
        self.towers = nn.ModuleDict(dict(towers))
        self.text = text
        self.serves = dict(serves) if serves is not None else {name: name for name in towers}
        self.is_sigmoid = is_sigmoid
        self.preprocessing: dict[str, dict[str, Any]] = {}
        """The transform settings of each modality; empty for a published encoder, which does not record them."""
        default = _SIGMOID_TEMPERATURE if is_sigmoid else _INFO_NCE_TEMPERATURE
        scales = {"-".join(pair): -math.log(t or default) for pair, t in (pairs or {}).items()}
        self.logit_scale = nn.ParameterDict({p: nn.Parameter(torch.tensor(s)) for p, s in scales.items()})
        biases = scales if is_sigmoid else {}
        self.logit_bias = nn.ParameterDict({p: nn.Parameter(torch.tensor(_SIGMOID_BIAS)) for p in biases})

    @classmethod
    def build(
        cls, towers: Mapping[str, TowerSettings], text: TextTower, *,
        pairs: Mapping[Pair, float | None], is_sigmoid: bool = False, seed: int = 0, start: Encoder | None = None,
        text_tune: TextTune = "frozen", text_lora: LoraSettings | None = None,
    ) -> Encoder:  # fmt: skip
        """Build the towers of a recipe.

        A tower's initial weights depend on the seed and its modality alone, not on the other towers. Towers and
        temperatures that ``start`` has replace the initial ones, its adapters folded in, but no temperature that
        ``pairs`` states. Raises `RecipeError` if it has no tower for any of the modalities, or a trained text tower
        that ``text`` does not equal.
        """
        served = set(start.serves) if start is not None else set()
        if start is not None and not served & set(towers):
            raise RecipeError(
                f"init_from: has towers for {', '.join(sorted(served))}, and none for {', '.join(towers)}"
            )
        built: dict[str, VisionTower] = {}
        for modality, settings in towers.items():
            with _seeded(seed, modality):
                own = merged(start.tower(modality)) if start is not None and modality in served else None
                built[modality] = tower_from(settings, text.dim, own)
                tune(built[modality], settings.tune, settings.lora)
        if start is not None and start.trains_text:
            trained = TextTower(merged_text(start.text_tower()))
            if trained.weights_digest() != text.weights_digest():
                raise RecipeError(
                    "init_from: its text tower was trained; name its folder of `vidal export-encoder` in text.model"
                )
        with _seeded(seed, "text"):
            tune_text(text, text_tune, text_lora)
        encoder = cls(built, text, pairs=pairs, is_sigmoid=is_sigmoid)
        # A temperature of the other loss is no start: with sigmoid, it goes with a bias.
        if start is not None and start.is_sigmoid == is_sigmoid:
            for name in {"-".join(pair) for pair, stated in pairs.items() if stated is None} & set(start.logit_scale):
                encoder.logit_scale[name].data.copy_(start.logit_scale[name])
                if is_sigmoid:
                    encoder.logit_bias[name].data.copy_(start.logit_bias[name])
        return encoder

    @property
    def modalities(self) -> list[str]:
        """The modalities that `encode` accepts; text is not among them."""
        return list(self.serves)

    def tower(self, modality: str) -> VisionTower:
        """Return the tower of a modality; raises `RecipeError` if the encoder has none."""
        if modality not in self.serves:
            available = [*self.serves, *(["text"] if self.text is not None else [])]
            raise RecipeError(f"no tower for `{modality}`: this encoder has {', '.join(available)}")
        tower = self.towers[self.serves[modality]]
        assert isinstance(tower, VisionTower)
        return tower

    def encode(self, modality: str, pixel_values: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return projected embeddings (b, d) in float32, not normalised.

        ``pixel_values`` is (b, c, h, w) or, for video, (b, c, t, h, w); ``keep`` holds the patch indices (b, k) from
        the tower's `draw_keep`. The result is differentiable: wrap inference in `torch.no_grad`. Raises `RecipeError`
        for a modality without a tower, or a shape that its tower does not accept.

            encoder.encode("depth", torch.zeros(1, 3, 224, 224))  # (1, d)
        """
        embedding: Tensor = self.tower(modality)(pixel_values, keep)
        return embedding

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return projected text embeddings (b, d) in float32, not normalised, of token ids (b, n)."""
        embedding: Tensor = self.text_tower()(input_ids, attention_mask)
        return embedding

    def encode_texts(self, texts: Sequence[str], batch_size: int = 16) -> Tensor:
        """Tokenise and encode n texts as (n, d); a text's embedding does not depend on the others, bit for bit."""
        return self.text_tower().encode(texts, batch_size)

    def text_tower(self) -> TextTower:
        """Return the text tower; raises `RecipeError` if the encoder has none."""
        if self.text is None:
            raise RecipeError(f"this encoder has no text tower, only {', '.join(self.serves)}")
        return self.text

    @property
    def trains_text(self) -> bool:
        """Whether the text tower is tuned."""
        return self.text is not None and self.text.tune != "frozen"

    def pair_scale(self, pair: Pair) -> Tensor:
        """Return the factor of a pair's cosine similarities, exp(logit_scale), between 1 and 100."""
        return self._of_pair(self.logit_scale, pair).clamp(0, MAX_LOGIT_SCALE).exp()

    def pair_bias(self, pair: Pair) -> Tensor | None:
        """Return the bias of a pair's scaled cosine similarities; None unless the loss is sigmoid."""
        return self._of_pair(self.logit_bias, pair) if self.is_sigmoid else None

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Clamp every scale to 1 … 100; called after each optimiser step."""
        for scale in self.logit_scale.values():
            scale.clamp_(0, MAX_LOGIT_SCALE)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description, from which `from_description` builds the encoder without weights."""
        towers: dict[str, dict[str, Any]] = {}
        for name, tower in self.towers.items():
            assert isinstance(tower, VisionTower)
            lora = tower.adapters.model_dump(mode="json") if tower.adapters is not None else None
            towers[name] = {"vision": tower.settings.model_dump(mode="json"), "tune": tower.tune, "lora": lora}
        return {
            "towers": towers,
            "serves": self.serves,
            "text": self.text.describe() if self.text is not None else None,
            "pairs": list(self.logit_scale),
            "is_sigmoid": self.is_sigmoid,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Encoder:
        """Build a described encoder, its towers randomly initialised until `load_trainable_state`.

        Raises `ModelError` for a tower whose description is not complete or not valid.
        """
        towers: dict[str, VisionTower] = {}
        for name, tower in description["towers"].items():
            try:
                vision, mode, lora = tower["vision"], tower["tune"], tower["lora"]
            except KeyError as error:
                raise ModelError(f"description of a tower: {error} is missing") from None
            towers[name] = VisionTower(checked(VisionSettings, vision, "description"))
            tune(towers[name], mode, checked(LoraSettings, lora, "description") if lora is not None else None)
        text: TextTower | None = None
        if (described := description["text"]) is not None:
            text = TextTower.from_description(described)
            lora = described.get("lora")
            adapters = checked(LoraSettings, lora, "description") if lora is not None else None
            tune_text(text, described.get("tune", "frozen"), adapters)
        pairs = pairs_of(description["pairs"])
        return cls(towers, text, pairs=pairs, is_sigmoid=description["is_sigmoid"], serves=description["serves"])

    def base_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the frozen weights of each tower of which a part or nothing is trained."""
        return {name: digest(weights) for name, weights in self._bases().items()}

    def trainable_state(self, *, with_bases: bool = True) -> State:
        """Return the tensors that a checkpoint stores: all except those of a frozen text tower.

        Without ``with_bases``, those that `base_digests` is of are left out, too.
        """
        # A frozen text tower is loaded again by its reference, and compared by its digest.
        stored = {k: v for k, v in self.state_dict().items() if self.trains_text or not k.startswith("text.")}
        left_out = {} if with_bases else {k: v for weights in self._bases().values() for k, v in weights.items()}
        return {k: v for k, v in stored.items() if k not in left_out}

    def _bases(self) -> dict[str, State]:
        """By tower, the tensors that no step changes, under their names in the encoder."""
        prefixes = {name: f"towers.{name}." for name, tower in self.towers.items() if tower.tune != "full"}
        if self.text is not None and self.text.tune == "lora":
            prefixes["text"] = "text."
        trained = {clean_name(name) for name, p in self.named_parameters() if p.requires_grad}
        frozen = {k: v for k, v in self.state_dict().items() if clean_name(k) not in trained}
        return {name: {k: v for k, v in frozen.items() if k.startswith(p)} for name, p in prefixes.items()}

    def load_trainable_state(
        self, state: Mapping[str, Tensor], place: str = "checkpoint", bases: Mapping[str, str] | None = None
    ) -> None:
        """Load the tensors of `trainable_state`; ``bases`` are the `base_digests` of those that it left out.

        Raises `ModelError`, prefixed by ``place``, if a tensor is missing, unexpected or of another shape, or if the
        frozen weights of this encoder are others.
        """
        own = self._bases() if bases else {}
        for name, sha256 in (bases or {}).items():
            if digest(own.get(name, {})) != sha256:
                raise ModelError(
                    f"{place}: its {name} tower was trained on other frozen weights than the recipe's model gives now; "
                    "restore that model"
                )
            state = own[name] | dict(state)
        # Under the names that they have in the encoder.
        stored: dict[str, nn.Module] = {
            "towers": self.towers,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
        }
        if self.trains_text:
            stored["text"] = self.text_tower()
        put(nn.ModuleDict(stored), state, place)

    def _of_pair(self, parameters: nn.ParameterDict, pair: Pair) -> Tensor:
        name = "-".join(pair)
        if name not in parameters:
            raise RecipeError(f"pair `{name}` is not trained here; trained pairs: {', '.join(parameters) or 'none'}")
        parameter: Tensor = parameters[name]
        return parameter


@contextmanager
def _seeded(seed: int, name: str) -> Iterator[None]:
    """Draw from torch's generator, within the block, numbers that depend on the arguments alone."""
    # No devices, as saving the state of each GPU would start CUDA in every process.
    with torch.random.fork_rng(devices=[]):
        # crc32, as Python's own hash of a string differs from process to process.
        torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
        yield


def pairs_of(names: Iterable[str]) -> dict[Pair, float | None]:
    """Return the pairs of names such as ``text-depth``, each with the default temperature."""
    return {(left, right): None for left, _, right in (name.partition("-") for name in names)}
