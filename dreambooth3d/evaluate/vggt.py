"""A point cloud of the object in a few frames by VGGT (Wang et al. 2025): package and weights.

Neither is on PyPI, and the first published weights may not be used commercially: the user brings
both. What is known of the package is its published interface; no weights were ever here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.errors import ArtifactError, InputError

Cloud = NDArray[np.float64]

_SIDE = 518
# Share of the object's points that the network is least sure of; they are left out.
_DOUBTFUL = 0.3
_LEAST_POINTS, _MOST_POINTS = 50, 20_000
_WHITE = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Vggt:
    """The loaded network.

    Attributes:
        model: takes (F, 3, 518, 518) in 0..1, gives `world_points` and `world_points_conf`.
        weights: sha256 of them.
    """

    model: Any
    weights: str

    @property
    def name(self) -> str:
        """With its weights."""
        return f"vggt {self.weights}"

    @torch.no_grad()
    def __call__(
        self, frames: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]]
    ) -> Cloud:
        """Return points on the object, (N, 3), the ones that the network is surest of.

        Args:
            frames: RGB, (H, W, 3) each; all that are not the object become white.
            masks: the object in each, (H, W).

        Raises:
            InputError: the masks hold too little.
        """
        pairs = list(zip(frames, masks, strict=True))
        pixels = [
            _squared(np.where(mask[..., None], frame, _WHITE), _WHITE) for frame, mask in pairs
        ]
        inside = torch.stack(
            [torch.from_numpy(_squared(mask.astype(np.uint8), 0) > 0) for _, mask in pairs]
        )
        x_FCHW = torch.stack([torch.from_numpy(each).permute(2, 0, 1) for each in pixels]) / 255
        device = next(self.model.parameters()).device
        found = self.model(x_FCHW.to(device))
        points_N3 = found["world_points"][0].float().cpu()[inside]
        return _sure(points_N3, found["world_points_conf"][0].float().cpu()[inside])


def load_vggt(folder: str) -> Vggt:
    """Load weights from a folder with `config.json` and `model.safetensors`.

    Raises:
        ArtifactError: the folder does not hold them.
    """
    from vggt.models.vggt import VGGT

    home = Path(folder)
    missing = [n for n in ("config.json", "model.safetensors") if not (home / n).is_file()]
    if missing:
        raise ArtifactError(
            f"vggt_weights must hold config.json and model.safetensors, got no {missing[0]} in "
            f"{home}; download the repository of the weights there"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = VGGT.from_pretrained(str(home)).eval().to(device)
    return Vggt(model=model, weights=content_hash(home / "model.safetensors"))


def _squared(pixels: NDArray[Any], around: int) -> NDArray[np.uint8]:
    """Scale to the network's side and fill up to a square."""
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(pixels.astype(np.uint8), size, interpolation=mode)
    whole = np.full((_SIDE, _SIDE, *pixels.shape[2:]), around, dtype=np.uint8)
    top, left = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    whole[top : top + size[1], left : left + size[0]] = small
    return whole


def _sure(points_N3: Tensor, confidence_N: Tensor) -> Cloud:
    if len(points_N3) < _LEAST_POINTS:
        raise InputError(
            f"masks must cover the object, got {len(points_N3)} pixels of it in all frames; "
            "check that the clip shows it"
        )
    order = confidence_N.argsort(descending=True)[: round((1 - _DOUBTFUL) * len(points_N3))]
    kept = order[:: -(-len(order) // _MOST_POINTS)]
    return np.asarray(points_N3[kept].numpy(), dtype=np.float64)
