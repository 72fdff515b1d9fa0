"""The adapter-training task: one batch in, one loss out (method, section 4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dreambooth3d.diffusion.noise import draw_noise, draw_sigma, keyed_generator
from dreambooth3d.diffusion.path import interpolate, velocity_loss
from dreambooth3d.model.choices import ReferenceAttention, TextScope
from dreambooth3d.model.forward import denoise, encode_references
from dreambooth3d.model.lora import LoraAdapter, Role
from dreambooth3d.model.routing import Routes
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.engine import autocast
from dreambooth3d.training.order import Draw


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One encoded training sample.

    Attributes:
        target_CTHW: clean latents of the target.
        references_VCHW: clean latents of the views; None when the method uses none.
        caption: encoded prompt.
        weight_HW: of each latent in the loss; None weighs all alike.
    """

    target_CTHW: Tensor
    references_VCHW: Tensor | None
    caption: TextStates
    weight_HW: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainBatch:
    """A rank's rows of one batch; `references` has one row when all rows share their views."""

    target_BCTHW: Tensor
    noise_BCTHW: Tensor
    sigma_B: Tensor
    texts: tuple[TextStates, ...]
    references_BVCHW: Tensor | None
    weight_B11HW: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchRules:
    """What is drawn for each sample.

    Attributes:
        seed: of the training; with a draw's place it names every random number.
        sigma_shift: k of the noise-level shift.
        text_dropout: share of samples that get `null_text`, which trains classifier-free guidance.
        reference_dropout: share of samples that get `null_references` (views of nothing on white),
            so that reference guidance has its unconditional branch.
        has_shared_references: all samples have the same views; keep one row of them.
    """

    seed: int
    sigma_shift: float
    text_dropout: float = 0.0
    null_text: TextStates | None = None
    reference_dropout: float = 0.0
    null_references_VCHW: Tensor | None = None
    has_shared_references: bool = False


def build_batch(
    draws: Sequence[Draw],
    load: Callable[[int], Example],
    rules: BatchRules,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> TrainBatch:
    """Assemble a batch; each sample's draws depend on its place in the stream alone."""
    targets, noises, sigmas, texts, references, weights = [], [], [], [], [], []
    for draw in draws:
        example = load(draw.sample)
        generator = keyed_generator("train", rules.seed, draw.place)
        sigmas.append(draw_sigma(generator, shift=rules.sigma_shift))
        chances = torch.rand(2, generator=generator)
        noises.append(draw_noise(example.target_CTHW.shape, generator))
        targets.append(example.target_CTHW)
        if example.weight_HW is not None:
            weights.append(example.weight_HW)
        is_textless = rules.null_text is not None and bool(chances[0] < rules.text_dropout)
        text = rules.null_text if is_textless else example.caption
        assert text is not None
        texts.append(text.to(device))
        is_blank = rules.null_references_VCHW is not None and bool(
            chances[1] < rules.reference_dropout
        )
        references.append(rules.null_references_VCHW if is_blank else example.references_VCHW)
    views = [r for r in references if r is not None]
    stacked = torch.stack(views[:1] if rules.has_shared_references else views) if views else None
    return TrainBatch(
        target_BCTHW=torch.stack(targets).to(device, dtype),
        noise_BCTHW=torch.stack(noises).to(device, dtype),
        sigma_B=torch.stack(sigmas).to(device),
        texts=tuple(texts),
        references_BVCHW=None if stacked is None else stacked.to(device, dtype),
        weight_B11HW=torch.stack(weights)[:, None, None].to(device) if weights else None,
    )


class AdapterTask(nn.Module):
    """Frozen backbone plus the adapters that learn; `forward` is the mean velocity loss.

    Args:
        transformer: the backbone; frozen by its loader.
        subject, reference: adapters in play; those with `requires_grad` learn.
        reference_attention: `joint` or `isolated`.
        reference_time_offset: added to the time index of every view.
        text_scope: which text tokens the subject adapter acts on.
        is_checkpointed: recompute blocks in the backward pass to save memory.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        subject: LoraAdapter | None,
        reference: LoraAdapter | None,
        reference_attention: ReferenceAttention = "joint",
        reference_time_offset: int = 0,
        text_scope: TextScope = "prompt",
        is_checkpointed: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.subject = subject
        self.reference = reference
        self._attention: ReferenceAttention = reference_attention
        self._offset = reference_time_offset
        self._text_scope: TextScope = text_scope
        self._is_checkpointed = is_checkpointed

    def forward(self, batch: TrainBatch) -> Tensor:
        """Mean loss over the rows, fp32 scalar."""
        return self.row_losses(batch).mean()

    def row_losses(self, batch: TrainBatch) -> Tensor:
        """Loss of each row, (B,)."""
        velocity = self.velocity(
            interpolate(batch.target_BCTHW, batch.noise_BCTHW, batch.sigma_B),
            batch.sigma_B,
            batch.texts,
            batch.references_BVCHW,
        )
        return velocity_loss(velocity, batch.target_BCTHW, batch.noise_BCTHW, batch.weight_B11HW)

    def velocity(
        self,
        x_BCTHW: Tensor,
        sigma_B: Tensor,
        texts: Sequence[TextStates],
        references_BVCHW: Tensor | None,
    ) -> Tensor:
        """Predict the velocity at noise levels 0..1; one row of references serves all.

        Beside a backbone of bf16 adapters stay fp32, in a training and when they are judged.
        """
        precision = next(self.transformer.parameters()).dtype
        with autocast(x_BCTHW.device.type, precision):
            routes = Routes(
                subject=self.subject, reference=self.reference, text_scope=self._text_scope
            )
            references, kv = references_BVCHW, None
            if references is not None and self._attention == "isolated":
                kv = encode_references(
                    self.transformer,
                    references,
                    reference=self.reference,
                    reference_time_offset=self._offset,
                    is_checkpointed=self._is_checkpointed,
                )
                references = None
            elif references is not None:
                references = references.expand(len(texts), -1, -1, -1, -1)
            return denoise(
                self.transformer,
                x_BCTHW,
                sigma_B * 1000,
                texts,
                routes=routes,
                references_BVCHW=references,
                reference_kv=kv,
                reference_time_offset=self._offset,
                is_checkpointed=self._is_checkpointed,
            )

    def adapter_weights(self, trained: Mapping[str, Tensor]) -> dict[Role, dict[str, Tensor]]:
        """Sort an engine's weights by adapter, in diffusers' names; frozen adapters as they are."""
        found: dict[Role, dict[str, Tensor]] = {}
        for lora in (self.reference, self.subject):
            if lora is None:
                continue
            prefix = f"{lora.role}.layers."
            fresh = {
                name.removeprefix(prefix).replace("/", "."): tensor
                for name, tensor in trained.items()
                if name.startswith(prefix)
            }
            found[lora.role] = fresh or lora.weights()
        return found

    def train(self, mode: bool = True) -> "AdapterTask":
        """Keep the frozen backbone in evaluation mode."""
        super().train(mode)
        self.transformer.eval()
        return self
