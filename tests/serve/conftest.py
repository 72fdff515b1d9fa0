import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard, save_adapter
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.lora import LoraAdapter
from serve.settings import ServeSettings
from tests.serve.served import Served

AddSubject = Callable[..., Path]


class Clock:
    """Stands still until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture
def settings(miniature: Path, tmp_path: Path) -> ServeSettings:
    return ServeSettings(
        # The packaged 3Dapter is not of this backbone.
        pretrained="",
        backbone=str(miniature),
        runs=str(tmp_path / "runs"),
        max_batch=4,
        lease_s=5,
        poll_s=0.02,
    )


@pytest.fixture
def served(settings: ServeSettings, backbone: Backbone) -> Served:
    return Served(settings, backbone)


@pytest.fixture
def add_subject(backbone: Backbone, settings: ServeSettings) -> AddSubject:
    """Write a subject adapter with random weights where `personalize_batch` leaves them."""

    def add(
        name: str,
        *,
        batch: str = "batch1",
        revision: str | None = None,
        reference_attention: str = "joint",
        seed: int = 1,
    ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for role in ("reference", "subject"):
            lora = LoraAdapter(backbone.transformer, role=role, rank=2)
            weights[role] = {
                f"transformer.{key}": torch.randn(value.shape, generator=generator) * 0.1
                for key, value in lora.weights().items()
            }
        card = AdapterCard(
            kind="subject",
            backbone="tiny",
            backbone_revision=revision or backbone.card.revision,
            rank=2,
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
            key=f"{seed:016x}",
        )
        folder = settings.subjects_root / batch / "adapters" / name
        view = Image.new("RGB", (32, 32), (200, 30 * seed % 256, 40))
        save_adapter(folder, Adapter(card, weights, (view,)))
        return folder

    return add


@pytest.fixture
def in_threads() -> Callable[[list[Callable[[], object]]], None]:
    def run(tasks: list[Callable[[], object]]) -> None:
        threads = [threading.Thread(target=task) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


@pytest.fixture
def deadline() -> Callable[[Callable[[], bool]], None]:
    def wait_for(is_done: Callable[[], bool], *, seconds: float = 20.0) -> None:
        ends = time.monotonic() + seconds
        while not is_done():
            assert time.monotonic() < ends, "gave up waiting"
            time.sleep(0.01)

    return wait_for
