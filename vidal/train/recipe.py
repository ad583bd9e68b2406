"""A training recipe: a YAML file that says which towers learn from which pairs, and how.

name: depth
text: {model: openai/clip-vit-large-patch14, views: mix}
towers:
  depth: {model: openai/clip-vit-large-patch14, tune: lora, lora: {rank: 2}, patch_dropout: 0.5}
batch_size: 1024
epochs: 1
optimiser: {lr: 5.0e-4, warmup_steps: 200}

Without ``pairs`` every tower is paired with the text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vidal import modality as modalities
from vidal.errors import RecipeError
from vidal.settings import parse_override, put, read_yaml, validate
from vidal.train.data.loader import PREFETCH_CHUNKS, STALL_S
from vidal.train.data.text_views import TextViews
from vidal.train.loss import LossSettings
from vidal.train.optim import OptimiserSettings
from vidal.train.towers.settings import Settings, TowerSettings

Pair = tuple[str, str]

_EXAMPLE = "batch_size=64 or optimiser.lr=1e-4"


class Text(Settings):
    """The frozen text tower, and which of a clip's texts it reads."""

    model: str
    """A CLIP or sentence-transformers folder, hub id, ``package:NAME/folder``."""
    max_tokens: int = Field(77, ge=4)
    views: TextViews = TextViews()
    precompute: bool = False
    """Encode every text once before the first step: for small sets, where the text tower would be the slowest."""


class TowerRecipe(TowerSettings):
    """One modality's tower, and how its input is prepared."""

    transform: dict[str, Any] = Field(default_factory=dict)
    """Settings of the modality's transform."""

    def tower_settings(self) -> TowerSettings:
        said = {name: getattr(self, name) for name in self.model_fields_set - {"transform"}}
        return TowerSettings(**said)


class PairRecipe(Settings):
    """One pair of modalities that is trained to agree."""

    weight: float | None = Field(None, gt=0)
    """Share of the steps; without any weight each pair makes exactly ``epochs`` epochs."""
    init_temperature: float | None = Field(None, gt=0)
    """By default the loss's own: 0.07 for info_nce, 0.1 (a scale of 10) for sigmoid."""


class Data(Settings):
    """What is trained on, and how it is read."""

    weights: list[float] | None = None
    """Share of each data set named by --data; without them every sample is seen once an epoch."""
    heldout: float = Field(0.0, ge=0, lt=1)
    """Share of the near-duplicate clusters that is kept from training, for `vidal eval`."""
    drop_last: bool = False
    """Drop an epoch's remainder, so that every batch has exactly ``batch_size`` samples."""
    workers: int = Field(2, ge=0)
    """Decoding processes of each rank; 0 decodes in the trainer's own."""
    prefetch: int = Field(PREFETCH_CHUNKS, ge=1)
    """Chunks, of up to 16 MB of shared memory, that each of them has under way."""
    stall_s: float = Field(STALL_S, gt=0)
    """Seconds without a sample from any of them, after which the run ends."""
    cache_bytes: int = Field(8 << 30, ge=0)
    """Local cache for shards in an object store."""


class CheckpointSettings(Settings):
    """When the run is saved; the last step always is."""

    every_steps: int = Field(500, ge=1)
    keep_last: int = Field(3, ge=2)
    keep_every: int | None = Field(None, ge=1)
    """Keep those of each so many steps for good, beside the last ones."""


class LogSettings(Settings):
    """Where the run's numbers go besides the terminal and ``log.jsonl``."""

    every_steps: int = Field(10, ge=1)
    tensorboard: bool = False
    wandb: str | None = None
    """Project of Weights & Biases."""


