"""`VisionTower`: a ViT (Dosovitskiy et al., 2021) with optional attention across frames.

Parameter names are those of transformers' CLIPVisionModel and of LanguageBind's temporal layers.
Shapes: b clips, t frames, n tokens of a frame (class token first), d width, k patches kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vidal.errors import RecipeError
from vidal.train.towers.settings import LoraSettings, StackSizes, Tune, VisionSettings

# The y and z dimensions of a CUDA grid are at most 65535.
_MAX_CUDA_BATCH = 65535


def wide(x: Tensor) -> Tensor:
    """Return a tensor in at least float32.

    FSDP may gather parameters in bfloat16, and the residual stream is not to be rounded.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


class WideLayerNorm(nn.LayerNorm):
    """Layer normalisation in at least float32."""

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(wide(input), self.normalized_shape, wide(self.weight), wide(self.bias), self.eps)


class Attention(nn.Module):
    """Multi-head self-attention on (b, n, d), with torch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # In transformers' order, in which initial weights are drawn, too: another one would change them for each seed.
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, frames: int | None = None) -> Tensor:
        """Attend within each of the b rows or, with ``frames``, across the frames of (b t, n, d), place by place."""
        if torch.is_autocast_enabled(x.device.type):
            # Autocast would cast the norm's float32 in each of the three projections, and for each of their adapters.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        # Across frames, each head of each place is a head of the clip: a view, where a row for each place is a copy.
        rows = (*x.shape[:2], self.heads) if frames is None else (-1, frames, x.shape[1] * self.heads)
        q, k, v = (
            project(x).reshape(*rows, x.shape[2] // self.heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if mask is None and q.is_cuda and q.shape[0] > _MAX_CUDA_BATCH:
            parts = zip(*(torch.split(tensor, _MAX_CUDA_BATCH) for tensor in (q, k, v)), strict=True)
            attended = torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
        else:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(attended.transpose(1, 2).reshape(x.shape))
        return out


class Mlp(nn.Module):
    """Two linear layers with CLIP's activation between them."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.is_quick = activation == "quick_gelu"

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        # OpenAI trained CLIP with this approximation of GELU; the exact one would shift every published embedding.
        out: Tensor = self.fc2(h * torch.sigmoid(1.702 * h) if self.is_quick else F.gelu(h))
        return out


