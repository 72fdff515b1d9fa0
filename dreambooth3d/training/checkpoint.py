"""Training state in a folder or an object store: safetensors for numbers, JSON for the rest.

The state of a run is (step, weights, moments): random draws are named by (seed, place), so there is
no generator to save, and the form does not depend on engine or worker count. All files lie in one
folder, `step-N.json` is written last: without it a checkpoint was never finished, and is none.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ArtifactError, InputError

_ANY = re.compile(r"step-\d{8}\.[a-z.]+")
_FINISHED = re.compile(r"step-(\d{8})\.json")
_PARTS = ("weights", "optimizer", "average")
# A judge that is further behind than this, or gone, does not fill the disk.
_MOST_WAITING = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A training after `step` finished updates; `average` is empty where none is kept."""

    run_key: str
    step: int
    losses: tuple[float, ...]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Which checkpoints stay.

    Attributes:
        newest: how many of the last ones.
        best: how many of those with the lowest score; those that wait for theirs stay as well.
    """

    newest: int = 2
    best: int = 0

    def kept(self, steps: Iterable[int], scores: Mapping[int, float]) -> set[int]:
        """Steps of the checkpoints that stay; `scores` are of those that have been judged."""
        order = sorted(steps)
        kept = set(order[-self.newest :])
        if self.best:
            judged = sorted(
                (step for step in order if step in scores), key=lambda s: (scores[s], s)
            )
            waiting = [step for step in order if step > max(scores, default=0)]
            kept |= {*judged[: self.best], *waiting[-_MOST_WAITING:]}
        return kept


def save_checkpoint(
    folder: Path | Place,
    checkpoint: Checkpoint,
    *,
    keeping: Keeping | None = None,
    scores: Mapping[int, float] | None = None,
) -> None:
    """Write a checkpoint whole or not at all, then drop what is not to be kept.

    Raises:
        ArtifactError: the folder or the store cannot be written; earlier checkpoints are untouched.
    """
    home, step = _place(folder), checkpoint.step
    steps = saved_steps(home)
    if step not in steps:
        sha256 = {}
        for part in _PARTS:
            data = save(getattr(checkpoint, part))
            sha256[part] = hashlib.sha256(data).hexdigest()
            (home / _file(step, part)).write_bytes(data)
        state = {
            "run_key": checkpoint.run_key,
            "step": step,
            "losses": list(checkpoint.losses),
            "sha256": sha256,
        }
        (home / _state_file(step)).write_bytes(json.dumps(state).encode())
    steps = sorted({*steps, step})
    for old in set(steps) - (keeping or Keeping()).kept(steps, scores or {}):
        _drop(home, old)


def saved_steps(folder: Path | Place) -> list[int]:
    """Steps of all finished checkpoints, in order."""
    files = _place(folder).list()
    found = (_FINISHED.fullmatch(file.name) for file in files if file.size)
    return sorted(int(match[1]) for match in found if match)


def load_checkpoint(
    folder: Path | Place, *, run_key: str, step: int | None = None
) -> Checkpoint | None:
    """Read a checkpoint of this run, the newest one unless told otherwise; None without any.

    Raises:
        ArtifactError: it is damaged, or belongs to a run of another configuration.
    """
    home = _place(folder)
    if step is None:
        saved = saved_steps(home)
        if not saved:
            return None
        step = saved[-1]
    found = home / _state_file(step)
    try:
        state = json.loads(found.read_bytes())
        parts = {part: _read(home / _file(step, part), state["sha256"][part]) for part in _PARTS}
        if len(state["losses"]) != state["step"]:
            raise ValueError(f"{len(state['losses'])} losses for {state['step']} steps")
        checkpoint = Checkpoint(
            run_key=state["run_key"],
            step=int(state["step"]),
            losses=tuple(state["losses"]),
            **parts,
        )
    except (InputError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(
            f"checkpoint {found} must be readable, got {error!r}; "
            "remove that file to go on from the one before"
        ) from error
    if checkpoint.run_key != run_key:
        raise ArtifactError(
            f"checkpoint {found.name} must belong to run {run_key}, got {checkpoint.run_key}; "
            "use another --out"
        )
    return checkpoint


def drop_checkpoints(folder: Path | Place) -> None:
    """Delete all checkpoints, once the training is published."""
    home = _place(folder)
    names = [file.name for file in home.list() if _ANY.fullmatch(file.name)]
    # States first: without its state, what is left of a checkpoint is none.
    for name in sorted(names, key=lambda name: not name.endswith(".json")):
        (home / name).delete()


def _place(folder: Path | Place) -> Place:
    return folder if isinstance(folder, Place) else Place.parse(str(folder))


def _file(step: int, part: str) -> str:
    return f"step-{step:08d}.{part}.safetensors"


def _state_file(step: int) -> str:
    return f"step-{step:08d}.json"


def _read(file: Place, sha256: str) -> dict[str, Tensor]:
    """Read tensors; raises a `ValueError` unless the bytes are those the state describes."""
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"other bytes in {file.name} than were saved")
    tensors: dict[str, Tensor] = load(data)
    return tensors


def _drop(home: Place, step: int) -> None:
    """Free a checkpoint's space, its state first: without it, what is left is none.

    Files of a store are emptied. After deleting one, Arrow puts a marker in its folder's place,
    which some stores refuse, after seconds and with the folder out of sight meanwhile.
    """
    for name in (_state_file(step), *(_file(step, part) for part in _PARTS)):
        file = home / name
        if home.local_path is not None:
            file.delete()
        else:
            file.write_bytes(b"")
