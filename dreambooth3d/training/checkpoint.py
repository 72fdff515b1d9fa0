"""Training state on disk: safetensors for numbers, JSON for the rest, published by rename.

The state of a run is (step, weights, moments): random draws are named by (seed, place), so there is
no generator to save, and the form does not depend on engine or worker count.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.artifacts.key import publish
from dreambooth3d.errors import ArtifactError

_NAME = "step-{:08d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A training after `step` finished updates."""

    run_key: str
    step: int
    losses: tuple[float, ...]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write `folder/step-...` whole or not at all, then drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / _NAME.format(checkpoint.step)
    if not final.exists():
        with publish(final) as aside:
            save_file(checkpoint.weights, aside / "weights.safetensors")
            save_file(checkpoint.optimizer, aside / "optimizer.safetensors")
            state = {
                "run_key": checkpoint.run_key,
                "step": checkpoint.step,
                "losses": list(checkpoint.losses),
            }
            (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for old in _saved(folder)[:-keep]:
        shutil.rmtree(old)
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
        checkpoint = Checkpoint(
            run_key=state["run_key"],
            step=int(state["step"]),
            losses=tuple(state["losses"]),
            weights=load_file(newest / "weights.safetensors"),
            optimizer=load_file(newest / "optimizer.safetensors"),
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            f"checkpoint {newest.name} must be readable, got {error!r}; "
            "remove that folder to go on from the one before"
        ) from error
    if checkpoint.run_key != run_key:
        raise ArtifactError(
            f"checkpoint {newest.name} must belong to run {run_key}, got {checkpoint.run_key}; "
            "use another --out"
        )
    return checkpoint


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
