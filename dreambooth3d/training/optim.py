"""Optimizers from their settings."""

from torch import nn
from torch.optim import AdamW

from dreambooth3d.training.settings import OptimConfig


def build_optimizer(config: OptimConfig, parameters: list[nn.Parameter]) -> AdamW:
    """Build AdamW over a list: one group, never a generator (it would be consumed)."""
    return AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
    )
