"""Random draws that depend on a name, never on batch place, worker or history.

Every draw comes from its own generator seeded by (seed, *key). So a sample is the same alone or in
a batch, on one worker or eight, and a resumed training needs no generator state.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from dreambooth3d.diffusion.path import shift_sigma


def keyed_generator(*key: int | str) -> torch.Generator:
    """Build a CPU generator for one named draw."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard normal noise in fp32 on the CPU; cast and move it once."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def draw_sigma(generator: torch.Generator, *, shift: float = 1.0) -> Tensor:
    """One training noise level in 0..1: sigmoid(N(0, 1)), then shifted (method, section 4)."""
    return shift_sigma(torch.randn((), generator=generator).sigmoid(), shift)
