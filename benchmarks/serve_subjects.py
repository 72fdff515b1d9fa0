"""What the rows of serving ask for: subjects, and a free port."""

import socket
from pathlib import Path

import torch
from PIL import Image

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard, save_adapter
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.choices import ReferenceAttention
from dreambooth3d.model.lora import LoraAdapter, Role

_RANK = 16
_ROLES: tuple[Role, ...] = ("reference", "subject")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def add_subjects(
    runs: Path,
    num_subjects: int,
    *,
    seed: int,
    backbone: Backbone | None = None,
    reference_attention: ReferenceAttention = "joint",
) -> list[str]:
    """Write subject adapters of the published rank where `personalize_batch` leaves its own.

    Their weights are random: what is measured is serving, which costs the same whatever they say.
    """
    backbone = backbone or load_backbone("tiny")
    names = [f"subject{number}" for number in range(num_subjects)]
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        weights: dict[Role, dict[str, torch.Tensor]] = {}
        for role in _ROLES:
            lora = LoraAdapter(backbone.transformer, role=role, rank=_RANK)
            weights[role] = {
                f"transformer.{key}": torch.randn(value.shape, generator=generator) * 0.02
                for key, value in lora.weights().items()
            }
        card = AdapterCard(
            kind="subject",
            backbone="tiny",
            backbone_revision=backbone.card.revision,
            rank=_RANK,
            scale=1.0,
            reference_attention=reference_attention,
            reference_time_offset=32,
            method="joint",
            trigger="sks",
            class_noun="mug",
            subject=name,
            num_views=1,
            steps=1,
            seed=seed,
            parents=(),
            key=f"{seed * 1000 + number:016x}",
        )
        view = Image.new("RGB", (64, 64), (200, 25 * number % 256, 40))
        save_adapter(runs / "personalize" / "proof" / "adapters" / name,
                     Adapter(card, weights, (view,)))  # fmt: skip
    return names
