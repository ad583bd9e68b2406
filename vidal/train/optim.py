"""The optimiser: parameter groups, learning-rate schedule, gradient clipping, weight averaging."""

from __future__ import annotations

import difflib
import fnmatch
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vidal.errors import ModelError, RecipeError
from vidal.train.full_state import full_state, laid_out_as

NO_DECAY = ("bn", "ln", "norm", "bias", "logit_scale", "class_embedding", "patch_embedding")
"""Parameters with one of these in their names, or with fewer than two dimensions, are not decayed (LanguageBind)."""


class OptimiserSettings(BaseModel):
    """AdamW (Loshchilov and Hutter, 2019) with linear warm-up; the defaults are LanguageBind's."""

    model_config = ConfigDict(extra="forbid")

    lr: float = Field(1e-4, gt=0)
    """Peak learning rate, reached after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of the first and second moment."""
    eps: float = Field(1e-6, gt=0)
    """Term added to the denominator of the update."""
    weight_decay: float = Field(0.2, ge=0)
    """Decoupled weight decay; norms, biases and embeddings are exempt."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up from 0 to ``lr``."""
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    """Schedule after the warm-up: ``warmup_stable_decay`` is constant, and falls linearly over the last steps."""
    decay_share: float = Field(0.1, gt=0, le=1)
    """Share of all steps over which ``warmup_stable_decay`` falls."""
    min_lr: float = Field(0.0, ge=0)
    """Final learning rate of the schedules that decrease."""
    clip_norm: float | None = Field(1.0, gt=0)
    """Maximum L2 norm of the gradient over all parameters; null disables clipping."""
    lr_multipliers: dict[str, float] = Field(default_factory=dict)
    """Factors on the learning rate, by pattern of parameter names (``*.visual_projection.*``)."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """Layer-wise decay of the learning rate: the last layer has this factor once, each lower one once more."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of the exponential moving average of the weights, which `vidal eval` and exports then use."""

    @model_validator(mode="after")
    def _decreases(self) -> OptimiserSettings:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr:g} is above lr {self.lr:g}: the schedule would increase")
        return self

    def decay_steps(self, total: int) -> int:
        """Return the steps of ``total`` over which ``warmup_stable_decay`` falls, at least one."""
        return max(1, round(self.decay_share * total))


