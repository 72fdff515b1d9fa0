"""One file that holds a small training: weights, optimizer states, pace, settings; safetensors.

Trainings of adapters, on several workers and engines, use `training.checkpoint` instead.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dreambooth3d.errors import ArtifactError
from dreambooth3d.training.pace import Pace


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """What a training needs to go on as if it had never stopped.

    Data order and noise are functions of the step, so no generator state is kept.

    Attributes:
        models: by name; two of them are weights and their average.
        optimizers: in a fixed order.
        settings: what must not change between the runs of one training; JSON values.
        progress: step and seconds.
    """

    models: dict[str, nn.Module]
    optimizers: Sequence[torch.optim.Optimizer]
    settings: Mapping[str, Any] = field(default_factory=dict)
    progress: Pace = field(default_factory=lambda: Pace(num_steps=1, minutes=0))


def save_snapshot(path: Path, state: Snapshot) -> None:
    """Write one file aside, then rename it: a stopped run leaves the previous checkpoint whole."""
    tensors: dict[str, Tensor] = {}
    for name, model in state.models.items():
        tensors |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
    for number, optimizer in enumerate(state.optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer{number}.{index}.{key}": v for key, v in slots.items()}
    metadata = {
        "step": str(state.progress.step),
        "seconds": repr(state.progress.seconds),
        "settings": json.dumps(state.settings, sort_keys=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    save_file({name: value.contiguous() for name, value in tensors.items()}, aside, metadata)
    aside.replace(path)


def load_snapshot(path: Path, state: Snapshot) -> bool:
    """Restore a training in place; False when there is no checkpoint.

    Raises:
        ArtifactError: the checkpoint belongs to other settings.
    """
    if not path.is_file():
        return False
    try:
        metadata, parts = _read(path)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} must be a checkpoint, got a damaged file ({type(error).__name__}); "
            "delete it to start anew"
        ) from error
    _check_settings(path, metadata.settings, state.settings)
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
    state.progress.step = metadata.step
    state.progress.seconds = metadata.seconds
    return True


@dataclass(frozen=True, kw_only=True)
class _Metadata:
    """What a checkpoint says beside its tensors."""

    step: int
    seconds: float
    settings: Mapping[str, Any]


def _read(path: Path) -> tuple[_Metadata, dict[str, dict[str, Tensor]]]:
    """Read a checkpoint: what it says, and its tensors by part."""
    parts: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        found = cast("dict[str, str]", file.metadata())
        for name in file.keys():  # noqa: SIM118 - not a mapping
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = file.get_tensor(name)
    metadata = _Metadata(
        step=int(found["step"]),
        seconds=float(found["seconds"]),
        settings=json.loads(found["settings"]),
    )
    return metadata, parts


def _check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    # Through JSON, as the file's own: a tuple is a list there.
    wanted = json.loads(json.dumps(wanted))
    other = sorted(
        name for name in {*found, *wanted} if found.get(name, ...) != wanted.get(name, ...)
    )
    if other:
        raise ArtifactError(
            f"{path} must be a checkpoint of these settings, got other values of "
            f"{', '.join(other)}; choose another output folder or delete it"
        )


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    slots: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        slots.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    # A fused step walks memory: states must lie as their parameters do (channels last, say).
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)
