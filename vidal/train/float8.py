"""float8: the matrix products of trained layers in eight bits, by torchao's conversion (Micikevicius et al., 2022).

Weights stay what they are, float32 parameters under the same names; they, the layers' inputs and the gradients of their
outputs are rounded in every product, each tensor scaled by its largest value. On a CPU torchao emulates it: the same
roundings, and no gain.
"""

from __future__ import annotations

import torch
from torch import nn

from vidal import extras
from vidal.errors import MachineError, RecipeError
from vidal.train.recipe import TrainRecipe

_LEAST_CAPABILITY = (8, 9)
# The kernels take no others.
_MULTIPLE = 16


def check(recipe: TrainRecipe, device: torch.device) -> None:
    """Raise `UserError` without torchao, `MachineError` for a GPU that cannot compute in float8."""
    if not recipe.float8:
        return
    extras.require({"float8: true": ["torchao"]})
    if device.type == "cuda" and (found := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
        needed, has = (".".join(map(str, version)) for version in (_LEAST_CAPABILITY, found))
        raise MachineError(
            f"float8 needs a GPU of compute capability {needed}, as of Ada and Hopper; "
            f"{torch.cuda.get_device_name(device)} has {has}: set float8: false"
        )


def convert(name: str, layers: nn.ModuleList, device: torch.device) -> None:
    """Convert the trained linear layers of a tower in place; raises `RecipeError` if they fit no kernel."""
    linear = {path: m for path, m in layers.named_modules() if isinstance(m, nn.Linear)}
    # Of a frozen weight torchao would compute the gradient too, which costs more than eight bits save.
    trained = {path for path, module in linear.items() if module.weight.requires_grad and ".lora_" not in path}
    fitting = {p for p in trained if not (linear[p].in_features % _MULTIPLE or linear[p].out_features % _MULTIPLE)}
    if trained and not fitting:
        raise RecipeError(f"float8: no layer of the {name} tower has widths that are multiples of {_MULTIPLE}")
    if not fitting:
        return
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # A chunk has any number of rows, over which the products of the weights' gradients sum.
    config = Float8LinearConfig(emulate=device.type == "cpu", pad_inner_dim=True)
    convert_to_float8_training(layers, config=config, module_filter_fn=lambda module, path: path in fitting)
