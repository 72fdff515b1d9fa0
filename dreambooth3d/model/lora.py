"""Low-rank adapters as plain modules beside the backbone, never inside it.

The backbone is not patched: the forward asks an adapter for the delta of one named linear on the
tokens that the adapter owns (arXiv 2603.18524, section 3; the routing table is in `forward.py`).
So one backbone serves any number of adapters, from any number of threads.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.errors import AdapterError

Role = Literal["reference", "subject"]

PATCH_LINEAR = "x_embedder.proj"
IMAGE_LINEARS = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
)
TEXT_LINEARS = (
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "ff_context.net.0.proj",
    "ff_context.net.2",
)


class LoraSource(Protocol):
    """What the forward needs of an adapter, or of a batch row's own adapters."""

    def patch_delta(self, x_BCTHW: Tensor) -> Tensor:
        """Delta of the patch embedding, (B, N, D)."""

    def image_delta(self, name: str, x_BND: Tensor) -> Tensor:
        """Delta of an image-side linear."""

    def text_delta(self, name: str, x_PD: Tensor, lengths: Sequence[int]) -> Tensor:
        """Delta of a text-side linear on packed text tokens."""


def target_names(num_blocks: int, role: Role) -> tuple[str, ...]:
    """List the linears an adapter of this role acts on, in diffusers' names.

    `reference` acts on the patch embedding and six image-side linears a block; `subject` adds the
    six text-side ones.
    """
    linears = IMAGE_LINEARS if role == "reference" else IMAGE_LINEARS + TEXT_LINEARS
    blocks = (f"transformer_blocks.{i}.{name}" for i in range(num_blocks) for name in linears)
    return (PATCH_LINEAR, *blocks)


def idle_names(num_blocks: int, role: Role) -> frozenset[str]:
    """List the linears of an adapter that cannot reach the output: their `lora_B` stays zero.

    In the last block that is q, out and MLP of the references (role `reference`) and of the text
    (role `subject`).
    """
    if role == "reference":
        linears: tuple[str, ...] = ("attn.to_q", "attn.to_out.0", "ff.net.0.proj", "ff.net.2")
    else:
        linears = (
            "attn.add_q_proj",
            "attn.to_add_out",
            "ff_context.net.0.proj",
            "ff_context.net.2",
        )
    return frozenset(f"transformer_blocks.{num_blocks - 1}.{name}" for name in linears)


