"""Euler sampling along the flow, with classifier-free guidance.

Cites: k-diffusion `sample_euler` for the form; method, section 4 for flow shift and guidance.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dreambooth3d.diffusion.path import shift_sigma
from dreambooth3d.errors import ConfigError


class Velocity(Protocol):
    """A model: noisy latents and one noise level in 0..1 a row to velocity."""

    def __call__(self, x: Tensor, sigma_B: Tensor, /) -> Tensor:
        """Predict the velocity."""


def flow_sigmas(num_steps: int, shift: float) -> Tensor:
    """Noise levels 1 -> 0, (num_steps + 1,), evenly spaced and then shifted.

    Raises:
        ConfigError: `num_steps` is below 1 or `shift` is not positive.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps must be at least 1, got {num_steps}; use for example 20")
    if shift <= 0:
        raise ConfigError(f"flow shift must be positive, got {shift}; use for example 3")
    return shift_sigma(torch.linspace(1, 0, num_steps + 1), shift)


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance: u + scale (c - u), one scale or one a row.

    References belong in both branches: guidance then acts on the text alone.
    """
    return unconditional + scale * (conditional - unconditional)


def euler_step(velocity: Velocity, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One Euler step of dx/ds = v; latents stay fp32."""
    sigma_B = sigma.expand(x.shape[0]).to(x.device)
    return x + (sigma_next - sigma).to(x.device) * velocity(x, sigma_B).float()


def euler(
    velocity: Velocity,
    noise: Tensor,
    sigmas: Tensor,
    *,
    on_step: Callable[[int, Tensor], bool] | None = None,
) -> Tensor:
    """Integrate dx/ds = v from sigma 1 to 0; latents stay fp32 between steps.

    Args:
        velocity: the model.
        noise: starting latents, standard normal.
        sigmas: `flow_sigmas(...)`.
        on_step: told (finished steps, latents) after each step; returning True stops there.
    """
    x = noise.float()
    for index in range(len(sigmas) - 1):
        x = euler_step(velocity, x, sigmas[index], sigmas[index + 1])
        if on_step is not None and on_step(index + 1, x):
            break
    return x


def guide_by_both(
    full: Tensor,
    without_text: Tensor,
    without_both: Tensor,
    *,
    text: float | Tensor,
    reference: float | Tensor,
) -> Tensor:
    """Guidance by text and by references, each with its own scale (arXiv 2211.09800, equation 3).

    Args:
        full: velocity with text and references.
        without_text: velocity with references alone.
        without_both: velocity with the empty text and views of nothing.
        text, reference: scales, or one a row; 1 and 1 give `full`, and a reference scale of 1 alone
            is guidance on the text.
    """
    by_reference = without_both + reference * (without_text - without_both)
    return by_reference + text * (full - without_text)
