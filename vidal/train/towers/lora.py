"""LoRA adapters (Hu et al., 2021) that cost one matrix product, as the layer without them does."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor
from torch.nn import functional as F


class MergedLinear(Linear):
    """peft's adapted linear layer, which adds the adapter to the weight, and not its output to the layer's.

    The sum is made in the weight's own precision and then rounded to the type of the product, as the weights of full
    tuning are. Where that would lose it, as FSDP has gathered the weight in bfloat16, and under dropout, which is of
    the adapter's input, the outputs are added as in peft.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight, bias = self.base_layer.weight, self.base_layer.bias
        (name,) = self.active_adapters
        is_rounded = weight.dtype in (torch.bfloat16, torch.float16)
        if is_rounded or (self.training and getattr(self.lora_dropout[name], "p", 0.0) > 0) or self.disable_adapters:
            out: Tensor = super().forward(x, *args, **kwargs)
            return out
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        product: Tensor = _Product.apply(
            x.to(dtype), weight, None if bias is None else bias.to(dtype), down, up, self.scaling[name]
        )
        return product


class _Product(torch.autograd.Function):
    """``x (weight + scale up down)ᵀ + bias``, of which only x and the adapter have gradients.

    Autograd would compute the gradient of the whole weight, (out, in), to arrive at those of its two thin factors.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            merged = torch.addmm(weight, up, down, alpha=scale).to(x.dtype)
            ctx.save_for_backward(x, merged, down, up)
            ctx.scale = scale
            return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, merged, down, up = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            rows, out = x.flatten(0, -2), gradient.flatten(0, -2)
            inner = out @ (up * ctx.scale).to(out.dtype)
            of_down = inner.T @ rows
            of_up = (out.T @ (rows @ down.to(rows.dtype).T)) * ctx.scale
            of_x = (out @ merged).reshape(x.shape)
        return of_x, None, None, of_down.to(down.dtype), of_up.to(up.dtype), None
