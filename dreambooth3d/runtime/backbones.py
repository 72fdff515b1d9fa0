"""Warm workers: a worker process loads a backbone once, however many tasks it runs."""

from functools import lru_cache

import torch

from dreambooth3d.model.backbone import Backbone, load_backbone


def pick_device() -> torch.device:
    """The GPU this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=1)
def warm_backbone(source: str, precision: str) -> Backbone:
    """Load a backbone or return the one this process holds; `precision` is `fp32` or `bf16`."""
    dtype = torch.bfloat16 if precision == "bf16" and torch.cuda.is_available() else torch.float32
    return load_backbone(source, dtype=dtype, device=pick_device())
