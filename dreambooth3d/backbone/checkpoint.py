"""Checkpoints of a training: weights and optimizer states as safetensors, progress inside."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dreambooth3d.backbone.schedule import Progress
from dreambooth3d.errors import ArtifactError


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainState:
    """What a training needs to go on as if it had never stopped.

    Data order and noise are functions of the step, so no generator state is kept.
    """

    models: dict[str, nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]
    progress: Progress = field(default_factory=lambda: Progress(num_steps=1, minutes=0))


def save_checkpoint(path: Path, state: TrainState) -> None:
    """Write one file aside, then rename it: a stopped run leaves the previous checkpoint whole."""
    tensors: dict[str, Tensor] = {}
    for name, model in state.models.items():
        tensors |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
    for number, optimizer in enumerate(state.optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{number}.{index}.{key}": v for key, v in slots.items()}
    metadata = {"step": str(state.progress.step), "seconds": repr(state.progress.seconds)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    save_file({name: value.contiguous() for name, value in tensors.items()}, aside, metadata)
    aside.replace(path)


def load_checkpoint(path: Path, state: TrainState) -> bool:
    """Restore a training in place; False when there is no checkpoint.

    Raises:
        ArtifactError: the checkpoint belongs to other settings.
    """
    if not path.is_file():
        return False
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        metadata = cast("dict[str, str]", file.metadata())
        for name in file.keys():  # noqa: SIM118 - not a mapping
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = file.get_tensor(name)
    try:
        for name, model in state.models.items():
            model.load_state_dict(parts.get(name, {}))
        for number, optimizer in enumerate(state.optimizers):
            _load_optimizer(optimizer, parts.get(f"optimizer{number}", {}))
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(
            f"{path} must be a checkpoint of these settings, got other weights; "
            "choose another output folder or delete it"
        ) from error
    state.progress.step = int(metadata["step"])
    state.progress.seconds = float(metadata["seconds"])
    return True


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        slots.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
