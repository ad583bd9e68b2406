"""The optimiser: parameter groups, learning rate, clipping, averaged weights."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from vidal.errors import RecipeError

NO_DECAY = ("bn", "ln", "norm", "bias", "logit_scale", "class_embedding", "patch_embedding")
"""LanguageBind's list: a parameter with one of these in its name, or with fewer than two dimensions, is not decayed."""


class OptimiserSettings(BaseModel):
    """AdamW with a warm-up; LanguageBind's values."""

    model_config = ConfigDict(extra="forbid")

    lr: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.2, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    min_lr: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)
    lr_multipliers: dict[str, float] = Field(default_factory=dict)
    """Pattern on parameter names (``*.visual_projection.*``) to a factor that holds through the whole schedule."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of averaged weights, which `vidal eval` then uses."""


def learning_rate(settings: OptimiserSettings, step: int, total: int) -> float:
    """Of a step, counted from 0: linear warm-up to ``lr``, then cosine to ``min_lr``, or constant."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    share = (step - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    return settings.min_lr + (settings.lr - settings.min_lr) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def decays(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not any(word in name for word in NO_DECAY)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], settings: OptimiserSettings) -> list[dict[str, object]]:
    """One group for each (decay, multiplier) that occurs; raises `RecipeError` for a pattern that matches nothing."""
    trained = [(name, p) for name, p in named if p.requires_grad]
    _check_patterns(settings.lr_multipliers, [name for name, _ in trained])
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, p in trained:
        decay = settings.weight_decay if decays(name, p) else 0.0
        groups.setdefault((decay, _multiplier(name, settings.lr_multipliers)), []).append(p)
    return [{"params": ps, "weight_decay": decay, "multiplier": factor} for (decay, factor), ps in groups.items()]


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    """The product of all that match."""
    return math.prod(factor for pattern, factor in multipliers.items() if fnmatch.fnmatchcase(name, pattern))


def _check_patterns(multipliers: Mapping[str, float], names: list[str]) -> None:
    for pattern in multipliers:
        if not fnmatch.filter(names, pattern):
            near = difflib.get_close_matches(pattern.strip("*"), names, n=2, cutoff=0.3)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise RecipeError(f"optimiser.lr_multipliers: `{pattern}` matches no trained parameter{hint}")


class Optimisation:
    """AdamW over the trained parameters of a model, driven by the number of the step."""

    def __init__(self, model: nn.Module, settings: OptimiserSettings, total_steps: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.adamw = torch.optim.AdamW(
            parameter_groups(self._named.items(), settings), lr=settings.lr, betas=settings.betas, eps=settings.eps
        )
        self.ema = Ema(self._named, settings.ema) if settings.ema else None

    def begin(self, step: int) -> float:
        """Clear the gradients and set the step's learning rate, which is given back."""
        self.adamw.zero_grad(set_to_none=True)
        lr = learning_rate(self.settings, step, self.total_steps)
        for group in self.adamw.param_groups:
            group["lr"] = lr * group["multiplier"]
        return lr

    def clip(self) -> float:
        """Bring the gradient to `clip_norm`; gives its norm before that."""
        limit = self.settings.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(self._named.values(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def step(self) -> None:
        self.adamw.step()
        if self.ema is not None:
            self.ema.update()

    def trained(self) -> Mapping[str, nn.Parameter]:
        return self._named

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state by parameter name, so that other groups or ranks can take it up."""
        state = {
            f"{key}.{name}": value if isinstance(value, Tensor) else torch.tensor(float(value))
            for name, p in self._named.items()
            for key, value in self.adamw.state.get(p, {}).items()
        }
        return state | (self.ema.state() if self.ema is not None else {})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The counterpart of `state`; a parameter that no step has touched yet has none."""
        for name, p in self._named.items():
            own = {key: state[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}.{name}" in state}
            if own:
                # AdamW keeps its count of steps on the CPU.
                self.adamw.state[p] = {k: v.clone() if k == "step" else v.to(p.device).clone() for k, v in own.items()}
        if self.ema is not None:
            self.ema.load_state(state)


class Ema:
    """Averaged weights; early on the average is over the few steps there were."""

    def __init__(self, named: Mapping[str, nn.Parameter], decay: float) -> None:
        self._named = named
        self._decay = decay
        self.values = {name: p.detach().clone() for name, p in named.items()}
        self._count = 0

    @torch.no_grad()
    def update(self) -> None:
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        for name, p in self._named.items():
            self.values[name].lerp_(p.detach(), 1 - decay)

    def state(self) -> dict[str, Tensor]:
        return {"ema_count": torch.tensor(self._count), **{f"ema.{name}": v for name, v in self.values.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if "ema_count" in state:
            self._count = int(state["ema_count"])
            for name, value in self.values.items():
                value.copy_(state[f"ema.{name}"])
