"""Rows of a batch: what is asked, with which adapter, how long each stage took."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.generate.generate import ClipRequest, LoadedSubject
from dreambooth3d.model.lora import LoraLayer, idle_names
from serve.orders import ClipOrder
from serve.records import Job


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One job of a batch, ready to run."""

    job: Job
    order: ClipOrder
    clip: ClipRequest


def describe_adapter(loaded: LoadedSubject) -> dict[str, JsonValue]:
    """Count the layers whose update is not zero, of those that can reach the output."""
    layers = [
        cast(LoraLayer, layer)
        for lora in loaded.loras.values()
        for name, layer in lora.layers.items()
        if name.replace("/", ".") not in idle_names(lora.num_blocks, lora.role)
    ]
    applied = sum(bool(cast(torch.Tensor, layer.lora_B.weight).any()) for layer in layers)
    return {
        "sha256": loaded.card.weights_sha256,
        "layers_applied": applied,
        "layers_expected": len(layers),
    }


class StageTimer:
    """Seconds of each stage of a batch; `queue` is the one stage that rows do not share."""

    def __init__(self, rows: Sequence[Row]) -> None:
        now = time.time()
        started = min(row.job.started_at or now for row in rows)
        self.shared: dict[str, float] = {"load": max(0.0, now - started)}
        self._marked_at = time.monotonic()

    def mark(self, stage: str) -> float:
        """Count the seconds since the last mark to a stage, and return them."""
        now = time.monotonic()
        spent, self._marked_at = now - self._marked_at, now
        self.shared[stage] = self.shared.get(stage, 0.0) + spent
        return spent

    def of(self, row: Row) -> dict[str, float]:
        """Seconds of one row's stages."""
        waited = (row.job.started_at or row.job.created_at) - row.job.created_at
        return {"queue": waited} | self.shared


def clip_request(order: ClipOrder, subject: LoadedSubject | None) -> ClipRequest:
    """Word an order as the generate stage takes it."""
    return ClipRequest(
        prompt=order.prompt,
        subject=subject,
        seed=order.seed,
        num_frames=order.num_frames,
        width=order.width,
        height=order.height,
        num_steps=order.num_steps,
        guidance_scale=order.guidance_scale,
        reference_guidance_scale=order.reference_scale,
        flow_shift=order.flow_shift,
        negative_prompt=order.negative_prompt,
    )


def provenance(row: Row, revision: str) -> dict[str, JsonValue]:
    """Say what a clip was made from, for its container."""
    order, subject = row.order, row.clip.subject
    return {
        "job": row.job.id,
        "model": order.model,
        "backbone_revision": revision,
        "subject": order.subject,
        "adapter_key": None if subject is None else subject.card.key,
        "adapter_sha256": None if subject is None else subject.card.weights_sha256,
        "prompt": order.prompt,
        "prompt_sha256": hashlib.sha256(order.prompt.encode()).hexdigest(),
        "negative_prompt": order.negative_prompt,
        "seed": order.seed,
        "sampler": "euler",
        "steps": order.num_steps,
        "guidance_scale": order.guidance_scale,
        "reference_scale": order.reference_scale,
        "flow_shift": order.flow_shift,
        "fps": order.fps,
    }
