"""Who judges the checkpoints of a training: an actor with a backbone of its own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue

from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, training_side
from dreambooth3d.pretrain.validation import Validator
from dreambooth3d.runtime.backbones import warm_backbone

PICTURES_NAME = "held_out"
_SPLIT = "held_out"
_MAX_RESTARTS = 3


class Judge:
    """Judges weights with a backbone of its own: inference, as users have it.

    It cannot raise the training's memory, and what it finds is what the saved weights do.
    """

    def __init__(self, config: PretrainConfig, corpus: Place, folder: Path, lines: Queue) -> None:
        held_out = PairCorpus.open(corpus, split=_SPLIT)
        backbone = warm_backbone(config.backbone, config.precision)
        examples = PairExamples(held_out, backbone, training_side(config, backbone.card))
        self._validator = Validator(config, backbone, examples)
        self._folder, self._lines = folder, lines
        self._found: dict[int, dict[str, Any]] = {}
        if self._path.is_file():
            # Of this training before it was interrupted.
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._found = {row["step"]: row for row in known}

    @property
    def _path(self) -> Path:
        return self._folder / "validations.json"

    def judge(self, step: int, weights: Mapping[str, Any]) -> None:
        """Losses and pictures of a checkpoint's weights."""
        self._validator.load(weights)
        validation = self._validator.judge(step)
        self._validator.draw(self._folder / PICTURES_NAME / f"step-{step:06d}.png")
        self._found[step] = {**asdict(validation), "gain": validation.gain}
        with publish_file(self._path) as aside:
            aside.write_text(json.dumps(self.results()), encoding="utf-8")
        self._lines.put(f"pretrain {self._folder.name}: {validation.line()}")

    def results(self) -> list[dict[str, Any]]:
        """All that has been judged, by step."""
        return [self._found[step] for step in sorted(self._found)]


def start_judge(
    config: PretrainConfig, corpus: Place, folder: Path, lines: Queue, report: Callable[[str], None]
) -> Any:
    """Start the actor that judges checkpoints; None where the corpus has nothing held out."""
    if not config.is_validated:
        return None
    if not len(PairCorpus.open(corpus, split=_SPLIT)):
        report(
            "pretrain: the corpus has no held-out subjects, checkpoints are not judged "
            "(build pairs with --set held_out_share=0.05)"
        )
        return None
    # A GPU that no worker takes, else none: it must never wait for the training's own.
    num_spare = int(ray.cluster_resources().get("GPU", 0)) - config.workers
    actor = ray.remote(Judge).options(
        num_cpus=0,
        num_gpus=1 if num_spare > 0 else 0,
        max_restarts=_MAX_RESTARTS,
        max_task_retries=_MAX_RESTARTS,
    )
    return actor.remote(config, corpus, folder, lines)
