"""Inference of sRGB-TIR, the MUNIT generator that translates colour frames into synthetic thermal infrared.

    g = load_srgb_tir(Path("translation_weights.pt"))
    infrared = g.translate(rgb, g.style(0))          # both (b, 3, h, w) in [-1, 1]

A weights file holds two autoencoders, `a` for thermal and `b` for colour. Colour to thermal is b's content encoder
followed by a's decoder, whose normalisation a style vector modulates. Module names follow the published state dict.
Shape letters: b batch, c channels, h and w pixels, s style_dim.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

Norm = Literal["none", "instance", "layer", "adaptive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SrgbTirConfig:
    """Sizes of the generator; the defaults are the published ones."""

    dim: int = 64
    mlp_dim: int = 256
    style_dim: int = 8
    n_downsample: int = 2
    n_res: int = 4
    channels: int = 3

    @classmethod
    def read(cls, path: Path) -> "SrgbTirConfig":
        """Read a JSON file with the sizes under "gen", as in the published configuration; raises `ValueError`."""
        sizes = json.loads(path.read_text())["gen"]
        for name, only in (("activ", "relu"), ("pad_type", "reflect")):
            if sizes.get(name, only) != only:
                raise ValueError(f"{path}: {name} {sizes[name]!r} is not supported, only {only!r}")
        names = ("dim", "mlp_dim", "style_dim", "n_downsample", "n_res")
        return cls(**{name: sizes[name] for name in names if name in sizes})


class LayerNorm(nn.Module):
    """MUNIT's layer norm: over all of an image, divided by (unbiased deviation + eps), not by sqrt(variance + eps)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        deviation = x.flatten(1).std(1).view(-1, 1, 1, 1)
        return (x - mean) / (deviation + 1e-5) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


class AdaptiveNorm(nn.Module):
    """Instance normalisation whose scale and shift (b, c) are set from a style before each pass.

    The published files hold running statistics, which are never used: those of the image are.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.channels = channels
        self.shift: Tensor | None = None
        self.scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.scale is not None and self.shift is not None, "set a style first"
        return F.instance_norm(x) * self.scale[:, :, None, None] + self.shift[:, :, None, None]


class ConvBlock(nn.Module):
    """Reflection padding, convolution, normalisation, activation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int, norm: Norm, active: bool = True
    ) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)
        kinds = {"none": nn.Identity, "instance": nn.InstanceNorm2d, "layer": LayerNorm, "adaptive": AdaptiveNorm}
        self.norm = kinds[norm](outputs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.pad(x, (self.padding,) * 4, mode="reflect")))
        return x.relu() if self.active else x


class Chain(nn.Module):
    """A sequence under the attribute `model`, as the published state dict nests it."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


class Residual(Chain):
    """Two 3x3 blocks with a skip connection."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__(
            ConvBlock(channels, channels, 3, padding=1, norm=norm),
            ConvBlock(channels, channels, 3, padding=1, norm=norm, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Dense(nn.Module):
    """A linear layer under the attribute `fc`, with an optional ReLU."""

    def __init__(self, inputs: int, outputs: int, *, active: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        return x.relu() if self.active else x


class SrgbTir(nn.Module):
    """Translates colour to thermal: content encoder of domain b, decoder of domain a, and the style MLP of a."""

    def __init__(self, config: SrgbTirConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.dim * 2**i for i in range(config.n_downsample + 1)]
        down = [ConvBlock(narrow, wide, 4, stride=2, padding=1, norm="instance") for narrow, wide in pairwise(widths)]
        residuals = Chain(*(Residual(widths[-1], "instance") for _ in range(config.n_res)))
        first = ConvBlock(config.channels, config.dim, 7, padding=3, norm="instance")
        self.enc_content = Chain(first, *down, residuals)
        up: list[nn.Module] = [Chain(*(Residual(widths[-1], "adaptive") for _ in range(config.n_res)))]
        for wide, narrow in pairwise(reversed(widths)):
            up += [nn.Upsample(scale_factor=2), ConvBlock(wide, narrow, 5, padding=2, norm="layer")]
        self.dec = Chain(*up, ConvBlock(config.dim, config.channels, 7, padding=3, norm="none", active=False))
        self._adaptive = [m for m in self.dec.modules() if isinstance(m, AdaptiveNorm)]
        steered = 2 * sum(norm.channels for norm in self._adaptive)
        self.mlp = Chain(
            Dense(config.style_dim, config.mlp_dim),
            Dense(config.mlp_dim, config.mlp_dim),
            Dense(config.mlp_dim, steered, active=False),
        )

    def style(self, seed: int) -> Tensor:
        """Draw a style (1, s), the same for the same seed; one style for all frames keeps neighbours consistent."""
        return torch.randn(1, self.config.style_dim, generator=torch.Generator().manual_seed(seed))

    def encode_content(self, rgb: Tensor) -> Tensor:
        """Encode (b, 3, h, w) in [-1, 1] to content (b, c, h / 4, w / 4) for the published sizes."""
        content: Tensor = self.enc_content(rgb)
        return content

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Decode content and a style (1, s) or (b, s) to infrared (b, 3, h, w) in [-1, 1]."""
        steering = self.mlp(style.flatten(1).expand(len(content), -1))
        used = 0
        for norm in self._adaptive:
            # Shift before scale is the order in which MUNIT assigns them.
            norm.shift = steering[:, used : used + norm.channels]
            norm.scale = steering[:, used + norm.channels : used + 2 * norm.channels]
            used += 2 * norm.channels
        infrared: Tensor = self.dec(content)
        return infrared.tanh()

    @torch.inference_mode()
    def translate(self, rgb: Tensor, style: Tensor) -> Tensor:
        """Translate rgb (b, 3, h, w) to infrared of the same shape, both in [-1, 1]; h and w at least 8 pixels."""
        h, w = rgb.shape[-2:]
        # Each downsampling halves the sides, and the decoder doubles them again.
        stride = 1 << self.config.n_downsample
        padded = F.pad(rgb, (0, -w % stride, 0, -h % stride), mode="reflect")
        return self.decode(self.encode_content(padded), style)[..., :h, :w]


def load_srgb_tir(weights: Path | str, config: SrgbTirConfig | Path | str | None = None) -> SrgbTir:
    """Load a `{"a": ..., "b": ...}` file or a .safetensors with `a.` and `b.` keys, in float32, for inference.

    Without ``config``, the sizes come from a config.json beside the weights, else they are the published ones. Raises
    `RuntimeError` for missing, surplus or misshapen weights.
    """
    weights = Path(weights)
    beside = weights.with_name("config.json")
    if config is None and beside.exists():
        config = beside
    if isinstance(config, str | Path):
        config = SrgbTirConfig.read(Path(config))
    g = SrgbTir(config or SrgbTirConfig())
    if weights.suffix == ".safetensors":
        flat = load_file(weights)
    else:
        # weights_only: a published pickle is a stranger's, and would otherwise run what it holds.
        autoencoders: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
        flat = {f"{domain}.{name}": tensor for domain in "ab" for name, tensor in autoencoders[domain].items()}
    # Style encoders and the thermal-to-colour direction are unused; load_state_dict reports any other mismatch.
    used = ("a.dec.", "a.mlp.", "b.enc_content.")
    g.load_state_dict({name[2:]: tensor.float() for name, tensor in flat.items() if name.startswith(used)})
    return g.eval().requires_grad_(False)
