"""The training recipe: a YAML file of the towers, the modality pairs to align, and the optimisation.

name: depth
text: {model: openai/clip-vit-large-patch14, views: mix}
towers:
  depth: {model: openai/clip-vit-large-patch14, tune: lora, lora: {rank: 2}, patch_dropout: 0.5}
batch_size: 1024
epochs: 1
optimiser: {lr: 5.0e-4, warmup_steps: 200}

Without ``pairs``, every tower is paired with text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from vidal import modality as modalities
from vidal.errors import RecipeError
from vidal.settings import parse_override, put, read_yaml, validate
from vidal.train.data.loader import STALL_S
from vidal.train.data.plan import Sides, modalities_of
from vidal.train.data.text_views import TextViews
from vidal.train.loss import LossSettings
from vidal.train.optim import OptimiserSettings
from vidal.train.towers.settings import LoraSettings, Settings, TextTune, TowerSettings

Pair = tuple[str, str]
Precision = Literal["fp32", "tf32", "bf16"]

_EXAMPLE = "batch_size=64 or optimiser.lr=1e-4"


class Text(Settings):
    """The text tower, and which texts of a clip it encodes."""

    model: str
    """Folder, hub id or ``package:NAME/folder`` of a CLIP or sentence-transformers model."""
    # The context length of CLIP.
    max_tokens: int = Field(77, ge=4)
    """Maximum length of a text in tokens; longer texts are truncated."""
    views: TextViews = TextViews()
    """Weights of the text views, or a preset: ``caption``, ``mix``."""
    tune: TextTune = "frozen"
    """Parameters to train: none, LoRA adapters on the attention, or all; the model's own dropout is then active."""
    lora: LoraSettings = LoraSettings()
    """Settings of the adapters; used only with ``tune: lora``."""
    cache: bool | str = True
    """Encode every text of the run once, before the first step, and keep the embeddings in the run's folder, or in the
    folder named here, which runs may share; false encodes the texts of each step anew. Without effect on a tower that
    is trained."""


class TowerRecipe(TowerSettings):
    """The tower of one modality, and the transform of its input."""

    transform: dict[str, Any] = Field(default_factory=dict)
    """Settings of the modality's transform."""

    def tower_settings(self) -> TowerSettings:
        """Return the settings of the tower alone; only those that were set, as defaults do not override a model's."""
        return TowerSettings(**{name: getattr(self, name) for name in self.model_fields_set - {"transform"}})


class PairRecipe(Settings):
    """One modality pair to align."""

    weight: float | None = Field(None, gt=0)
    """Share of the steps; without weights, each pair runs for exactly ``epochs`` epochs. With ``pairs_per_step: all``,
    factor of the pair's loss, by default 1."""
    init_temperature: float | None = Field(None, gt=0)
    """Initial temperature; by default 0.07 for info_nce, 0.1 (a scale of 10) for sigmoid."""


class DistilSettings(Settings):
    """Distillation from the stored embeddings of teachers."""

    teachers: list[str] = Field(min_length=1)
    """Names of teachers that `vidal reinforce` wrote into every dataset that is trained on, or, with a slash in them,
    output folders of `vidal embed --views`; those of one encoder are one teacher, and the divergences from several
    teachers are averaged."""
    weight: float = Field(0.5, gt=0, le=1)
    """Share w: the loss of a pair is (1 - w) times the contrastive one plus w times the divergence."""
    temperature: float | None = Field(None, ge=0.001)
    """Temperature of the teachers' similarities; by default the one that each teacher was trained to."""
    instead: dict[str, str] = Field(default_factory=dict)
    """Modality whose embedding a teacher gives instead of one that it has not: ``{depth: video}``."""


