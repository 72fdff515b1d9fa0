"""Train several subjects in one forward: each row of the batch has adapters of its own.

The numbers are those of trainings apart: losses are summed, gradients are clipped subject by
subject, and AdamW treats every weight by itself. What is saved is the overhead of small products.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.choices import TextScope
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.lora import PATCH_LINEAR, LoraAdapter, LoraLayer
from dreambooth3d.model.routing import Routes
from dreambooth3d.training.optim import adamw
from dreambooth3d.training.settings import OptimConfig
from dreambooth3d.training.task import TrainBatch


class StackedLoras:
    """A `LoraSource` of adapters side by side that learns; equal shares of the rows are theirs."""

    def __init__(self, adapters: Sequence[LoraAdapter]) -> None:
        self._adapters = tuple(adapters)
        first = adapters[0]
        if any((a.role, a.rank) != (first.role, first.rank) for a in adapters):
            raise ConfigError(
                "adapters of one batch must have one role and rank, got several; group them"
            )
        self._factors = {key: self._stack(key) for key in first.layers}

    def _stack(self, key: str) -> tuple[nn.Parameter, nn.Parameter]:
        layers = [cast(LoraLayer, adapter.layers[key]) for adapter in self._adapters]
        sides = ("lora_A", "lora_B")
        weights = [[cast(Tensor, getattr(layer, s).weight) for layer in layers] for s in sides]
        A, B = (nn.Parameter(torch.stack([w.detach() for w in own])) for own in weights)
        return A, B

    def parameters(self) -> list[nn.Parameter]:
        """Factors, (subjects, ...) each."""
        return [factor for pair in self._factors.values() for factor in pair]

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy what was learned into the adapters."""
        for key, (A, B) in self._factors.items():
            for row, adapter in enumerate(self._adapters):
                layer = cast(LoraLayer, adapter.layers[key])
                cast(Tensor, layer.lora_A.weight).copy_(A[row])
                cast(Tensor, layer.lora_B.weight).copy_(B[row])

    def patch_delta(self, x_BCTHW: Tensor) -> Tensor:
        """Delta of the patch embedding, (B, N, D): one convolution with a group a subject."""
        A, B = self._factors[PATCH_LINEAR.replace(".", "/")]
        num = len(self._adapters)
        # (subjects * share, C, ...) -> (share, subjects * C, ...)
        x = x_BCTHW.unflatten(0, (num, -1)).transpose(0, 1).flatten(1, 2)
        low = F.conv3d(x, A.flatten(0, 1), stride=A.shape[-3:], groups=num)
        low_SNR = low.unflatten(1, (num, -1)).transpose(0, 1).flatten(3).transpose(2, 3)
        delta = torch.einsum("sbnr,sdr->sbnd", low_SNR, B.flatten(2)).flatten(0, 1)
        return delta * self._adapters[0].scale

    def image_delta(self, name: str, x_BND: Tensor) -> Tensor:
        """Delta of an image-side linear."""
        A, B = self._factors[name.replace(".", "/")]
        x_SLD = x_BND.unflatten(0, (len(self._adapters), -1)).flatten(1, 2)
        delta = torch.bmm(torch.bmm(x_SLD, A.transpose(1, 2)), B.transpose(1, 2))
        return delta.view(*x_BND.shape[:2], -1) * self._adapters[0].scale

    def text_delta(self, name: str, x_PD: Tensor, lengths: Sequence[int]) -> Tensor:
        """Delta of a text-side linear on packed text tokens."""
        A, B = self._factors[name.replace(".", "/")]
        share = len(lengths) // len(self._adapters)
        counts = [sum(lengths[i : i + share]) for i in range(0, len(lengths), share)]
        parts = [F.linear(F.linear(x, A[s]), B[s]) for s, x in enumerate(x_PD.split(counts))]
        return torch.cat(parts) * self._adapters[0].scale


class SubjectBatch:
    """Trainings of several subjects that go on together; `joint` attention or no references.

    Args:
        transformer: frozen.
        subjects, references: adapters of each subject; no references without views.
        optim: of every training.
        text_scope, reference_time_offset: as in `AdapterTask`.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        subjects: Sequence[LoraAdapter],
        references: Sequence[LoraAdapter],
        optim: OptimConfig,
        text_scope: TextScope,
        reference_time_offset: int = 0,
    ) -> None:
        self._transformer = transformer
        self._stacks = [StackedLoras(own) for own in (subjects, references) if own]
        self._routes = Routes(
            subject=self._stacks[0],
            reference=self._stacks[1] if references else None,
            text_scope=text_scope,
        )
        self._offset = reference_time_offset
        self._parameters = [p for stack in self._stacks for p in stack.parameters()]
        self._optim = optim
        self._optimizer = adamw(optim, self._parameters)

    def update(self, batches: Sequence[TrainBatch]) -> tuple[float, ...]:
        """One update of every subject from its own batch; the mean loss of each."""
        shares = [len(batch.texts) for batch in batches]
        if len(set(shares)) != 1:
            raise ConfigError(f"batches must have equally many rows, got {shares}; use one size")
        x0, noise, sigma = (
            torch.cat([getattr(batch, name) for batch in batches])
            for name in ("target_BCTHW", "noise_BCTHW", "sigma_B")
        )
        views = [
            batch.references_BVCHW.expand(shares[0], -1, -1, -1, -1)
            for batch in batches
            if batch.references_BVCHW is not None
        ]
        velocity = denoise(
            self._transformer,
            interpolate(x0, noise, sigma),
            sigma * 1000,
            [text for batch in batches for text in batch.texts],
            routes=self._routes,
            references_BVCHW=torch.cat(views) if views else None,
            reference_time_offset=self._offset,
        )
        losses_S = velocity_loss(velocity, x0, noise).view(len(batches), -1).mean(dim=1)
        torch.autograd.backward(losses_S.sum())
        self._clip()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return tuple(losses_S.tolist())

    def write_back(self) -> None:
        """Copy what was learned into the subjects' adapters."""
        for stack in self._stacks:
            stack.write_back()

    @torch.no_grad()
    def _clip(self) -> None:
        """Scale each subject's gradients down to the norm that it would be held to alone."""
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norms_S = torch.stack([g.flatten(1).square().sum(dim=1) for g in grads]).sum(dim=0).sqrt()
        factors_S = (self._optim.max_grad_norm / (norms_S + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factors_S.view(-1, *[1] * (grad.ndim - 1)))
