"""Linear layers on a CPU whose weights are held in 16 bits, where that loses nothing of them."""

from __future__ import annotations

import torch


def halve_exact_weights(model: torch.nn.Module) -> None:
    """Hold the weights of a float32 model's linear layers in float16, where all weights of a layer are float16 numbers.

    Weights that were published in blocks of four bits are, and most in bfloat16. Products and sums stay float32: the
    output is the same but for the order of the sums, and a step that is bound by reading the weights, as each token of
    a language model is, takes half the time. Where PyTorch has no such product, nothing changes.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            # Exactly this class, as a subclass may compute something else.
            if type(layer) is torch.nn.Linear and bool((layer.weight.half() == layer.weight).all()):
                setattr(parent, name, HalfLinear(layer))


class HalfLinear(torch.nn.Module):
    """The product of a linear layer, from float32 ``(…, in)`` to float32 ``(…, out)``, for inference alone."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self._packed = torch.ops.quantized.linear_prepack_fp16(layer.weight, layer.bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(values, self._packed)  # type: ignore[no-any-return]