class Data(Settings):
    """How the datasets are sampled and read."""

    weights: list[float] | None = None
    """Share of each dataset of --data in an epoch; without weights, an epoch sees each sample once."""
    heldout: float = Field(0.0, ge=0, lt=1)
    """Share of the near-duplicate clusters to hold out for `vidal eval`."""
    drop_last: bool = False
    """Drop the remainder of an epoch, so that every batch has exactly ``batch_size`` samples."""
    workers: int = Field(2, ge=0)
    """Processes per rank that decode and tokenise, up to two steps ahead; 0 does it in the training process."""
    stall_s: float = Field(STALL_S, gt=0)
    """Stop the run after this many seconds without a sample from any worker."""
    cache_bytes: int = Field(8 << 30, ge=0)
    """Size of the local cache of shards from object storage."""


class CheckpointSettings(Settings):
    """When checkpoints are written and deleted; the last step always writes one."""

    every_steps: int = Field(500, ge=1)
    """Write a checkpoint every so many steps."""
    # Two at least: a run whose newest checkpoint is damaged resumes from the one before.
    keep_last: int = Field(3, ge=2)
    """Number of recent checkpoints to keep."""
    keep_every: int | None = Field(None, ge=1)
    """Also keep, permanently, those whose step is a multiple of this."""


class EvalSettings(Settings):
    """Evaluation while the run goes on, and the checkpoint that is kept for it: ``RUN@best``."""

    every_steps: int = Field(1000, ge=1)
    """Evaluate every so many steps, and after the last one."""
    data: str | None = None
    """Dataset to evaluate on, of one that is trained on its held-out part; by default the dataset of --data."""
    where: str | None = None
    """Filter on the manifest of ``data``."""
    max_clips: int = Field(1000, ge=2)
    """Evaluate on at most so many clips."""

    @model_validator(mode="after")
    def _filters_its_own(self) -> EvalSettings:
        if self.where is not None and self.data is None:
            raise ValueError("`where` filters `data`, which is not set; the run's own --where holds for its clips")
        return self


class LogSettings(Settings):
    """Where metrics are logged besides the terminal and ``log.jsonl``."""

    every_steps: int = Field(10, ge=1)
    """Log to TensorBoard and W&B every so many steps."""
    tensorboard: bool = False
    """Write TensorBoard event files to the run's folder."""
    wandb: str | None = None
    """Project of Weights & Biases to log to; a resumed run goes on in its run there."""


