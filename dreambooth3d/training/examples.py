"""Pairs as a backbone takes them: encoded now, or read as they were encoded before."""

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import Encoders
from dreambooth3d.model.texts import TextStates
from dreambooth3d.training.task import Example


def encode_example(
    reference: Image.Image, target: Image.Image, caption: str, encoders: Encoders, side: int
) -> Example:
    """Encode a pair; what comes of it is in memory, whatever the encoders run on.

    Args:
        reference, target: made square with `side` pixels first.
        caption: of the target.
        encoders: of the backbone.
        side: of the pictures the backbone is trained on, in pixels.
    """
    return Example(
        target_CTHW=encode_view(target, encoders, side).transpose(0, 1),
        references_VCHW=encode_view(reference, encoders, side),
        caption=encoders.prompts(caption).to("cpu"),
    )


def blank_example(encoders: Encoders, side: int) -> Example:
    """Encode a view of nothing on white, and no words: what dropout puts in a sample's place."""
    white = Image.new("RGB", (side, side), "white")
    return encode_example(white, white, "", encoders, side)


def encode_view(image: Image.Image, encoders: Encoders, side: int) -> Tensor:
    """Encode one picture, (1, C, H, W)."""
    square = np.asarray(letterbox(image, (side, side)))
    return encoders.codec.encode_images([square]).cpu()


def pack_example(example: Example) -> bytes:
    """Return an example as safetensors, bit for bit; the same example gives the same bytes."""
    caption = example.caption
    tensors = {
        "target": example.target_CTHW,
        "references": example.references_VCHW,
        "text": caption.states_SD,
        "glyphs": caption.glyphs_GD,
        "span": None if caption.span is None else torch.tensor(caption.span),
    }
    packed: bytes = save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items() if t is not None}
    )
    return packed


def unpack_example(data: bytes, *, name: str) -> Example:
    """Read what `pack_example` wrote.

    Args:
        data: safetensors.
        name: of the sample in an error's text.
    """
    try:
        found: Mapping[str, Tensor] = load(data)
        return Example(
            target_CTHW=found["target"],
            references_VCHW=found.get("references"),
            caption=_caption(found),
        )
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(
            f"latents of {name} must be an encoded pair, got other bytes ({error}); "
            "make the pairs again"
        ) from error


def _caption(found: Mapping[str, Tensor]) -> TextStates:
    return TextStates(states_SD=found["text"], glyphs_GD=found.get("glyphs"), span=_span(found))


def _span(found: Mapping[str, Tensor]) -> tuple[int, int] | None:
    if "span" not in found:
        return None
    start, end = found["span"].tolist()
    return int(start), int(end)
