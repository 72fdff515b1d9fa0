"""Text states as the blocks see them: packed, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dreambooth3d.errors import ConfigError


@dataclass(frozen=True, eq=False)
class TextStates:
    """One prompt, encoded. Only real tokens are held.

    Attributes:
        states_SD: text encoder states, (S, text_embed_dim).
        glyphs_GD: ByT5 states of "quoted" words, (G, text_embed_2_dim); None without any.
        span: token range [start, end) in `states_SD` that names the subject; None when unmarked.
    """

    states_SD: Tensor
    glyphs_GD: Tensor | None = None
    span: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check shapes."""
        if self.states_SD.ndim != 2 or self.states_SD.shape[0] == 0:
            raise ConfigError(
                f"text states must be (S, D) with S > 0, got {tuple(self.states_SD.shape)}; "
                "encode the prompt with PromptEncoder"
            )

    @property
    def num_bytes(self) -> int:
        """Memory of the states."""
        return self.states_SD.nbytes + (0 if self.glyphs_GD is None else self.glyphs_GD.nbytes)

    def to(self, device: str | torch.device) -> "TextStates":
        """Return the same states on a device."""
        glyphs = self.glyphs_GD
        return TextStates(
            states_SD=self.states_SD.to(device),
            glyphs_GD=None if glyphs is None else glyphs.to(device),
            span=self.span,
        )


@dataclass(frozen=True, eq=False)
class TextLayout:
    """Where each row's tokens are in the packed text stream.

    A row is `[glyphs | states]`, the order diffusers' forward gives the valid tokens.
    """

    lengths: tuple[int, ...]
    device: torch.device
    # Facts of the lengths that an even batch needs alone: a compiled forward reads these and so
    # serves every length.
    num_rows: int = field(init=False)
    is_even: bool = field(init=False)

    def __post_init__(self) -> None:
        """Count rows; `is_even`: all have the same length, so that no mask is needed."""
        object.__setattr__(self, "num_rows", len(self.lengths))
        object.__setattr__(self, "is_even", len(set(self.lengths)) == 1)

    def valid_BS(self) -> Tensor:
        """Validity of each slot of the padded form."""
        slots = torch.arange(max(self.lengths), device=self.device)
        return slots[None] < torch.tensor(self.lengths, device=self.device)[:, None]

    def unpack(self, x_PD: Tensor) -> Tensor:
        """(P, ...) -> (B, S_max, ...); attention alone needs this form."""
        if self.is_even:
            return cast(Tensor, x_PD.unflatten(0, (self.num_rows, -1)))
        return pad_sequence(list(x_PD.split(list(self.lengths))), batch_first=True)

    def pack(self, x_BSD: Tensor) -> Tensor:
        """(B, S_max, ...) -> (P, ...)."""
        return x_BSD.flatten(0, 1) if self.is_even else x_BSD[self.valid_BS()]

    def spread(self, x_BD: Tensor, num_tokens: int) -> Tensor:
        """(B, D) -> (P, D), P = `num_tokens`: a row's vector for each of its tokens."""
        if self.is_even:
            return x_BD.repeat_interleave(num_tokens // self.num_rows, dim=0)
        counts = torch.tensor(self.lengths, device=self.device)
        return x_BD.repeat_interleave(counts, dim=0, output_size=num_tokens)


def text_layout(texts: Sequence[TextStates]) -> TextLayout:
    """Lay out a batch of encoded prompts."""
    lengths = tuple(
        t.states_SD.shape[0] + (0 if t.glyphs_GD is None else t.glyphs_GD.shape[0]) for t in texts
    )
    return TextLayout(lengths=lengths, device=texts[0].states_SD.device)


def span_mask(texts: Sequence[TextStates], dtype: torch.dtype) -> Tensor:
    """Mark the packed tokens that name the subject, (P, 1): 1 inside the span, 0 elsewhere.

    The mask is laid over the tokens that are really fed, so it cannot be misaligned; a prompt
    without a span gets no text-side delta at all.
    """
    rows = []
    for text in texts:
        num_glyphs = 0 if text.glyphs_GD is None else text.glyphs_GD.shape[0]
        row = torch.zeros(num_glyphs + text.states_SD.shape[0], 1, dtype=dtype)
        if text.span is not None:
            row[num_glyphs + text.span[0] : num_glyphs + text.span[1]] = 1
        rows.append(row)
    return torch.cat(rows).to(texts[0].states_SD.device)
