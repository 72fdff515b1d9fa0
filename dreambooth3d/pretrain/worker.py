"""One rank of a training on Ray Train: it trains; the first one speaks, saves and publishes."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue

from dreambooth3d.artifacts.adapter import Adapter, save_adapter
from dreambooth3d.artifacts.key import publish
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.model.backbone import Denoiser, read_card
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.judge import PICTURES_NAME
from dreambooth3d.pretrain.pretrain import (
    PairExamples,
    has_latents,
    train_adapter,
    training_side,
)
from dreambooth3d.runtime.backbones import warm_backbone, warm_denoiser
from dreambooth3d.training.checkpoint import Checkpoint
from dreambooth3d.training.loop import FitResult, Progress

STAGE = "pretrain"
SPLIT = "train"
CURVE_NAME = "curve.json"
# A preemption is announced a minute or more ahead; asking makes the workers wait for each other.
_LOOK_EVERY = 5


class _Rank:
    """What one rank tells the driver, and asks of the cluster."""

    def __init__(self, config: PretrainConfig, key: str, lines: Queue, judge: Any) -> None:
        self._config, self._key, self._lines = config, key, lines
        self._judge = judge
        self._is_saved = False
        self.is_first = ray.train.get_context().get_world_rank() == 0

    def on_start(self, step: int) -> None:
        """Say where an interrupted training goes on."""
        if step:
            self._say(f"goes on from the checkpoint of step {step}/{self._config.steps}")

    def on_step(self, progress: Progress) -> None:
        """Report every so many updates."""
        if progress.step % self._config.log_every == 0 or progress.step == self._config.steps:
            ray.train.report({"step": progress.step, "loss": progress.loss})
            self._say(progress.line())

    def must_save(self, step: int) -> bool:
        """Whether a node of the training has been told to go; true once."""
        if self._is_saved or step % _LOOK_EVERY or ray.train.get_preemption_info() is None:
            return False
        self._is_saved = True
        self._say(f"a node is about to go, saving at step {step}")
        return True

    def on_save(self, checkpoint: Checkpoint) -> None:
        """Hand the weights to who judges them; the training does not wait."""
        if self._judge is not None:
            self._judge.judge.remote(checkpoint.step, checkpoint.average or checkpoint.weights)

    def validations(self) -> list[dict[str, Any]]:
        """What has been found of every checkpoint; waits for the last one."""
        found: list[dict[str, Any]] = (
            [] if self._judge is None else ray.get(self._judge.results.remote())
        )
        return found

    def _say(self, line: str) -> None:
        if self.is_first:
            self._lines.put(f"pretrain {self._key}: {line}")


def train_rank(arguments: Mapping[str, Any]) -> None:
    """One rank; every rank trains, the first one speaks, saves and publishes."""
    import torch

    torch.set_num_threads(int(arguments["threads"]))
    config = PretrainConfig(**arguments["config"])
    out, key = Path(arguments["out"]), str(arguments["key"])
    rank = _Rank(config, key, arguments["lines"], arguments["judge"])
    backbone, examples = _load(config, arguments["corpus"])
    adapter, result = train_adapter(
        config,
        backbone,
        examples,
        run_key=key,
        folder=out / ".checkpoints" / key,
        on_start=rank.on_start,
        on_step=rank.on_step,
        must_save=rank.must_save,
        on_save=rank.on_save,
    )
    if rank.is_first:
        _publish(config, adapter, result, rank.validations(), out / key)
        shutil.rmtree(out / ".checkpoints" / key, ignore_errors=True)


def _publish(
    config: PretrainConfig,
    adapter: Adapter,
    result: FitResult,
    validations: list[dict[str, Any]],
    final: Path,
) -> None:
    key = final.name
    pictures = final.parent / ".checkpoints" / key / PICTURES_NAME
    with publish(final) as aside:
        if pictures.is_dir():
            shutil.copytree(pictures, aside / PICTURES_NAME)
        card = save_adapter(aside, adapter)
        curve = {
            "loss": list(result.losses),
            "first_step": result.first_step,
            "step_seconds": result.step_seconds,
            "data_share": result.data_share,
            "validations": validations,
        }
        (aside / CURVE_NAME).write_text(json.dumps(curve), encoding="utf-8")
        Manifest(
            stage=STAGE,
            key=key,
            config=versioned(config),
            parents=card.parents,
            outputs={"weights_sha256": card.weights_sha256, "curve": CURVE_NAME},
        ).save(aside)


def _load(config: PretrainConfig, place: Place) -> tuple[Denoiser, PairExamples]:
    """Load what this training needs of the backbone: no encoders where the corpus has latents."""
    corpus, card = PairCorpus.open(place, split=SPLIT), read_card(config.backbone)
    side = training_side(config, card)
    if has_latents(config, corpus, card):
        denoiser = warm_denoiser(config.backbone, config.precision)
        return denoiser, PairExamples(corpus, None, side, device=denoiser.device)
    backbone = warm_backbone(config.backbone, config.precision)
    return backbone, PairExamples(corpus, backbone, side)


def versioned(config: PretrainConfig) -> dict[str, Any]:
    """Settings of the key; what is trained and from where counts as a parent, not by its path."""
    return {k: v for k, v in versioned_fields(config).items() if k not in ("backbone", "start")}
