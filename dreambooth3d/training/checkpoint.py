"""Training state on disk: safetensors for numbers, JSON for the rest, published by rename.

The state of a run is (step, weights, moments): random draws are named by (seed, place), so there is
no generator to save, and the form does not depend on engine or worker count.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.artifacts.key import content_hash, publish
from dreambooth3d.errors import ArtifactError

_NAME = "step-{:08d}"
_FILES = ("weights.safetensors", "optimizer.safetensors", "average.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A training after `step` finished updates; `average` is empty where none is kept."""

    run_key: str
    step: int
    losses: tuple[float, ...]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `folder/step-...` whole or not at all, then drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / _NAME.format(checkpoint.step)
    if not final.exists():
        with publish(final) as aside:
            save_file(checkpoint.weights, aside / "weights.safetensors")
            save_file(checkpoint.optimizer, aside / "optimizer.safetensors")
            save_file(checkpoint.average, aside / "average.safetensors")
            state = {
                "run_key": checkpoint.run_key,
                "step": checkpoint.step,
                "losses": list(checkpoint.losses),
                "sha256": {name: content_hash(aside / name) for name in _FILES},
            }
            (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for old in _saved(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path, *, run_key: str) -> Checkpoint | None:
    """Read the newest checkpoint of this run; None when there is none.

    Raises:
        ArtifactError: it is damaged, or belongs to a run of another configuration.
    """
    saved = _saved(folder)
    if not saved:
        return None
    newest = saved[-1]
    try:
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        _check_files(newest, state)
        checkpoint = Checkpoint(
            run_key=state["run_key"],
            step=int(state["step"]),
            losses=tuple(state["losses"]),
            weights=load_file(newest / "weights.safetensors"),
            optimizer=load_file(newest / "optimizer.safetensors"),
            average=load_file(newest / "average.safetensors"),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"checkpoint {newest} must be readable, got {error!r}; "
            "remove that folder to go on from the one before"
        ) from error
    if checkpoint.run_key != run_key:
        raise ArtifactError(
            f"checkpoint {newest.name} must belong to run {run_key}, got {checkpoint.run_key}; "
            "use another --out"
        )
    return checkpoint


def _check_files(folder: Path, state: dict[str, Any]) -> None:
    """Raise a `ValueError` unless the files are those the state describes."""
    for name in _FILES:
        if content_hash(folder / name) != state["sha256"][name]:
            raise ValueError(f"other bytes in {name} than were saved")
    if len(state["losses"]) != state["step"]:
        raise ValueError(f"{len(state['losses'])} losses for {state['step']} steps")


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
