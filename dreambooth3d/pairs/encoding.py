"""Samples with their latents: what a backbone makes of a pair, computed once for every training.

Nothing heavy is imported before something is encoded: most corpora are not.
"""

from dataclasses import dataclass

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.shard import LATENTS, Members, decode_pair
from dreambooth3d.errors import ConfigError
from dreambooth3d.pairs.config import Precision


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Whose latents samples get.

    Attributes:
        backbone: name or folder it is loaded from.
        revision: of the backbone; its name makes no difference.
        side: of the square pictures it is trained on, pixels.
        precision: of its weights where there is a GPU.
    """

    backbone: str
    revision: str
    side: int
    precision: Precision

    def versioned(self) -> dict[str, JsonValue]:
        """What decides the latents."""
        return {"revision": self.revision, "side": self.side, "precision": self.precision}


def choose_encoding(backbone: str, side: int, precision: Precision) -> Encoding:
    """Describe an encoding before any weights are loaded; side 0 takes the backbone's own.

    Raises:
        ConfigError: the side is not one of whole tokens.
        ArtifactError: there is no such backbone.
    """
    from dreambooth3d.model.backbone import localize, read_card, token_side

    card = read_card(backbone)
    side, step = side or card.train_side, token_side(card.folder)
    if side % step:
        raise ConfigError(
            f"encode_side must be a multiple of {step}, got {side}; "
            f"use {max(1, round(side / step)) * step}"
        )
    return Encoding(
        backbone=localize(backbone), revision=card.revision, side=side, precision=precision
    )


class Encoder:
    """Adds latents to samples; holds the backbone's encoders, the one copy of its process."""

    def __init__(self, encoding: Encoding) -> None:
        from dreambooth3d.runtime.backbones import warm_encoders

        self._side = encoding.side
        self._encoders = warm_encoders(encoding.backbone, encoding.precision)

    def __call__(self, key: str, members: Members) -> Members:
        """Add latents of the pictures as a reader of the sample decodes them."""
        from dreambooth3d.training.examples import encode_example, pack_example

        pair = decode_pair(key, members)
        example = encode_example(
            pair.reference, pair.target, pair.caption, self._encoders, self._side
        )
        return {**members, LATENTS: pack_example(example)}

    def blank(self) -> bytes:
        """Encode the blank sample that a training without the encoders needs besides."""
        from dreambooth3d.training.examples import blank_example, pack_example

        return pack_example(blank_example(self._encoders, self._side))
