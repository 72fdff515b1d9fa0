"""Warm workers: a worker process loads a backbone once, however many tasks it runs."""

from functools import lru_cache

import torch

from dreambooth3d.model.backbone import (
    Backbone,
    Denoiser,
    Encoders,
    load_backbone,
    load_denoiser,
    load_encoders,
)


def pick_device() -> torch.device:
    """The GPU this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def warm_backbone(source: str, precision: str) -> Backbone:
    """Load a backbone or return the one this process holds; `precision` is `fp32` or `bf16`."""
    return load_backbone(source, dtype=dtype_of(precision), device=pick_device())


@lru_cache(maxsize=1)
def warm_encoders(source: str, precision: str) -> Encoders:
    """Load what encodes pictures and words, or return what this process holds."""
    return load_encoders(source, dtype=dtype_of(precision), device=pick_device())


@lru_cache(maxsize=1)
def warm_denoiser(source: str, precision: str) -> Denoiser:
    """Load the transformer alone, or return the one this process holds."""
    return load_denoiser(source, dtype=dtype_of(precision), device=pick_device())


def dtype_of(precision: str) -> torch.dtype:
    """Type of a backbone's weights; CPUs hold fp32 and compute in bf16 by autocast."""
    is_half = precision == "bf16" and torch.cuda.is_available()
    return torch.bfloat16 if is_half else torch.float32
