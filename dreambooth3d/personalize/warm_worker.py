"""What a worker does: load once, then one subject after the other (see `runtime.warm.Work`)."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import load_adapter, load_card, save_adapter
from dreambooth3d.artifacts.jsonfile import read_json
from dreambooth3d.artifacts.key import exclusive, publish
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.errors import ArtifactError, Dreambooth3dError, InputError, StoppedError
from dreambooth3d.personalize.keys import (
    CURVE_NAME,
    STAGE,
    checkpoints_of,
    home_of,
    key_of,
    saved_step,
    versioned,
)
from dreambooth3d.personalize.orders import Order
from dreambooth3d.personalize.outcome import Evidence, Judgement, Outcome, failed, stopped
from dreambooth3d.personalize.personalize import train_subject
from dreambooth3d.runtime.backbones import warm_backbone
from dreambooth3d.training.loop import Progress

SAMPLES = "samples"
# Sums in another number of threads round otherwise: a subject must come out the same alone, in a
# batch, and when the batch is gone on with.
THREADS = 1
_TELL_SECONDS = 1.0
_CURVE_FIELDS = {
    "loss", "step_seconds", "seconds", "cost_seconds", "judgements", "best_step", "refused",
}  # fmt: skip


def warm_up(settings: Mapping[str, Any]) -> None:
    """Load the backbone that every order uses."""
    import torch

    torch.set_num_threads(THREADS)
    warm_backbone(settings["backbone"], settings["precision"])


def work(order: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train one subject; errors that trying again cannot mend come back as an outcome."""
    import torch

    torch.set_num_threads(THREADS)
    given = Order.from_json(order)
    with exclusive(given.out, given.key):
        try:
            outcome = _train_or_keep(given, tell)
        except StoppedError:
            outcome = left_off(given)
        except Dreambooth3dError as error:
            outcome = failed(given.config, given.subject, given.key, str(error))
    return asdict(outcome)


def left_off(order: Order) -> Outcome:
    """Describe a training that was stopped with its batch, by what is saved of it."""
    saved = saved_step(order.out, order.key)
    return stopped(order.config, order.subject, order.key, steps=saved)


def kept(order: Order) -> Outcome:
    """Describe an adapter that is there."""
    home = home_of(order.out, order.key)
    curve: dict[str, Any] = read_json(home / CURVE_NAME, what="loss curve")
    if missing := sorted(_CURVE_FIELDS - set(curve)):
        raise ArtifactError(
            f"loss curve must hold {missing[0]}, got none in {home / CURVE_NAME}; "
            "personalize the subject again"
        )
    losses = curve["loss"]
    head = max(1, len(losses) // 10)
    identities = [
        (found["step"], found["identity"])
        for found in curve["judgements"]
        if found["identity"] is not None
    ]
    best = dict(identities).get(curve["best_step"])
    return Outcome(
        subject=order.subject.id,
        status="kept",
        key=order.key,
        method=order.config.method,
        steps=len(losses),
        first_loss=sum(losses[:head]) / head if losses else None,
        last_loss=sum(losses[-head:]) / head if losses else None,
        seconds=round(float(curve["seconds"]), 2),
        cost_seconds=round(float(curve["cost_seconds"]), 2),
        identity_before=identities[0][1] if identities else None,
        identity_after=best,
        best_step=curve["best_step"],
        adapter=f"adapters/{order.subject.id}",
        sha256=load_card(home).weights_sha256,
        refused="; ".join(f"{name}: {reason}" for name, reason in curve["refused"].items()),
    )


def _train_or_keep(order: Order, tell: Callable[[dict[str, Any]], None]) -> Outcome:
    home, checkpoints = home_of(order.out, order.key), checkpoints_of(order.out, order.key)
    if home.is_dir():
        return kept(order)
    _check_key(order)
    watch = _Watch(order, tell)
    backbone = warm_backbone(order.config.backbone, order.config.precision)
    adapter, found = train_subject(
        order.config,
        order.subject,
        backbone,
        None if order.pretrained is None else load_adapter(order.pretrained),
        key=order.key,
        parents=order.parents,
        folder=checkpoints,
        on_step=watch.on_step,
        must_end=watch.must_end,
    )
    try:
        _check_key(order)
    except InputError:
        shutil.rmtree(checkpoints, ignore_errors=True)
        raise
    with publish(home) as aside:
        card = save_adapter(aside, adapter)
        write_evidence(
            aside,
            found,
            cost_share=THREADS if backbone.device.type == "cpu" else order.config.gpus_per_subject,
        )
        Manifest(
            stage=STAGE,
            key=order.key,
            config=versioned(order.config),
            parents=order.parents,
            outputs={"weights_sha256": card.weights_sha256, "curve": CURVE_NAME},
        ).save(aside)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return replace(kept(order), status="trained")


def _check_key(order: Order) -> None:
    """Refuse pictures that are others than those the key was made of."""
    if key_of(order.config, order.subject, order.parents) != order.key:
        raise InputError(
            f"pictures of {order.subject.id} must stay as they were when the batch began, got "
            "others; run the command again to train on what is there"
        )


def write_evidence(folder: Path, found: Evidence, *, cost_share: float) -> None:
    """Write curve, judgements and sample pictures beside an adapter.

    Args:
        folder: of the adapter.
        found: what is known of its training.
        cost_share: of cores, or of GPUs, that the training held.
    """
    curve = {
        "loss": list(found.losses),
        "seconds": found.seconds,
        "cost_seconds": found.seconds * cost_share,
        "step_seconds": found.step_seconds,
        "judgements": [asdict(judgement) for judgement in found.judgements],
        "best_step": found.best_step,
        "refused": dict(found.refused),
    }
    (folder / CURVE_NAME).write_text(json.dumps(curve), encoding="utf-8")
    for step, picture in found.samples.items():
        path = folder / SAMPLES / f"step-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        picture.save(path, format="PNG")


class _Watch:
    """Tells how far a training is, and ends it when the batch is to end."""

    def __init__(self, order: Order, tell: Callable[[dict[str, Any]], None]) -> None:
        self._order, self._tell = order, tell
        self._told_at = 0.0

    def on_step(self, progress: Progress, judged: Judgement | None) -> None:
        """Told after every update, with the last judgement."""
        now = time.monotonic()
        if now - self._told_at >= _TELL_SECONDS or progress.step == progress.num_steps:
            self._told_at = now
            self._tell(
                {
                    "subject": self._order.subject.id,
                    "step": progress.step,
                    "num_steps": progress.num_steps,
                    "loss": progress.loss,
                    "identity": None if judged is None else judged.identity,
                    "judged_at": None if judged is None else judged.step,
                }
            )

    def must_end(self) -> bool:
        """Whether the batch is to end."""
        return self._order.stop.exists()
