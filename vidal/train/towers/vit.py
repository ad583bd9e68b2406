"""`VisionTower`: a ViT with the parameter names of transformers' CLIPVisionModel and LanguageBind's temporal ones.

Shapes: b clips, t frames, n tokens of a frame (class token first), d width, k patches kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vidal.errors import RecipeError
from vidal.train.towers.settings import LoraSettings, StackSizes, Tune, VisionSettings

_MAX_CUDA_BATCH = 65535  # a CUDA grid has no more rows, and attention across frames has a row for every patch


class Attention(nn.Module):
    """Multi-head self-attention through torch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        out: Tensor = self.out_proj(_attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None and q.is_cuda and q.shape[0] > _MAX_CUDA_BATCH:
        parts = zip(*(torch.split(x, _MAX_CUDA_BATCH) for x in (q, k, v)), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Mlp(nn.Module):
    """Two linear layers with CLIP's activation between them."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.is_quick = activation == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        out: Tensor = self.fc2(h * torch.sigmoid(1.702 * h) if self.is_quick else F.gelu(h))
        return out


class Layer(nn.Module):
    """Attention across frames (if ``frames``), attention within a frame, MLP; each behind its norm, on a residual."""

    def __init__(self, s: StackSizes, frames: int | None = None) -> None:
        super().__init__()
        width, eps = s.hidden_size, s.layer_norm_eps
        self.self_attn = Attention(width, s.heads)
        self.layer_norm1 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, s.mlp_size, s.activation)
        self.layer_norm2 = nn.LayerNorm(width, eps=eps)
        self.frames = frames
        if frames is not None:
            self.temporal_embedding = nn.Parameter(torch.zeros(1, frames, width))
            self.temporal_attn = Attention(width, s.heads)
            self.temporal_layer_norm1 = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, frames: int = 1, mask: Tensor | None = None) -> Tensor:
        if self.frames is not None:
            x = self._across_frames(x, frames)
        x = x + self.self_attn(self.layer_norm1(x), mask)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out

    def _across_frames(self, x: Tensor, t: int) -> Tensor:
        bt, n, d = x.shape
        x = x.reshape(bt // t, t, n, d).transpose(1, 2)  # (b, n, t, d)
        if self.frames != 1:
            # It stays in the residual stream: LanguageBind adds it before the norm, not inside the branch.
            x = x + self.temporal_embedding[:, :t]
        y = self.temporal_attn(self.temporal_layer_norm1(x).flatten(0, 1))
        x = x + y.reshape(x.shape)
        return x.transpose(1, 2).flatten(0, 1)


class Layers(nn.Module):
    """The stack of layers, under transformers' name ``encoder.layers``."""

    def __init__(self, layers: list[Layer], *, checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, frames: int = 1, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            if self.checkpointing and self.training:
                x = checkpoint(layer, x, frames, mask, use_reentrant=False)
            else:
                x = layer(x, frames, mask)
        return x


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, as one matrix product over the patches that are kept.

    LanguageBind's v1.5 stores it with a time axis of one tap.
    """

    def __init__(self, s: VisionSettings) -> None:
        super().__init__()
        tap = (1,) if s.class_embedding_per_frame else ()
        self.size = s.patch_size
        self.grid = s.grid
        self.weight = nn.Parameter(torch.empty(s.hidden_size, s.channels, *tap, s.patch_size, s.patch_size))
        self.bias = nn.Parameter(torch.zeros(s.hidden_size)) if s.patch_bias else None

    def forward(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        """(b, c, t, h, w) and the patches' numbers (b, k) -> (b, t, k, d)."""
        (rows, columns), p = self.grid, self.size
        b, c, t = pixels.shape[:3]
        x = pixels[..., : rows * p, : columns * p].reshape(b, c, t, rows, p, columns, p)
        x = x.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, t, rows * columns, c * p * p)
        if keep is not None:
            x = x.gather(2, keep[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        return F.linear(x, self.weight.flatten(1), self.bias)


class VisionEmbeddings(nn.Module):
    """Pixels to tokens: class token, patches, positions."""

    def __init__(self, s: VisionSettings) -> None:
        super().__init__()
        width = (s.frames, s.hidden_size) if s.class_embedding_per_frame else (s.hidden_size,)
        self.class_embedding = nn.Parameter(torch.empty(*width))
        self.patch_embedding = PatchEmbedding(s)
        self.position_embedding = nn.Embedding(s.patches + 1, s.hidden_size)

    def forward(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        b, t = pixels.shape[0], pixels.shape[2]
        patches = self.patch_embedding(pixels, keep)
        positions = self.position_embedding.weight
        at = positions[1:] if keep is None else F.embedding(keep + 1, positions)[:, None]
        first = self.class_embedding if self.class_embedding.dim() == 1 else self.class_embedding[:t, None]
        first = (first + positions[0]).expand(b, t, 1, -1)
        return torch.cat([first, patches + at], dim=2).flatten(0, 1)


class VisionTower(nn.Module):
    """Pixel values (b, c, h, w) or (b, c, t, h, w) to embeddings (b, projection_dim), in float32, not normalised.

    Nothing in `forward` is random but LoRA's dropout: the caller draws the patches to keep (`draw_keep`) and hands
    them in, so that a recomputed pass, or another number of ranks, sees the same ones.
    """

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.adapters: LoraSettings | None = None
        """Set while the tower carries LoRA adapters."""
        self.tune: Tune = "full"
        self.drawn: list[str] = []
        """Tensors that what it started from lacks, and that are learnt anew."""
        """What of it is trained; `lora.tune` sets it."""
        self.embeddings = VisionEmbeddings(s)
        self.pre_layrnorm = nn.LayerNorm(s.hidden_size, eps=s.layer_norm_eps) if s.pre_norm else nn.Identity()
        frames = s.frames if s.temporal else None
        self.encoder = Layers([Layer(s, frames) for _ in range(s.layers)], checkpointing=s.gradient_checkpointing)
        self.post_layernorm = nn.LayerNorm(s.hidden_size, eps=s.layer_norm_eps)
        self.visual_projection = nn.Linear(s.hidden_size, s.projection_dim, bias=False)
        self.reset_parameters()

    def forward(self, pixel_values: Tensor, keep: Tensor | None = None) -> Tensor:
        x = pixel_values if pixel_values.dim() == 5 else pixel_values.unsqueeze(2)
        self._check(x)
        t = x.shape[2]
        x = self.pre_layrnorm(self.embeddings(x, keep))
        x = self.encoder(x, t)
        pooled = self.post_layernorm(x[:, 0]).reshape(-1, t, self.settings.hidden_size).mean(1)
        embedding: Tensor = self.visual_projection(pooled)
        return embedding.float() if embedding.dtype in (torch.bfloat16, torch.float16) else embedding

    def draw_keep(self, batch: int, device: torch.device | str, generator: torch.Generator | None) -> Tensor | None:
        """Numbers (batch, k) of the patches that a training step looks at, one choice for all frames of a clip."""
        s = self.settings
        if not self.training or s.patch_dropout == 0:
            return None
        scores = torch.rand(batch, s.patches, device=device, generator=generator)
        return scores.topk(s.patches_kept, dim=1, sorted=False).indices

    def _check(self, x: Tensor) -> None:
        s = self.settings
        height, width = s.height_width
        if tuple(x.shape[1:2] + x.shape[3:]) != (s.channels, height, width):
            want = f"(b, {s.channels}, {height}, {width}) or (b, {s.channels}, t, {height}, {width})"
            raise RecipeError(f"pixel values of shape {tuple(x.shape)}: this tower takes {want}")
        if (s.temporal or s.class_embedding_per_frame) and x.shape[2] > s.frames:
            raise RecipeError(f"a clip of {x.shape[2]} frames: this tower was built for {s.frames} at most")

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initial values, drawn from torch's global generator."""
        s, width = self.settings, self.settings.hidden_size
        nn.init.normal_(self.embeddings.class_embedding, std=width**-0.5)
        nn.init.normal_(self.embeddings.patch_embedding.weight, std=0.02)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)
        initialise(self.encoder, width)
        nn.init.normal_(self.visual_projection.weight, std=width**-0.5)
        if s.temporal:
            self.start_temporal()

    @torch.no_grad()
    def start_temporal(self) -> None:
        """The first values of the attention across frames, from the spatial one beside it."""
        for layer in self.encoder.layers:
            assert isinstance(layer, Layer)
            layer.temporal_attn.load_state_dict(layer.self_attn.state_dict())
            layer.temporal_layer_norm1.load_state_dict(layer.layer_norm1.state_dict())
            if self.settings.temporal_init == "copy":
                nn.init.normal_(layer.temporal_embedding, std=self.settings.hidden_size**-0.5)
            else:
                # The embedding lies in the residual stream, so it too starts at zero.
                for tensor in (layer.temporal_embedding, *layer.temporal_attn.out_proj.parameters()):
                    nn.init.zeros_(tensor)


@torch.no_grad()
def initialise(layers: Layers, width: int) -> None:
    """CLIP's initial values of a stack: residual branches shrink with its depth."""
    deep = width**-0.5 * (2 * len(layers.layers)) ** -0.5
    for name, parameter in layers.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "fc1" in name:
            nn.init.normal_(parameter, std=(2 * width) ** -0.5)
        elif "out_proj" in name:
            nn.init.normal_(parameter, std=width**-0.5)
        elif "_proj" in name or "fc2" in name:
            nn.init.normal_(parameter, std=deep)
