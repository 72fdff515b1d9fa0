"""The numbers that need weights or a server: those that are here, and the names of the others."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.hub_embedding import (
    CLIP_I,
    CLIP_T,
    DINO_I,
    HubEmbedder,
    HubModel,
    TextAligner,
    find_aligner,
    find_embedder,
)
from dreambooth3d.evaluate.judge import ChatJudge
from dreambooth3d.evaluate.lpips import NAME as LPIPS
from dreambooth3d.evaluate.lpips import Lpips, find_lpips
from dreambooth3d.evaluate.reconstruct import (
    HULL,
    RECONSTRUCTORS,
    Reconstructor,
    find_reconstructor,
)
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.vbench import Vbench, find_vbench
from dreambooth3d.vision.reference_match import Cutout, resized

JUDGE_KEY = "JUDGE_API_KEY"
_LPIPS_SIDE = 224


@dataclass(frozen=True, kw_only=True, eq=False)
class Instruments:
    """What is here beside the offline numbers.

    Attributes:
        embedders: of CLIP-I and DINO-I.
        aligner: of CLIP-T, or None.
        lpips: or None.
        judge: or None.
        reconstructor: that is wanted and here; `visual_hull` is made for every clip.
        vbench: or None; measures all clips together, not each in turn.
        skipped: numbers that are left out, and why.
    """

    embedders: tuple[HubEmbedder, ...] = ()
    aligner: TextAligner | None = None
    lpips: Lpips | None = None
    judge: ChatJudge | None = None
    reconstructor: Reconstructor | None = None
    vbench: Vbench | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers they make of one clip, for a key of results."""
        found = [embedder.kind for embedder in self.embedders]
        return (
            *found,
            *([CLIP_T] if self.aligner else []),
            *([LPIPS] if self.lpips else []),
            *([repr(self.judge)] if self.judge else []),
        )


def find_instruments(config: BenchmarkConfig) -> Instruments:
    """Look for weights, packages, the judge and VBench.

    Raises:
        ArtifactError: LPIPS weights were named and are not the published ones.
        ConfigError: the judge's address is none, or the interpreter of VBench has none.
    """
    vbench = find_vbench(config)
    hub = [_find_hub(model, config) for model in (CLIP_I, DINO_I)]
    aligner = find_aligner(CLIP_I, hub[0])
    lpips = find_lpips(Path(config.lpips_weights) if config.lpips_weights else None)
    judge = _find_judge(config)
    reconstructor = _find_reconstructor(config)
    absent = () if isinstance(vbench, Vbench) else vbench
    found = (*hub, aligner, lpips, judge, reconstructor, *absent)
    return Instruments(
        embedders=tuple(each for each in hub if isinstance(each, HubEmbedder)),
        aligner=aligner if isinstance(aligner, TextAligner) else None,
        lpips=lpips if isinstance(lpips, Lpips) else None,
        judge=judge if isinstance(judge, ChatJudge) else None,
        reconstructor=None if isinstance(reconstructor, Skipped) else reconstructor,
        vbench=vbench if isinstance(vbench, Vbench) else None,
        skipped=tuple(each for each in found if isinstance(each, Skipped)),
    )


class ReferenceNumbers:
    """One subject's references, as CLIP-I, DINO-I and LPIPS see them."""

    def __init__(self, instruments: Instruments, references: Sequence[Cutout]) -> None:
        views = [cutout.pixels_HWC for cutout in references]
        self._instruments = instruments
        self._embedded: list[Tensor] = [embedder(views) for embedder in instruments.embedders]
        self._small = [_for_lpips(view) for view in views]

    def measure(self, cutout: Cutout) -> dict[str, float]:
        """Numbers of one frame: the best view's."""
        found: dict[str, float] = {}
        for embedder, views in zip(self._instruments.embedders, self._embedded, strict=True):
            ours = embedder([cutout.pixels_HWC])
            found[embedder.kind] = float((ours @ views.T).max())
        if self._instruments.lpips is not None:
            nearest = self._instruments.lpips.nearest([_for_lpips(cutout.pixels_HWC)], self._small)
            found[LPIPS] = float(torch.as_tensor(nearest)[0])
        return found


class PromptNumber:
    """One clip's prompt, as CLIP-T reads it; without a prompt there is no number."""

    def __init__(self, instruments: Instruments, prompt: str | None) -> None:
        self._aligner = instruments.aligner if prompt else None
        self._text = self._aligner.embed_text(prompt) if self._aligner and prompt else None

    def measure(self, frame_HWC: NDArray[np.uint8]) -> dict[str, float]:
        """Number of one whole frame, RGB."""
        if self._aligner is None or self._text is None:
            return {}
        return {CLIP_T: self._aligner.align(frame_HWC, self._text)}


def _find_hub(model: HubModel, config: BenchmarkConfig) -> HubEmbedder | Skipped:
    if config.hub:
        return find_embedder(model)
    return Skipped(name=model.kind, reason="left out by the setting hub=false")


def _find_reconstructor(config: BenchmarkConfig) -> Reconstructor | Skipped | None:
    if not config.reconstructor:
        names = ", ".join(RECONSTRUCTORS)
        return Skipped(name="chamfer", reason=f"none was asked for: set reconstructor to {names}")
    if config.reconstructor == HULL:
        return None
    return find_reconstructor(config.reconstructor, vggt_weights=config.vggt_weights)


def _find_judge(config: BenchmarkConfig) -> ChatJudge | Skipped:
    if not config.judge_url:
        return Skipped(name="judge", reason="no endpoint: set judge_url and judge_model")
    key = os.environ.get(JUDGE_KEY, "")
    return ChatJudge(url=config.judge_url, model=config.judge_model, key=key)


def _for_lpips(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return resized(pixels_HWC, _LPIPS_SIDE, _LPIPS_SIDE)