class TrainRecipe(Settings):
    """All settings of a training run."""

    name: str = ""
    """Name of the run; has no effect."""
    seed: int = 0
    """Seed of all randomness."""
    modalities: list[str] = Field(default_factory=list, exclude_if=lambda paths: not paths)
    """Custom modalities, each as ``package.module:NAME``."""
    text: Text
    """The text tower, and which texts of a clip it encodes."""
    towers: dict[str, TowerRecipe] = Field(min_length=1)
    """The towers by modality."""
    init_from: str | None = None
    """Training run, encoder folder or hub id whose towers and temperatures the run starts from, where it has them."""
    pairs: dict[str, PairRecipe] = Field(default_factory=dict)
    """Modality pairs to align, such as ``text-depth``; by default text with every tower. One side may be the fusion of
    several modalities, ``infrared-video+audio+text``: the mean of the unit embeddings of those that a clip has."""
    pairs_per_step: Literal["one", "all"] = "one"
    """``one``: a step trains one pair, on clips that have both of its modalities; ``all``: a step trains all pairs, on
    clips that have all of their modalities, encodes each modality once and adds up the losses."""
    loss: LossSettings = LossSettings()
    """The contrastive loss."""
    distil: DistilSettings | None = Field(None, exclude_if=lambda distil: distil is None)
    """Distillation from the stored embeddings of teachers; null: none."""
    optimiser: OptimiserSettings = OptimiserSettings()
    """AdamW, its learning rate, clipping and averaging."""
    data: Data = Data()
    """How the datasets are sampled and read."""
    batch_size: int = Field(ge=2)
    """Samples per step, over all ranks."""
    chunk_size: int | None = Field(None, ge=1)
    """Samples of a rank that are encoded at once (GradCache), to save memory; by default all of them."""
    kept_chunks: int = Field(1, ge=1)
    """Chunks, of those of ``chunk_size``, that are not encoded again for the backward pass; each takes the memory of
    one, and saves its second forward pass. Results are the same bits for any number."""
    epochs: int | None = Field(None, ge=1)
    """Length of the run; set either this or ``steps``."""
    steps: int | None = Field(None, ge=1)
    """Length of the run; set either this or ``epochs``."""
    precision: Precision = "fp32"
    """Compute in float32, in float32 with matrix products in TF32 on a GPU, or in bfloat16 by autocast."""
    float8: bool = False
    """With ``bf16``: the matrix products of trained layers in float8, by torchao; on a GPU of compute capability 8.9 or
    more, emulated on a CPU. Towers that are frozen, or train adapters, compute as without it."""
    compile: bool | None = None
    """Compile the layers of the towers with torch.compile, in the first step of a run; by default on a GPU."""
    fsdp: bool = False
    """Shard the towers over the ranks (FSDP2) instead of replicating them (DDP); for towers larger than ViT-L."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the training process; with 1, two runs are bitwise identical."""
    max_nan_steps: int = Field(3, ge=1)
    """Stop after this many consecutive steps whose loss or gradient is not finite."""
    max_broken_share: float = Field(0.5, ge=0, le=1)
    """Stop if more than this share of the last 512 samples cannot be read."""
    checkpoints: CheckpointSettings = CheckpointSettings()
    """When checkpoints are written and deleted."""
    eval: EvalSettings | None = None
    """Evaluation while the run goes on; null: none."""
    log: LogSettings = LogSettings()
    """Where metrics are logged."""

    @field_validator("towers")
    @classmethod
    def _known_modalities(cls, towers: dict[str, TowerRecipe]) -> dict[str, TowerRecipe]:
        unknown = next((name for name in towers if modalities.find(name) is None), None)
        if unknown:
            raise ValueError(f"no modality `{unknown}`; modalities: {', '.join(m.layer for m in modalities.all())}")
        return towers

    @field_validator("pairs")
    @classmethod
    def _known_pairs(cls, pairs: dict[str, PairRecipe]) -> dict[str, PairRecipe]:
        known = ["text", *(m.layer for m in modalities.all())]
        for name in pairs:
            sides = name.split("-")
            parts = name.replace("+", "-").split("-")
            is_fused_twice = sum("+" in side for side in sides) > 1
            if len(sides) != 2 or len({*parts}) < len(parts) or not set(parts) <= set(known) or is_fused_twice:
                raise ValueError(
                    f"pair `{name}`: write two of {', '.join(known)} with a - between; for one of the two, several "
                    "others may stand with + between"
                )
        return pairs

    @model_validator(mode="after")
    def _consistent(self) -> TrainRecipe:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set either `epochs` or `steps`")
        for pair in self.pair_settings():
            missing = next((side for side in modalities_of(pair) if side != "text" and side not in self.towers), None)
            if missing:
                raise ValueError(
                    f"pair `{'-'.join(pair)}` needs a tower `{missing}`; towers has {', '.join(self.towers)}"
                )
        fused = next(("-".join(pair) for pair in self.pair_settings() if "+" in pair[1]), None)
        if fused is not None and self.distil is not None:
            raise ValueError(f"distil: a teacher compares two modalities, not those of the fused pair `{fused}`")
        trains_layers = self.text.tune == "full" or any(t.tune in ("full", "attention") for t in self.towers.values())
        if self.float8 and self.precision != "bf16":
            raise ValueError("float8 needs `precision: bf16`, in which all else is computed")
        if self.float8 and self.fsdp:
            raise ValueError("float8 does not go with `fsdp`; set one of them to false")
        if self.float8 and not trains_layers:
            raise ValueError("float8 is for layers that are trained: set `tune: full` or `attention`, or float8: false")
        weighted = [settings.weight is not None for settings in self.pairs.values()]
        if any(weighted) and not all(weighted):
            raise ValueError("give every pair a weight, or none")
        if any(weighted) and self.steps is None and self.pairs_per_step == "one":
            raise ValueError("weights of pairs need `steps`: with weights an epoch has no defined length")
        strange = set(self.distil.instead) - set(self.towers) if self.distil is not None else set()
        if strange:
            raise ValueError(f"distil.instead: no tower `{min(strange)}`; towers has {', '.join(self.towers)}")
        if self.eval is not None and self.eval.data is None and not self.data.heldout:
            raise ValueError("`eval` needs clips that are not trained on: set `data.heldout`, or `eval.data`")
        # A wrong setting is refused here, not when the first sample is decoded.
        for modality, tower in self.towers.items():
            modalities.get(modality).transform.model_validate(tower.transform)
        return self

    @property
    def transforms(self) -> dict[str, dict[str, Any]]:
        """The settings of the transform of each modality."""
        return {modality: tower.transform for modality, tower in self.towers.items()}

    def pair_settings(self) -> dict[Pair, PairRecipe]:
        """Return the pairs, with text as the first side; by default text with every tower."""
        named = self.pairs or {f"text-{modality}": PairRecipe() for modality in self.towers}
        return {ordered(name): settings for name, settings in named.items()}

    def loss_weights(self) -> dict[Sides, dict[Pair, float]]:
        """Return, by the sides that a step encodes, the pairs that it trains and the factors of their losses."""
        pairs = self.pair_settings()
        if self.pairs_per_step == "one":
            return {pair: {pair: 1.0} for pair in pairs}
        # Text first, as in a pair; then by name: random numbers are drawn in this order,
        # and a resumed recipe may list its pairs in another.
        sides = sorted({side for pair in pairs for side in pair}, key=lambda side: (side != "text", side))
        weights = {pair: 1.0 if settings.weight is None else settings.weight for pair, settings in pairs.items()}
        return {tuple(sides): weights}

    def step_shares(self) -> list[float] | None:
        """Return the shares of the pairs in the steps; None if each runs for the same number of epochs."""
        # Every pair has a weight, or none.
        weights = [s.weight for s in self.pair_settings().values() if s.weight is not None]
        return weights if weights and self.pairs_per_step == "one" else None


