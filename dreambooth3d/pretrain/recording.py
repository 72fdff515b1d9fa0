"""Trainings in MLflow: written whole at their end, or later where no server answered."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import load_card
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.pretrain.publishing import CURVE_NAME, curves_of
from dreambooth3d.runtime.tracking import RunRecord, Tracker

EXPERIMENT = "dreambooth3d-pretrain"
MODEL = "dreambooth3d-3dapter"


class UnsentRuns:
    """Trainings below a folder that MLflow does not know yet, with their parameters.

    Curves, samples and metrics of the machine stay in the artifacts themselves.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out / ".unsent"

    def add(self, key: str, params: Mapping[str, Any]) -> None:
        """Remember a training until it is recorded, with the parameters it was first run with."""
        if self._path(key).is_file():
            return
        with publish_file(self._path(key)) as aside:
            aside.write_text(json.dumps(dict(params)), encoding="utf-8")

    def all(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and parameters of each whose artifact is still there."""
        for path in sorted(self._folder.glob("*.json")):
            if (self._out / path.stem).is_dir():
                yield path.stem, json.loads(path.read_text(encoding="utf-8"))

    def remove(self, key: str) -> None:
        """Forget a training that is recorded."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def record_training(final: Path, params: Mapping[str, Any], root: Path) -> None:
    """Write a finished training to MLflow, once: curves, samples, adapter as registered model.

    Args:
        final: folder of the adapter.
        params: settings of the training.
        root: folder of the embedded store.
    """
    card = load_card(final)
    curve = json.loads((final / CURVE_NAME).read_text(encoding="utf-8"))
    corpus_sha256 = Manifest.load(final).outputs.get("pairs_manifest_sha256", "unknown")
    tracker = Tracker(root, EXPERIMENT)
    if tracker.find({"artifact_key": card.key}) is not None:
        return
    tracker.record(
        RunRecord(
            name=card.key,
            params=params,
            tags={
                "artifact_key": card.key,
                "pairs": card.parents[0],
                "pairs_manifest_sha256": str(corpus_sha256),
                "sha256": card.weights_sha256,
            },
            curves=curves_of(curve),
            folder=final,
            model=MODEL,
        )
    )
