"""Optimizers by name, and their state by names that outlive a process.

AdamW for everything (published). Muon (Jordan et al. 2024) orthogonalises the momentum of each
matrix; what is no matrix goes to AdamW. Prodigy (arXiv 2306.06101) finds its own rate: `lr` is then
a factor, 1 as a rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreambooth3d.training.settings import OptimConfig, OptimizerName

ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")

# What an optimizer keeps for every parameter, and Prodigy for all together.
_MOMENTS: dict[OptimizerName, tuple[str, ...]] = {
    "adamw": ADAM_MOMENTS,
    "muon": ("momentum_buffer",),
    "prodigy": (*ADAM_MOMENTS, "s", "p0"),
}
_SCALARS: dict[OptimizerName, tuple[str, ...]] = {
    "adamw": (),
    "muon": (),
    "prodigy": ("d", "d_max", "d_numerator", "k"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One optimizer and its parameters."""

    kind: OptimizerName
    named: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer


class NamedOptimizer:
    """The optimizer of a training's parameters, whose state has names."""

    def __init__(self, config: OptimConfig, named: Mapping[str, nn.Parameter]) -> None:
        self._parts = [
            _Part(kind=kind, named=own, optimizer=_build(kind, config, list(own.values())))
            for kind, own in _share_out(config.optimizer, named).items()
            if own
        ]

    def step(self, lr: float) -> None:
        """Update at this rate, and forget the gradients."""
        for part in self._parts:
            part.optimizer.param_groups[0]["lr"] = lr
            part.optimizer.step()
            part.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Copy the state as ``<moment>/<parameter>``, on the CPU; zeros before the first update."""
        state: dict[str, Tensor] = {}
        for part in self._parts:
            for name, parameter in part.named.items():
                own = part.optimizer.state.get(parameter, {})
                for moment in _MOMENTS[part.kind]:
                    value = own.get(moment)
                    full = torch.zeros_like(parameter) if value is None else value
                    state[f"{moment}/{name}"] = full.detach().cpu().float().clone()
            group = part.optimizer.param_groups[0]
            for scalar in _SCALARS[part.kind]:
                state[f"group/{scalar}"] = torch.tensor(float(group[scalar]), dtype=torch.float64)
        return state

    def restore(self, state: Mapping[str, Tensor], *, step: int) -> None:
        """Put back what `state` returned after update `step`."""
        for part in self._parts:
            for name, parameter in part.named.items():
                part.optimizer.state[parameter] = {
                    "step": torch.tensor(float(step)),
                    **{
                        moment: state[f"{moment}/{name}"].to(parameter.device).clone()
                        for moment in _MOMENTS[part.kind]
                    },
                }
            for scalar in _SCALARS[part.kind]:
                part.optimizer.param_groups[0][scalar] = float(state[f"group/{scalar}"])


def adamw(config: OptimConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.AdamW:
    """Build AdamW over a list: one group, never a generator (it would be consumed)."""
    return torch.optim.AdamW(
        list(parameters),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )


def state_names(config: OptimConfig, named: Mapping[str, nn.Parameter]) -> set[str]:
    """Names of everything that a `NamedOptimizer`'s state holds."""
    names: set[str] = set()
    for kind, own in _share_out(config.optimizer, named).items():
        names |= {f"{moment}/{name}" for moment in _MOMENTS[kind] for name in own}
        names |= {f"group/{scalar}" for scalar in _SCALARS[kind] if own}
    return names


def _share_out(
    kind: OptimizerName, named: Mapping[str, nn.Parameter]
) -> dict[OptimizerName, dict[str, nn.Parameter]]:
    if kind != "muon":
        return {kind: dict(named)}
    return {
        "muon": {name: p for name, p in named.items() if p.ndim == 2},
        "adamw": {name: p for name, p in named.items() if p.ndim != 2},
    }


def _build(
    kind: OptimizerName, config: OptimConfig, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    if kind == "muon":
        return torch.optim.Muon(
            parameters,
            lr=config.lr,
            weight_decay=config.weight_decay,
            # Updates as large as AdamW's, so that one rate fits both.
            adjust_lr_fn="match_rms_adamw",
        )
    if kind == "prodigy":
        from prodigyopt import Prodigy

        prodigy: torch.optim.Optimizer = Prodigy(
            parameters,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
        return prodigy
    return adamw(config, parameters)