def learning_rate(settings: OptimiserSettings, step: int, total: int) -> float:
    """Return the learning rate of a step, counted from 0, of ``total``: linear warm-up, then the schedule."""
    # Step 0 has a rate already: at 0 its batch would be wasted.
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    is_cosine = settings.schedule == "cosine"
    first = settings.warmup_steps if is_cosine else max(settings.warmup_steps, total - settings.decay_steps(total))
    share = min(max(0.0, (step - first) / max(1, total - first)), 1.0)
    left = 0.5 * (1 + math.cos(math.pi * share)) if is_cosine else 1 - share
    return settings.min_lr + (settings.lr - settings.min_lr) * left


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter."""
    return parameter.ndim >= 2 and not any(word in name for word in NO_DECAY)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimiserSettings) -> list[dict[str, object]]:
    """Group the trained parameters by weight decay and multiplier of the learning rate.

    Raises `RecipeError` for a pattern in ``lr_multipliers`` that matches no trained parameter.
    """
    parameters = list(named)
    trained = [(name, p) for name, p in parameters if p.requires_grad]
    names = [name for name, _ in trained]
    for pattern in settings.lr_multipliers:
        if not fnmatch.filter(names, pattern):
            near = difflib.get_close_matches(pattern.strip("*"), names, n=2, cutoff=0.3)
            hint = f"; similar: {', '.join(near)}" if near else ""
            raise RecipeError(f"optimiser.lr_multipliers: `{pattern}` matches no trained parameter{hint}")
    # Depth counts all layers of a tower, whichever of them are trained.
    above = _layers_above([name for name, _ in parameters])
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, p in trained:
        decay = settings.weight_decay if decays(name, p) else 0.0
        factors = [f for pattern, f in settings.lr_multipliers.items() if fnmatch.fnmatchcase(name, pattern)]
        factor = math.prod(factors) * (settings.layer_decay or 1.0) ** above[name]
        # AdamW updates the parameters of a group in one call, which does not take sharded and full ones together.
        groups.setdefault((decay, factor, isinstance(p, DTensor)), []).append(p)
    return [{"params": ps, "weight_decay": decay, "multiplier": factor} for (decay, factor, _), ps in groups.items()]


_PLACE = re.compile(r"(?P<tower>.*?)\b(?:encoder\.layers?\.(?P<layer>\d+)|embeddings|pre_layrnorm)\.")


def _layers_above(names: list[str]) -> dict[str, int]:
    """By parameter, the layers from its own to the top of its tower; 0 for the head, and outside the towers."""
    matches = {name: match for name in names if (match := _PLACE.match(name))}
    # What is below the first layer is layer -1.
    places = {name: (match["tower"], int(match["layer"] or -1)) for name, match in matches.items()}
    depth: dict[str, int] = {}
    for tower, layer in places.values():
        depth[tower] = max(depth.get(tower, 0), layer + 1)
    # Of a tower without a layer of these names nothing is known to be lower, and all of it has the full rate.
    above = {name: depth[tower] - layer for name, (tower, layer) in places.items() if depth[tower]}
    return dict.fromkeys(names, 0) | above


class Optimisation:
    """AdamW over the trained parameters of a model, whose learning rate is a function of the step."""

    def __init__(self, model: nn.Module, settings: OptimiserSettings, total_steps: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.adamw = torch.optim.AdamW(
            parameter_groups(self._named.items(), settings), lr=settings.lr, betas=settings.betas, eps=settings.eps,
            # One kernel for all parameters of a group; on a CPU it would add floats in another order.
            fused=all(p.is_cuda for p in self._named.values()),
        )  # fmt: skip
        self.ema = Ema(self._named, settings.ema) if settings.ema else None

    def begin(self, step: int) -> float:
        """Clear the gradients, and set and return the step's learning rate."""
        # None, not 0: AdamW skips a parameter without a gradient, but would decay the towers of the other pairs.
        self.adamw.zero_grad(set_to_none=True)
        lr = learning_rate(self.settings, step, self.total_steps)
        for group in self.adamw.param_groups:
            group["lr"] = lr * group["multiplier"]
        return lr

    def clip(self) -> Tensor:
        """Clip the gradient to ``clip_norm``; return its L2 norm before that, a scalar on the device."""
        with_gradient = [p for p in self._named.values() if p.grad is not None]
        # Separately for full and sharded parameters: one call of torch's functions does not take both.
        parts = [[p for p in with_gradient if isinstance(p, DTensor) is sharded] for sharded in (False, True)]
        norms: list[Tensor] = []
        for part in filter(None, parts):
            norm = nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms or [torch.zeros(())]))
        if self.settings.clip_norm is not None:
            for part in filter(None, parts):
                nn.utils.clip_grads_with_norm_(part, self.settings.clip_norm, norm)
        return norm

    def step(self) -> None:
        """Update the parameters and their moving average."""
        self.adamw.step()
        if self.ema is not None:
            self.ema.update()

    @contextmanager
    @torch.no_grad()
    def averaged(self) -> Iterator[None]:
        """Within the block, the parameters have their moving averages, if there are any."""
        values = self.ema.values if self.ema is not None else {}
        own = {name: self._named[name].detach().clone() for name in values}
        for name, value in values.items():
            self._named[name].copy_(value)
        try:
            yield
        finally:
            for name, value in own.items():
                self._named[name].copy_(value)

    def trained(self) -> Mapping[str, nn.Parameter]:
        """Return the trained parameters by name."""
        return self._named

    def state(self) -> dict[str, Tensor]:
        """Return the state by parameter name, so that it loads with other parameter groups and numbers of ranks.

        Full tensors on the CPU; a collective if parameters are sharded.
        """
        state = {
            f"{key}.{name}": value if isinstance(value, Tensor) else torch.tensor(float(value))
            for name, p in self._named.items()
            for key, value in self.adamw.state.get(p, {}).items()
        }
        return full_state(state | (self.ema.state() if self.ema is not None else {}))

    def load_state(self, state: Mapping[str, Tensor], place: str = "checkpoint") -> None:
        """Load what `state` returned; raises `ModelError` if it does not match the parameters."""
        for name, p in self._named.items():
            own = {key: state[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in state}
            if own and (len(own) < 3 or not own["exp_avg"].shape == own["exp_avg_sq"].shape == p.shape):
                raise ModelError(f"{place}: the optimiser's state of {name} does not fit a {tuple(p.shape)} tensor")
            if own:  # a parameter that has had no gradient yet has no state
                # AdamW keeps its step counter on the CPU; the fused one takes it beside the parameter only.
                of_step = p.device if self.adamw.defaults["fused"] else torch.device("cpu")
                self.adamw.state[p] = {
                    k: v.to(of_step, copy=True) if k == "step" else laid_out_as(v, p) for k, v in own.items()
                }
        if self.ema is not None:
            self.ema.load_state(state, place)


class Ema:
    """Exponential moving average of the weights, whose decay ramps up over the first steps."""

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        self._named = named
        self._decay = decay
        self.values = {name: p.detach().clone() for name, p in named.items()}
        self._count = 0

    @torch.no_grad()
    def update(self) -> None:
        """Include the current weights in the average."""
        self._count += 1
        # As in TensorFlow's ExponentialMovingAverage: the first averages would otherwise be the initial weights.
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        # One call, and so a few kernels, for all parameters; separately for sharded ones, as one call takes one kind.
        for sharded in (False, True):
            names = [name for name, p in self._named.items() if isinstance(p, DTensor) is sharded]
            if names:
                averages = [self.values[name] for name in names]
                torch._foreach_lerp_(averages, [self._named[name].detach() for name in names], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        """Return the averages and the number of updates."""
        return {"ema_count": torch.tensor(self._count), **{f"ema.{name}": v for name, v in self.values.items()}}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], place: str = "checkpoint") -> None:
        """Load what `state` returned; a state without averages starts them at the current weights.

        Raises `ModelError` if an average is missing or of another shape.
        """
        self._count = int(state.get("ema_count", torch.tensor(0)))
        for name, p in self._named.items():
            value = state.get(f"ema.{name}") if self._count else p.detach()
            if value is None or value.shape != p.shape:
                raise ModelError(f"{place}: has no averaged weights for {name}")
            self.values[name].copy_(laid_out_as(value, p))
