"""The numbers of the backbone suite."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Follow:
    """Shares of clips, 0..1, in which the probe reads what the prompt says."""

    background: float
    color: float
    class_noun: float
    motion: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Turntable clips.

    Attributes:
        class_agreement, color_agreement: clips whose first and last frame are read alike, 0..1.
        agreement: clips that keep both.
        motion: clips that are read as turning the way that was asked for; a frozen clip keeps its
            class, its colour and its silhouette.
        silhouette_iou: mean overlap of neighbouring frames' subject masks, 0..1.
    """

    class_agreement: float
    color_agreement: float
    agreement: float
    motion: float
    silhouette_iou: float


@dataclass(frozen=True, kw_only=True)
class BackboneScore:
    """Everything the suite measures.

    Attributes:
        real, generated: known combinations of class, colour and pattern.
        unseen_real, unseen_generated: combinations never trained on.
        turn_real, turn_generated: turntables.
        change_real, change_generated: mean frame-to-frame difference, grey levels 0..255.
        vae_psnr: of real held-out clips, dB.
    """

    real: Follow
    generated: Follow
    unseen_real: Follow
    unseen_generated: Follow
    turn_real: Turn
    turn_generated: Turn
    change_real: float
    change_generated: float
    vae_psnr: float

    @property
    def turn_silhouette(self) -> float:
        """How far the generated silhouette's overlap is from the real one, relative."""
        return relative(self.turn_generated.silhouette_iou, self.turn_real.silhouette_iou)

    @property
    def moves(self) -> float:
        """How far the generated frame-to-frame difference is from the real one, relative."""
        return relative(self.change_generated, self.change_real)


def relative(measured: float, real: float) -> float:
    """|measured - real| / real; not-a-number when the real value is 0."""
    return abs(measured - real) / real if real else float("nan")
