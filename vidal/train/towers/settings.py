"""Settings of the towers; free of torch, so that a recipe is validated without importing it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tune = Literal["lora", "attention", "full", "frozen"]
TextTune = Literal["frozen", "lora", "full"]
Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """A group of settings; unknown keys are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class StackSizes(Settings):
    """The sizes of a stack of transformer layers."""

    hidden_size: Positive
    """Width d of the token embeddings; a multiple of ``heads``."""
    layers: Positive
    """Number of layers."""
    heads: Positive
    """Attention heads of each layer."""
    intermediate_size: Positive | None = None
    """Hidden width of the MLPs; four times ``hidden_size`` by default."""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """Activation of the MLPs; ``quick_gelu`` is the one of OpenAI's CLIP weights."""
    layer_norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of every layer norm."""

    @property
    def mlp_size(self) -> int:
        """Hidden width of the MLPs, with the default resolved."""
        return self.intermediate_size or 4 * self.hidden_size

    @model_validator(mode="after")
    def _heads_fit(self) -> StackSizes:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class VisionOptions(Settings):
    """Options of a ViT that do not depend on its sizes: temporal modelling, and savings of compute and memory."""

    frames: Positive = 1
    """Frames of a clip; more than one makes the input (b, c, t, h, w)."""
    temporal: bool = False
    """Add attention across frames before the spatial attention of every layer."""
    temporal_init: Literal["copy", "identity"] = "copy"
    """``copy`` starts the temporal attention from the spatial weights, as LanguageBind does; with ``identity`` it
    outputs zero at step 0, so that training starts from the base model."""
    class_embedding_per_frame: bool = False
    """Learn one class embedding per frame, as LanguageBind's video model v1.5 does."""
    patch_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the patches that each training step drops (Li et al., 2023, FLIP)."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each layer in the backward pass, to save memory."""


class Projection(Settings):
    """The projection of a tower's output to the joint space."""

    projection_dim: Positive = 512
    """Dimension d of the joint space."""


class ClipTextSettings(Projection, StackSizes):
    """Settings of a CLIP text tower."""

    vocabulary: Positive
    """Number of tokens in the vocabulary; the last one marks the end of text."""
    max_tokens: Positive = 77
    """Maximum length of a text in tokens."""


class Sizes(StackSizes):
    """The sizes of a ViT."""

    patch_size: Positive
    """Side of a square patch, in pixels."""
    image_size: Positive | tuple[Positive, Positive] = 224
    """Side, or height and width, of the input in pixels; for audio, mel bins and spectrogram frames."""
    channels: Positive = 3
    """Channels of the input."""
    pre_norm: bool = True
    """Apply a layer norm before the first layer, as CLIP does; timm's ViTs do not."""
    patch_bias: bool = False
    """Add a bias to the patch embedding, as timm's ViTs do."""

    @model_validator(mode="after")
    def _grid_fits(self) -> Sizes:
        if min(self.grid) < 1:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        return self

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.height_width
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of one frame."""
        return self.grid[0] * self.grid[1]


class VisionSettings(VisionOptions, Projection, Sizes):
    """All settings of a built tower: sizes, projection and options."""

    @property
    def patches_kept(self) -> int:
        """Patches of one frame that a training step keeps, at least one."""
        # open_clip's rounding, so that the same share drops the same number.
        return max(1, int(self.patches * (1 - self.patch_dropout)))


class LoraSettings(Settings):
    """Low-rank adapters on the four projections of the attention (Hu et al., 2021)."""

    rank: Positive = 16
    """Rank r of the adapters."""
    alpha: Positive = 16
    """The adapters' output is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input."""


class TowerStart(Settings):
    """How a tower is initialised, and which of its parameters are trained."""

    model: str | None = None
    """Folder or hub id of a CLIP or LanguageBind model, or ``timm:NAME``."""
    sizes: Sizes | None = None
    """Sizes of a new, randomly initialised ViT, instead of ``model``."""
    pretrained: bool = False
    """For ``timm:NAME``: download its pretrained weights instead of initialising it randomly."""
    tune: Tune = "full"
    """Parameters to train: LoRA adapters, the attention, all, or none."""
    lora: LoraSettings = LoraSettings()
    """Settings of the adapters; used only with ``tune: lora``."""
    image_size: Positive | tuple[Positive, Positive] | None = None
    """Input size, if it differs from the model's; the position embeddings are then interpolated."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.model is None) == (self.sizes is None):
            raise ValueError("set either `model` or `sizes`")
        return self


class TowerSettings(VisionOptions, TowerStart):
    """The tower of one modality in a training recipe."""
