"""The straight path between data and noise (arXiv 2603.18524, section 3; rectified flow)."""

from torch import Tensor


def interpolate(x0: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """x_s = (1 - s) x0 + s e, with one noise level in 0..1 a row."""
    sigma = sigma_B.view(-1, *[1] * (x0.ndim - 1)).to(x0.dtype)
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """What the model predicts: e - x0."""
    return noise - x0


def velocity_loss(
    velocity: Tensor, x0: Tensor, noise: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Mean squared error of each row in fp32, (B,); `weight` is broadcast against the error."""
    error = (velocity.float() - velocity_target(x0, noise).float()).square()
    return (error if weight is None else error * weight).flatten(1).mean(dim=1)


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """s' = k s / (1 + (k - 1) s): k > 1 moves noise levels towards 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)
