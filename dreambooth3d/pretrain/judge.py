"""Who judges the checkpoints of a training: an actor with a backbone of its own."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import HELD_OUT, PairExamples, training_side
from dreambooth3d.pretrain.validation import Validator
from dreambooth3d.runtime.backbones import warm_backbone

PICTURES_NAME = "held_out"
_FOUND_NAME = "validations.json"


class Lines(Protocol):
    """Takes lines for the driver to report."""

    def put(self, line: str) -> None:
        """Add one."""


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """What has been found so far of a training whose working folder this is, by step."""
    path = folder / _FOUND_NAME
    found: list[dict[str, Any]] = []
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
    return found


class Judge:
    """Judges weights with a backbone of its own: inference, as users have it.

    It cannot raise the training's memory, and what it finds is what the saved weights do.
    """

    def __init__(self, config: PretrainConfig, corpus: Place, folder: Path, lines: Lines) -> None:
        held_out = PairCorpus.open(corpus, split=HELD_OUT)
        backbone = warm_backbone(config.backbone, config.precision)
        examples = PairExamples(held_out, backbone, training_side(config, backbone.card))
        self._validator = Validator(config, backbone, examples)
        self._folder, self._lines = folder, lines
        # Of this training before it was interrupted.
        self._found = {row["step"]: row for row in read_validations(folder)}

    def judge(self, step: int, weights: Mapping[str, Any]) -> None:
        """Losses and pictures of a checkpoint's weights."""
        self._validator.load(weights)
        validation = self._validator.judge(step)
        identity = self._validator.draw(self._folder / PICTURES_NAME / f"step-{step:06d}.png")
        self._found[step] = {
            **asdict(validation),
            "loss": validation.loss,
            "gain": validation.gain,
            # JSON has no word for what is not a number.
            "identity": {name: v for name, v in asdict(identity).items() if math.isfinite(v)},
        }
        with publish_file(self._folder / _FOUND_NAME) as aside:
            aside.write_text(
                json.dumps([self._found[step] for step in sorted(self._found)]), encoding="utf-8"
            )
        self._lines.put(f"pretrain {self._folder.name}: {validation.line()}, {identity.line()}")
