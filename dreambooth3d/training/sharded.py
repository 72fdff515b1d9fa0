"""Load a frozen transformer in shards (ZeRO-3): no process ever holds the whole of it.

The modules are built without data. Then one weight after the other is read and cut up, so that a
process holds its share and the weight at hand, from the first one to the last.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import Denoiser, read_card, read_structure, resolve_backbone
from dreambooth3d.training.engine import deepspeed_config, import_deepspeed
from dreambooth3d.training.settings import OptimConfig

_SINGLE_FILE = "diffusion_pytorch_model.safetensors"
_INDEX = f"{_SINGLE_FILE}.index.json"


def load_sharded(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Denoiser:
    """Load this rank's share of a backbone's transformer; every rank of the group calls it.

    The weights are those of `load_denoiser`, and DeepSpeed gathers a module's when it is called.

    Args:
        source: of the backbone.
        dtype: of the weights.
        device: of this rank.

    Raises:
        ArtifactError: a weight is missing or has another shape.
    """
    folder = resolve_backbone(source) / "transformer"
    transformer = read_structure(source).transformer
    shard = _Sharder(dtype)
    for prefix, module in transformer.named_modules():
        for name, empty in list(module.named_parameters(recurse=False)):
            full_name = f"{prefix}.{name}" if prefix else name
            tensor = read_weight(folder, full_name, empty)
            weight = nn.Parameter(tensor.to(device, dtype, copy=True), requires_grad=False)
            del tensor
            setattr(module, name, weight)
            shard(weight)
    return Denoiser(card=read_card(source), transformer=transformer)


class _Sharder:
    """Cut parameters up over the ranks; the first one sets up what all others need."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._zero = import_deepspeed().zero
        self._settings = deepspeed_config(
            OptimConfig(), stage=3, batch_share=1, num_parts=1, precision=dtype
        )
        self._first: Any = None

    def __call__(self, parameter: nn.Parameter) -> None:
        """Keep this rank's share of it."""
        if self._first is None:
            self._first = parameter
            self._zero.Init(
                module=nn.ParameterList([parameter]), config_dict_or_path=self._settings
            )
            return
        self._first.convert_to_zero_parameters(param_list=[parameter])


@lru_cache(maxsize=1)
def _weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds which weight; empty when a single one holds all."""
    if not (folder / _INDEX).is_file():
        return {}
    found = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return {name: folder / file for name, file in found["weight_map"].items()}


def read_weight(folder: Path, name: str, empty: Tensor) -> Tensor:
    """Read one weight of a transformer's folder, which must have the shape of `empty`."""
    path = _weight_files(folder).get(name, folder / _SINGLE_FILE)
    try:
        # A file that stays open would keep in memory all that was read of it.
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} must hold the weight {name}, got: {error}; get the backbone again"
        ) from error
    if tensor.shape != empty.shape:
        raise ArtifactError(
            f"weight {name} of {path} must have the shape {tuple(empty.shape)}, "
            f"got {tuple(tensor.shape)}; get the backbone again"
        )
    return tensor