class TrainRecipe(Settings):
    """A whole training run."""

    name: str = ""
    seed: int = 0
    modalities: list[str] = Field(default_factory=list, exclude_if=lambda paths: not paths)
    """Modalities of your own, each as ``package.module:NAME``."""
    text: Text
    towers: dict[str, TowerRecipe] = Field(min_length=1)
    pairs: dict[str, PairRecipe] = Field(default_factory=dict)
    loss: LossSettings = LossSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    data: Data = Data()
    batch_size: int = Field(ge=2)
    """Samples of one step, over all ranks."""
    chunk_size: int | None = Field(None, ge=1)
    """Samples of a rank that go through a tower at once (GradCache); by default the rank's whole share."""
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    """Compile the towers with torch.compile."""
    fsdp: bool = False
    """Shard the towers' parameters over the ranks (FSDP2) rather than copy them (DDP): for towers beyond ViT-L."""
    threads: int | None = Field(None, ge=1)
    """Threads of the trainer on a CPU; 1 makes two runs equal to the bit."""
    max_nan_steps: int = Field(3, ge=1)
    """Steps in a row whose loss or gradient is not finite, after which the run stops."""
    max_broken_share: float = Field(0.5, ge=0, le=1)
    """Share of samples that cannot be read, over some hundreds of them, above which the run stops."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    log: LogSettings = LogSettings()

    @field_validator("towers")
    @classmethod
    def _known_modalities(cls, towers: dict[str, TowerRecipe]) -> dict[str, TowerRecipe]:
        unknown = next((name for name in towers if modalities.find(name) is None), None)
        if unknown:
            raise ValueError(f"no modality `{unknown}`: there is {', '.join(m.layer for m in modalities.all())}")
        return towers

    @field_validator("pairs")
    @classmethod
    def _known_pairs(cls, pairs: dict[str, PairRecipe]) -> dict[str, PairRecipe]:
        known = ["text", *(m.layer for m in modalities.all())]
        for name in pairs:
            parts = name.split("-")
            if len(parts) != 2 or parts[0] == parts[1] or not set(parts) <= set(known):
                raise ValueError(f"pair `{name}`: write two of {', '.join(known)} with a - between")
        return pairs

    @model_validator(mode="after")
    def _consistent(self) -> TrainRecipe:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("name either `epochs` or `steps`")
        for pair in self.pair_settings():
            missing = next((side for side in pair if side != "text" and side not in self.towers), None)
            if missing:
                raise ValueError(
                    f"pair `{'-'.join(pair)}` needs a tower `{missing}`; towers has {', '.join(self.towers)}"
                )
        weighted = [settings.weight is not None for settings in self.pairs.values()]
        if any(weighted) and not all(weighted):
            raise ValueError("give every pair a weight, or none")
        if any(weighted) and self.steps is None:
            raise ValueError("weights of pairs need `steps`: an epoch of a mixture has no length")
        for modality, tower in self.towers.items():
            modalities.get(modality).transform.model_validate(tower.transform)
        return self

    @property
    def transforms(self) -> dict[str, dict[str, Any]]:
        """By modality, what the recipe says of the preparation of its input."""
        return {modality: tower.transform for modality, tower in self.towers.items()}

    def pair_settings(self) -> dict[Pair, PairRecipe]:
        """The pairs, the text first where it is a side; by default the text with every tower."""
        named = self.pairs or {f"text-{modality}": PairRecipe() for modality in self.towers}
        return {ordered(name): settings for name, settings in named.items()}


# What may differ between a run and its continuation: what the numbers do not depend on, and what mends a divergence.
FREE_ON_RESUME = {
    "checkpoints", "log", "data.workers", "data.prefetch", "data.stall_s", "data.cache_bytes", "name",
    "max_nan_steps", "max_broken_share", "optimiser.lr", "optimiser.min_lr", "optimiser.warmup_steps",
}  # fmt: skip
MAY_GROW_ON_RESUME = ("steps", "epochs")


def ordered(name: str) -> Pair:
    """``depth-text`` and ``text-depth`` are one pair."""
    a, b = name.split("-")
    return (b, a) if b == "text" else (a, b)


def load(path: str | Path, overrides: list[str]) -> TrainRecipe:
    """Read and check a training recipe; raises `RecipeError`."""
    path = Path(path)
    raw = read_yaml(path, "`text`, `towers` and `batch_size`")
    for text in overrides:
        key, value = parse_override(text, _EXAMPLE)
        put(raw, key.split("."), value, text)
    return check(raw, str(path))


def check(raw: dict[str, Any], place: str) -> TrainRecipe:
    """The recipe of a mapping, or one clear line about what is wrong with it."""
    if "stages" in raw:
        raise RecipeError(
            f"{place}: this is a recipe for `vidal build`; a training recipe has text, towers, batch_size"
        )
    modalities.load_all(raw.get("modalities"), place)
    recipe = validate(TrainRecipe, raw, place)
    return recipe.model_copy(update={"name": recipe.name or Path(place).stem})
