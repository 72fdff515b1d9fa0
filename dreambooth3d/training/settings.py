"""How weights are trained: settings, free of torch so that a plan loads in no time."""

import math
from dataclasses import dataclass
from typing import Literal

from dreambooth3d.errors import ConfigError

OptimizerName = Literal["adamw", "muon", "prodigy"]
Schedule = Literal["constant", "cosine"]
Strategy = Literal["single", "ddp", "zero2", "zero3"]
# Updates between two weights of an average: gathering them from several devices costs more than
# the others would bring.
AVERAGED_EVERY = 10
STRATEGIES: tuple[Strategy, ...] = ("single", "ddp", "zero2", "zero3")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move.

    Attributes:
        optimizer: `adamw`, `muon` or `prodigy`, see `training.optim`.
        lr: peak learning rate; with `prodigy` a factor of the rate it finds.
        schedule: `constant` after warm-up, or `cosine` down to a tenth of the peak.
        warmup_steps: linear warm-up.
        weight_decay: decoupled.
        max_grad_norm: global norm above which gradients are scaled down.
    """

    optimizer: OptimizerName = "adamw"
    lr: float = 1e-4
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.optimizer not in ("adamw", "muon", "prodigy"):
            raise ConfigError(
                f"optimizer must be adamw, muon or prodigy, got {self.optimizer!r}; choose one"
            )
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr must be a positive number, got {self.lr}; the paper uses 1e-4")
        if self.schedule not in ("constant", "cosine"):
            raise ConfigError(
                f"schedule must be constant or cosine, got {self.schedule!r}; choose one"
            )
        if self.warmup_steps < 0 or self.max_grad_norm <= 0:
            raise ConfigError(
                "warmup_steps must be at least 0 and max_grad_norm positive, "
                f"got {self.warmup_steps} and {self.max_grad_norm}"
            )

    def lr_at(self, step: int, num_steps: int) -> float:
        """Learning rate of update `step` (0-based)."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        progress = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        return self.lr * (0.55 + 0.45 * math.cos(math.pi * min(1.0, progress)))