class LoraLayer(nn.Module):
    """`B(A(x))` for one linear or patch convolution; `lora_B` starts at zero."""

    def __init__(self, base: nn.Module, rank: int) -> None:
        super().__init__()
        self.lora_A: nn.Module
        self.lora_B: nn.Module
        device = cast(Tensor, base.weight).device
        if isinstance(base, nn.Conv3d):
            kernel = cast("tuple[int, int, int]", base.kernel_size)
            self.lora_A = nn.Conv3d(
                base.in_channels, rank, kernel, stride=kernel, bias=False, device=device
            )
            self.lora_B = nn.Conv3d(rank, base.out_channels, 1, bias=False, device=device)
        elif isinstance(base, nn.Linear):
            self.lora_A = nn.Linear(base.in_features, rank, bias=False, device=device)
            self.lora_B = nn.Linear(rank, base.out_features, bias=False, device=device)
        else:
            raise AdapterError(
                f"a LoRA target must be Linear or Conv3d, got {type(base).__name__}; "
                "use the backbone of this method, a HunyuanVideo15Transformer3DModel"
            )

    def reset(self, generator: torch.Generator) -> None:
        """Draw `lora_A` as PEFT does (Kaiming uniform), set `lora_B` to zero."""
        weight_A = cast(Tensor, self.lora_A.weight)
        bound = 1 / math.sqrt(weight_A[0].numel())
        drawn = torch.empty(weight_A.shape).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            weight_A.copy_(drawn)
            cast(Tensor, self.lora_B.weight).zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Apply both factors through their modules (ZeRO-3 gathers weights by module hooks)."""
        return cast(Tensor, self.lora_B(self.lora_A(x)))


class LoraAdapter(nn.Module):
    """All LoRA layers of one role; a `LoraSource` shared by every row of the batch.

    Weights are fp32 until moved: bf16 adapters at learning rate 1e-4 lose most updates.
    """

    def __init__(
        self, transformer: nn.Module, *, role: Role, rank: int, scale: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.role: Role = role
        self.num_blocks = len(cast(nn.ModuleList, transformer.transformer_blocks))
        self.rank = rank
        self.scale = scale
        names = target_names(self.num_blocks, role)
        # ModuleDict keys may not hold dots.
        self.layers = nn.ModuleDict(
            {n.replace(".", "/"): LoraLayer(transformer.get_submodule(n), rank) for n in names}
        )
        if cast(Tensor, next(self.parameters())).device.type != "meta":
            generator = torch.Generator().manual_seed(seed)
            for layer in self.layers.values():
                cast(LoraLayer, layer).reset(generator)

    def layer(self, name: str) -> LoraLayer:
        """Look a layer up by diffusers' name of its linear."""
        return cast(LoraLayer, self.layers[name.replace(".", "/")])

    def patch_delta(self, x_BCTHW: Tensor) -> Tensor:
        """Delta of the patch embedding, (B, N, D)."""
        delta: Tensor = self.layer(PATCH_LINEAR)(x_BCTHW)
        return delta.flatten(2).transpose(1, 2) * self.scale

    def image_delta(self, name: str, x_BND: Tensor) -> Tensor:
        """Delta of an image-side linear."""
        return cast(Tensor, self.layer(name)(x_BND) * self.scale)

    def text_delta(self, name: str, x_PD: Tensor, lengths: Sequence[int]) -> Tensor:
        """Delta of a text-side linear on packed text tokens."""
        return cast(Tensor, self.layer(name)(x_PD) * self.scale)

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield `<linear>.lora_A.weight` and `.lora_B.weight` in diffusers' names."""
        for key, parameter in self.layers.named_parameters():
            yield key.replace("/", "."), parameter

    def weights(self) -> dict[str, Tensor]:
        """Copy the weights out, detached, on the CPU, in fp32."""
        return {
            name: w.detach().to("cpu", torch.float32, copy=True) for name, w in self.named_weights()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights in; every name and shape must be there.

        Raises:
            AdapterError: names the first missing, unknown or misshapen tensor.
        """
        own = dict(self.named_weights())
        for name in sorted(own.keys() ^ weights.keys()):
            problem = "missing" if name in own else "unknown"
            raise AdapterError(
                f"adapter tensors must be those of a {self.role!r} adapter of this backbone, "
                f"got {name!r} {problem}; use an adapter trained for this backbone"
            )
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != weights[name].shape:
                    raise AdapterError(
                        f"adapter tensor {name!r} must have shape {tuple(parameter.shape)}, "
                        f"got {tuple(weights[name].shape)}; "
                        "use an adapter trained for this backbone"
                    )
                parameter.copy_(weights[name])


class RowLoras:
    """A `LoraSource` with an adapter of its own for every row of the batch (or none for a row).

    The factors are stacked once, so a batch of different subjects costs one batched product a
    linear. Inference only.
    """

    def __init__(self, rows: Sequence[LoraAdapter | None]) -> None:
        present = [row for row in rows if row is not None]
        if not present:
            raise AdapterError("RowLoras must get at least one adapter, got none; pass no source")
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        rank = max(adapter.rank for adapter in present)
        with torch.no_grad():
            for key in present[0].layers:
                self._factors[key] = _stack_layer(rows, key, rank)

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self._factors[name.replace(".", "/")]

    def patch_delta(self, x_BCTHW: Tensor) -> Tensor:
        """Delta of the patch embedding, (B, N, D): one convolution with a group a row."""
        A, B = self._pair(PATCH_LINEAR)
        num_rows, rank = A.shape[:2]
        x = x_BCTHW.reshape(1, -1, *x_BCTHW.shape[2:])
        low = F.conv3d(x, A.flatten(0, 1), stride=A.shape[-3:], groups=num_rows)
        low_BNR = low.reshape(num_rows, rank, -1).transpose(1, 2)
        return torch.bmm(low_BNR, B.flatten(2).transpose(1, 2))

    def image_delta(self, name: str, x_BND: Tensor) -> Tensor:
        """Delta of an image-side linear."""
        A, B = self._pair(name)
        return torch.bmm(torch.bmm(x_BND, A.transpose(1, 2)), B.transpose(1, 2))

    def text_delta(self, name: str, x_PD: Tensor, lengths: Sequence[int]) -> Tensor:
        """Delta of a text-side linear on packed text tokens, row by row."""
        A, B = self._pair(name)
        rows = x_PD.split(list(lengths))
        return torch.cat([F.linear(F.linear(x, A[i]), B[i]) for i, x in enumerate(rows)])


def _stack_layer(rows: Sequence[LoraAdapter | None], key: str, rank: int) -> tuple[Tensor, Tensor]:
    """Stack one layer's factors over rows, zero-padded to `rank`, the scale folded into B."""
    some = next(row for row in rows if row is not None)
    like = cast(LoraLayer, some.layers[key])
    like_A, like_B = cast(Tensor, like.lora_A.weight), cast(Tensor, like.lora_B.weight)
    A = like_A.new_zeros(len(rows), rank, *like_A.shape[1:])
    B = like_B.new_zeros(len(rows), like_B.shape[0], rank, *like_B.shape[2:])
    for i, row in enumerate(rows):
        if row is not None:
            layer = cast(LoraLayer, row.layers[key])
            A[i, : row.rank] = cast(Tensor, layer.lora_A.weight)
            B[i, :, : row.rank] = cast(Tensor, layer.lora_B.weight) * row.scale
    return A, B