# Settings that may change at a resume: those that affect the results by rounding at most, as another number of ranks
# does, and those that cure a divergence.
FREE_ON_RESUME = {
    "checkpoints", "log", "data.workers", "data.stall_s", "data.cache_bytes", "name", "text.cache", "compile", "fsdp",
    "kept_chunks",
    "loss.tile_rows",
    "eval.every_steps", "max_nan_steps", "max_broken_share", "distil.teachers",
    "optimiser.lr", "optimiser.min_lr", "optimiser.warmup_steps", "optimiser.schedule", "optimiser.decay_share",
}  # fmt: skip
MAY_GROW_ON_RESUME = ("steps", "epochs")


def completed(written: dict[str, Any]) -> TrainRecipe | None:
    """Return a recipe that an earlier version stored; what has come since is by default as that version did it.

    Returns None for a recipe with a setting that has gone.
    """
    try:
        return TrainRecipe.model_validate(written)
    except ValidationError:
        return None


def ordered(name: str) -> Pair:
    """Return the pair of a name, text first and a fused side last: ``depth-text`` and ``text-depth`` are the same."""
    a, b = name.split("-")
    return (b, a) if b == "text" or "+" in a else (a, b)


def load(path: str | Path, overrides: list[str]) -> TrainRecipe:
    """Read and validate a training recipe, with overrides such as ``optimiser.lr=1e-4``; raises `RecipeError`."""
    path = Path(path)
    raw = read_yaml(path, "`text`, `towers` and `batch_size`")
    for text in overrides:
        key, value = parse_override(text, _EXAMPLE)
        put(raw, key.split("."), value, text)
    return check(raw, str(path))


def check(raw: dict[str, Any], place: str) -> TrainRecipe:
    """Validate a mapping as a training recipe; raises `RecipeError` that names the first invalid setting."""
    if "stages" in raw:
        raise RecipeError(
            f"{place}: this is a recipe for `vidal build`; a training recipe has text, towers, batch_size"
        )
    # First: the towers are validated against the known modalities.
    modalities.load_all(raw.get("modalities"), place)
    recipe = validate(TrainRecipe, raw, place)
    return recipe.model_copy(update={"name": recipe.name or Path(place).stem})