class Layer(nn.Module):
    """Pre-norm residual blocks: attention across frames (with ``frames``), attention within frames, and an MLP.

    The input and output are (b t, n, d); the temporal block follows LanguageBind (Zhu et al., 2023).
    """

    def __init__(self, s: StackSizes, frames: int | None = None) -> None:
        super().__init__()
        width, eps = s.hidden_size, s.layer_norm_eps
        self.self_attn = Attention(width, s.heads)
        self.layer_norm1 = WideLayerNorm(width, eps=eps)
        self.mlp = Mlp(width, s.mlp_size, s.activation)
        self.layer_norm2 = WideLayerNorm(width, eps=eps)
        self.frames = frames
        if frames is not None:
            self.temporal_embedding = nn.Parameter(torch.zeros(1, frames, width))
            self.temporal_attn = Attention(width, s.heads)
            self.temporal_layer_norm1 = WideLayerNorm(width, eps=eps)

    def forward(self, x: Tensor, frames: int = 1, mask: Tensor | None = None) -> Tensor:
        if self.frames is not None:
            if self.frames != 1:
                # LanguageBind adds it before the norm, so it stays in the residual stream.
                x = (x.view(-1, frames, *x.shape[1:]) + self.temporal_embedding[:, :frames, None]).flatten(0, 1)
            x = x + self.temporal_attn(self.temporal_layer_norm1(x), frames=frames)
        x = x + self.self_attn(self.layer_norm1(x), mask)
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class Layers(nn.Module):
    """A stack of layers, under transformers' name ``encoder.layers``, with optional gradient checkpointing."""

    def __init__(self, layers: list[Layer], *, checkpointing: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, frames: int = 1, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            # In evaluation there is no backward pass to recompute for.
            if self.checkpointing and self.training:
                x = checkpoint(layer, x, frames, mask, use_reentrant=False)
            else:
                x = layer(x, frames, mask)
        return x


class PatchEmbedding(nn.Module):
    """The patch convolution (stride = kernel size), computed as one matrix product over the kept patches."""

    def __init__(self, s: VisionSettings) -> None:
        super().__init__()
        # LanguageBind's video v1.5 stores the kernel of a 3-D convolution, of length 1 in time.
        tap = (1,) if s.class_embedding_per_frame else ()
        self.size = s.patch_size
        self.grid = s.grid
        self.weight = nn.Parameter(torch.empty(s.hidden_size, s.channels, *tap, s.patch_size, s.patch_size))
        self.bias = nn.Parameter(torch.zeros(s.hidden_size)) if s.patch_bias else None

    def forward(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        """Return (b, t, k, d) of pixels (b, c, t, h, w) and the indices (b, k) of the patches to keep (None: all)."""
        (rows, columns), p = self.grid, self.size
        b, c, t = pixels.shape[:3]
        x = pixels[..., : rows * p, : columns * p].reshape(b, c, t, rows, p, columns, p)
        x = x.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, t, rows * columns, c * p * p)
        if keep is not None:
            x = x.gather(2, keep[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        return F.linear(x, self.weight.flatten(1), self.bias)


class VisionEmbeddings(nn.Module):
    """Pixels (b, c, t, h, w) to tokens (b t, 1 + k, d): class token and patches, with position embeddings."""

    def __init__(self, s: VisionSettings) -> None:
        super().__init__()
        width = (s.frames, s.hidden_size) if s.class_embedding_per_frame else (s.hidden_size,)
        self.class_embedding = nn.Parameter(torch.empty(*width))
        self.patch_embedding = PatchEmbedding(s)
        self.position_embedding = nn.Embedding(s.patches + 1, s.hidden_size)

    def forward(self, pixels: Tensor, keep: Tensor | None) -> Tensor:
        b, t = pixels.shape[0], pixels.shape[2]
        patches = self.patch_embedding(pixels, keep)
        positions = wide(self.position_embedding.weight)
        patch_positions = positions[1:] if keep is None else F.embedding(keep + 1, positions)[:, None]
        class_token = self.class_embedding if self.class_embedding.dim() == 1 else self.class_embedding[:t, None]
        class_token = (class_token + positions[0]).expand(b, t, 1, -1)
        return torch.cat([class_token, patches + patch_positions], dim=2).flatten(0, 1)


class VisionTower(nn.Module):
    """Pixel values (b, c, h, w) or (b, c, t, h, w) to embeddings (b, projection_dim), in float32, not normalised.

    A clip's embedding is the mean over its frames. `forward` is deterministic except for LoRA's dropout: the caller
    draws the patches to keep with `draw_keep` and passes them in, so that a recomputed pass, or another number of
    ranks, sees the same ones.
    """

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.adapters: LoraSettings | None = None
        """Settings of the LoRA adapters, if the tower has any."""
        self.tune: Tune = "full"
        """Which parameters are trained; set by `vidal.train.towers.tune.tune`."""
        self.drawn: list[str] = []
        """Tensors that the initial weights lack, and that are randomly initialised."""
        self.embeddings = VisionEmbeddings(s)
        self.pre_layrnorm = WideLayerNorm(s.hidden_size, eps=s.layer_norm_eps) if s.pre_norm else nn.Identity()
        frames = s.frames if s.temporal else None
        self.encoder = Layers([Layer(s, frames) for _ in range(s.layers)], checkpointing=s.gradient_checkpointing)
        self.post_layernorm = WideLayerNorm(s.hidden_size, eps=s.layer_norm_eps)
        self.visual_projection = nn.Linear(s.hidden_size, s.projection_dim, bias=False)
        self.reset_parameters()

    def forward(self, pixel_values: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encode pixel values; raises `RecipeError` for a shape that the tower was not built for."""
        s = self.settings
        x = pixel_values if pixel_values.dim() == 5 else pixel_values.unsqueeze(2)
        t, (height, width) = x.shape[2], s.height_width
        if tuple(x.shape[1:2] + x.shape[3:]) != (s.channels, height, width):
            expected = f"(b, {s.channels}, {height}, {width}) or (b, {s.channels}, t, {height}, {width})"
            raise RecipeError(f"pixel values of shape {tuple(x.shape)}: this tower takes {expected}")
        if (s.temporal or s.class_embedding_per_frame) and t > s.frames:
            raise RecipeError(f"a clip of {t} frames: this tower takes at most {s.frames}")
        x = self.encoder(self.pre_layrnorm(self.embeddings(x, keep)), t)
        pooled = self.post_layernorm(x[:, 0]).reshape(-1, t, s.hidden_size).mean(1)
        return wide(self.visual_projection(pooled))

    def draw_keep(self, batch: int, device: torch.device | str, generator: torch.Generator | None) -> Tensor | None:
        """Draw the indices (batch, k) int64 of the patches to keep, the same for all frames of a clip.

        Returns None, for all patches, outside training or without ``patch_dropout``.
        """
        s = self.settings
        if not self.training or s.patch_dropout == 0:
            return None
        # Attention across frames pairs the patches of one place, so a clip has one draw. It is made on the tower's
        # device: open_clip and LanguageBind draw on the CPU, and copy in every step.
        scores = torch.rand(batch, s.patches, device=device, generator=generator)
        return scores.topk(s.patches_kept, dim=1, sorted=False).indices

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise all parameters as CLIP does, from torch's global generator."""
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
        """Initialise the temporal attention of each layer from its spatial attention, as ``temporal_init`` says."""
        for layer in self.encoder.layers:
            assert isinstance(layer, Layer)
            layer.temporal_attn.load_state_dict(layer.self_attn.state_dict())
            layer.temporal_layer_norm1.load_state_dict(layer.layer_norm1.state_dict())
            if self.settings.temporal_init == "copy":
                nn.init.normal_(layer.temporal_embedding, std=self.settings.hidden_size**-0.5)
            else:
                # The embedding is part of the residual stream, so it must start at zero as well.
                for tensor in (layer.temporal_embedding, *layer.temporal_attn.out_proj.parameters()):
                    nn.init.zeros_(tensor)


@torch.no_grad()
def initialise(layers: Layers, width: int) -> None:
    """Initialise a stack of layers as CLIP does: the residual branches are scaled down with its depth."""
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
