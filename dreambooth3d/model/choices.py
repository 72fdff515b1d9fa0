"""Choices of the forward by name, free of torch so that settings load in no time."""

from typing import Literal

ReferenceAttention = Literal["joint", "isolated"]
"""Whether references also look at the rest of the sequence, or at themselves alone."""

TextScope = Literal["prompt", "span"]
"""Which text tokens the subject's LoRA acts on: all, or those that name the subject."""
