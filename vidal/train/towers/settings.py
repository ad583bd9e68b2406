"""Settings of the towers, free of torch so that a recipe is checked at once."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tune = Literal["lora", "attention", "full", "frozen"]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """A group of settings; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class StackSizes(Settings):
    """The sizes of a stack of transformer layers."""

    hidden_size: Positive
    layers: Positive
    heads: Positive
    intermediate_size: Positive | None = None
    """Width of the MLPs; four times ``hidden_size`` by default."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    layer_norm_eps: float = Field(1e-5, gt=0)

    @property
    def mlp_size(self) -> int:
        return self.intermediate_size or 4 * self.hidden_size

    @model_validator(mode="after")
    def _heads_fit(self) -> StackSizes:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class VisionOptions(Settings):
    """What a ViT of any size may be told: what it does across frames, and what saves compute in training."""

    frames: Positive = 1
    temporal: bool = False
    """Attention across frames before the spatial one in every layer."""
    temporal_init: Literal["copy", "identity"] = "copy"
    """copy: weights of the spatial attention, as LanguageBind; identity: step 0 is the base model."""
    class_embedding_per_frame: bool = False
    """LanguageBind's video v1.5."""
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the patches that a training step leaves out."""
    gradient_checkpointing: bool = False


class Projection(Settings):
    """The joint space that a tower's embedding is projected to."""

    projection_dim: Positive = 512


class ClipTextSettings(Projection, StackSizes):
    """A CLIP text tower."""

    vocabulary: Positive
    max_tokens: Positive = 77


class Sizes(StackSizes):
    """The sizes of a ViT."""

    patch_size: Positive
    image_size: Positive | tuple[Positive, Positive] = 224
    """Height and width of the input; for audio mel bins and frames."""
    channels: Positive = 3
    pre_norm: bool = True
    """A norm before the first layer, as CLIP has; timm's ViTs have none."""
    patch_bias: bool = False

    @model_validator(mode="after")
    def _grid_fits(self) -> Sizes:
        if min(self.grid) < 1:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches per column and per row."""
        height, width = self.height_width
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]


class VisionSettings(VisionOptions, Projection, Sizes):
    """A built tower: its ViT, its projection, what it does across frames, and how it is trained."""

    @property
    def patches_kept(self) -> int:
        """Patches of a frame that a training step looks at."""
        return max(1, int(self.patches * (1 - self.patch_dropout)))


class LoraSettings(Settings):
    """Low-rank adapters beside the attention's four projections."""

    rank: Positive = 16
    alpha: Positive = 16
    dropout: float = Field(0.0, ge=0, lt=1)


class TowerStart(Settings):
    """What a tower starts from, and what of it is trained."""

    model: str | None = None
    """A CLIP folder or hub id, or ``timm:NAME``."""
    sizes: Sizes | None = None
    """A new ViT of these sizes, in place of ``model``."""
    pretrained: bool = False
    """For ``timm:NAME``: fetch its weights, rather than draw them."""
    tune: Tune = "full"
    lora: LoraSettings = LoraSettings()
    image_size: Positive | tuple[Positive, Positive] | None = None
    """Of the input, where it is not the model's own: its position table is then resized."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.model is None) == (self.sizes is None):
            raise ValueError("name either `model` or `sizes`")
        return self


class TowerSettings(VisionOptions, TowerStart):
    """One modality's tower in a recipe."""
