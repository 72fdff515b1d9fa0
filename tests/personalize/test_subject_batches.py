import pytest
import torch
from torch import nn

from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.personalize.subject_batches import StackedLoras, SubjectBatch
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.settings import OptimConfig
from dreambooth3d.training.task import AdapterTask, TrainBatch

OPTIM = OptimConfig(lr=1e-2, max_grad_norm=0.05)
NOUNS = ("car", "rubber duck that is red")


@pytest.fixture(scope="module")
def backbone(miniature: object) -> Backbone:
    return load_backbone(str(miniature))


def adapters(backbone: nn.Module, row: int) -> tuple[LoraAdapter, LoraAdapter]:
    subject, reference = (
        LoraAdapter(backbone, role=role, rank=4, seed=row) for role in ("subject", "reference")
    )
    for adapter in (subject, reference):
        draw = torch.Generator().manual_seed(row)
        for name, weight in adapter.named_weights():
            if "lora_B" in name:
                weight.data.copy_(0.1 * torch.randn(weight.shape, generator=draw))
    return subject, reference


def batch(backbone: Backbone, row: int, step: int, *, has_views: bool) -> TrainBatch:
    draw = torch.Generator().manual_seed(100 * row + step)
    shape = (2, backbone.codec.num_channels, 1, 4, 4)
    views = torch.randn(1, 3, shape[1], 4, 4, generator=draw)
    return TrainBatch(
        target_BCTHW=torch.randn(shape, generator=draw),
        noise_BCTHW=torch.randn(shape, generator=draw),
        sigma_B=torch.rand(2, generator=draw),
        texts=(backbone.prompts(f"a video of a [sks {NOUNS[row]}]"),) * 2,
        references_BVCHW=views if has_views else None,
    )


@pytest.mark.parametrize("has_views", [True, False])
def test_subjects_trained_together_are_those_trained_apart(
    backbone: Backbone, has_views: bool
) -> None:
    together = [adapters(backbone.transformer, row) for row in range(2)]
    batches = SubjectBatch(
        backbone.transformer,
        subjects=[subject for subject, _ in together],
        references=[reference for _, reference in together] if has_views else [],
        optim=OPTIM,
        text_scope="span",
    )
    losses = [
        batches.update([batch(backbone, row, step, has_views=has_views) for row in range(2)])
        for step in range(3)
    ]
    batches.write_back()
    for row in range(2):
        subject, reference = adapters(backbone.transformer, row)
        task = AdapterTask(
            backbone.transformer, subject=subject, reference=reference if has_views else None,
            text_scope="span",
        )  # fmt: skip
        engine = TorchEngine(task, OPTIM)
        for step in range(3):
            loss, _ = engine.update([batch(backbone, row, step, has_views=has_views)], OPTIM.lr)
            assert loss == pytest.approx(losses[step][row], rel=1e-4)
        for adapter, own in zip((subject, reference), together[row], strict=True):
            for name, weight in adapter.weights().items():
                torch.testing.assert_close(weight, own.weights()[name], atol=2e-4, rtol=0)


def test_adapters_of_different_ranks_are_refused(backbone: Backbone) -> None:
    small = LoraAdapter(backbone.transformer, role="subject", rank=2)
    with pytest.raises(ConfigError, match="must have one role and rank"):
        StackedLoras([small, LoraAdapter(backbone.transformer, role="subject", rank=4)])
