"""Validation on held-out subjects, from saved weights, apart from the training.

A mean over all noise levels hides what references do: below 0.3 the noisy target shows the subject
itself. So losses are kept by level, with the pair's own view and with another pair's, on the same
noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.sampler import euler, flow_sigmas, guide
from dreambooth3d.errors import ArtifactError
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.codec import to_frames
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, build_task
from dreambooth3d.training.engine import trained_parameters
from dreambooth3d.training.task import AdapterTask, Example, TrainBatch
from dreambooth3d.vision.object_embedding import likeness

LEVELS = (0.2, 0.4, 0.6, 0.8, 0.95)
"""Noise levels that losses are kept for."""
FIRST_LEVEL_OF_GAIN = 0.6
"""Noise level from which references must matter."""

_NUM_PAIRS = 32
_NUM_PICTURES = 6
_BATCH = 16
_NUM_STEPS = 20
_GUIDANCE = 4.0


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Losses of held-out pairs after an update.

    Attributes:
        step: the update.
        own: by level, with the pair's own view.
        other: by level, with another pair's view.
    """

    step: int
    own: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean over the levels, with the own view."""
        return sum(self.own) / len(self.own)

    @property
    def gain(self) -> float:
        """By how much of the loss the own view is better, where references must matter."""
        places = [i for i, level in enumerate(LEVELS) if level >= FIRST_LEVEL_OF_GAIN]
        own, other = (sum(losses[i] for i in places) for losses in (self.own, self.other))
        return 1 - own / other

    def line(self) -> str:
        """One printable line."""
        by_level = " ".join(f"{loss:.3f}" for loss in self.own)
        return (
            f"held-out at step {self.step}: loss {by_level} at noise "
            f"{' '.join(f'{level:g}' for level in LEVELS)}, own view {100 * self.gain:.1f} % better"
        )


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How much pictures that were made are like views (identity_efficientnet, -1..1).

    Attributes:
        own: like their own view, the mean.
        other: like the views of other pairs; not a number where there are none.
    """

    own: float
    other: float

    def line(self) -> str:
        """Printable, to stand behind the losses."""
        return f"identity {self.own:.3f} (others {self.other:.3f})"


class Validator:
    """Holds a backbone and encoded held-out pairs, and judges weights with them.

    Args:
        config: of the training.
        backbone: whole, for pictures are decoded.
        examples: of held-out subjects.
    """

    def __init__(self, config: PretrainConfig, backbone: Backbone, examples: PairExamples) -> None:
        self._config = config
        self._backbone = backbone
        self._task: AdapterTask = build_task(config, backbone)
        self.trained = trained_parameters(self._task)
        count = min(_NUM_PAIRS, len(examples.corpus))
        # Far apart: neighbours show the same subject.
        places = np.linspace(0, len(examples.corpus) - 1, count).round().astype(int)
        self._examples = [examples(int(place)) for place in places]
        self._null_text = examples.blank().caption.to(backbone.device)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take the trained weights of a checkpoint, named as in the task.

        Raises:
            ArtifactError: they are not those of this training.
        """
        named = self.trained
        if set(named) != set(weights):
            raise ArtifactError(
                "weights to validate must be those of the trained parameters, got other names; "
                "validate with the settings of the training"
            )
        for name, parameter in named.items():
            parameter.data.copy_(weights[name])

    @torch.no_grad()
    def judge(self, step: int) -> Validation:
        """Losses by level, with own and with other views."""
        others = [*self._examples[len(self._examples) // 2 :], *self._examples]
        own: list[float] = []
        other: list[float] = []
        for place, level in enumerate(LEVELS):
            for losses, viewed in ((own, self._examples), (other, others)):
                losses.append(self._loss(viewed, level, place))
        return Validation(step=step, own=tuple(own), other=tuple(other))

    def _loss(self, viewed: Sequence[Example], level: float, place: int) -> float:
        total = 0.0
        for first in range(0, len(self._examples), _BATCH):
            rows = range(first, min(first + _BATCH, len(self._examples)))
            total += float(self._task.row_losses(self._batch(rows, viewed, level, place)).sum())
        return total / len(self._examples)

    def _batch(
        self, rows: Sequence[int], viewed: Sequence[Example], level: float, place: int
    ) -> TrainBatch:
        backbone = self._backbone
        targets = torch.stack([self._examples[row].target_CTHW for row in rows])
        keys = [keyed_generator("validation", self._config.seed, row, place) for row in rows]
        noise = torch.stack([draw_noise(targets.shape[1:], key) for key in keys])
        views = torch.stack([_views(viewed[row]) for row in rows])
        return TrainBatch(
            target_BCTHW=targets.to(backbone.device, backbone.dtype),
            noise_BCTHW=noise.to(backbone.device, backbone.dtype),
            sigma_B=torch.full((len(rows),), level, device=backbone.device),
            texts=tuple(self._examples[row].caption.to(backbone.device) for row in rows),
            references_BVCHW=views.to(backbone.device, backbone.dtype),
        )

    @torch.no_grad()
    def draw(self, path: Path) -> Identity:
        """Save a grid: view, target and what is made of view and caption, a pair a column.

        Returns:
            How much what was made is like the views.
        """
        backbone, rows = self._backbone, range(min(_NUM_PICTURES, len(self._examples)))
        start = self._batch(rows, self._examples, 1.0, len(LEVELS))
        assert start.references_BVCHW is not None
        empty = tuple([self._null_text] * len(rows))

        def velocity(x: Tensor, sigma_B: Tensor, /) -> Tensor:
            full, without_text = (
                self._task.velocity(x.to(backbone.dtype), sigma_B, texts, start.references_BVCHW)
                for texts in (start.texts, empty)
            )
            return guide(full.float(), without_text.float(), _GUIDANCE)

        sigmas = flow_sigmas(_NUM_STEPS, backbone.card.flow_shift)
        made = euler(velocity, start.noise_BCTHW, sigmas)
        views = start.references_BVCHW[:, :1].transpose(1, 2)
        bands = [
            list(to_frames(backbone.codec.decode(latents.float()))[:, 0])
            for latents in (views, start.target_BCTHW, made)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate([np.concatenate(b, axis=1) for b in bands])).save(path)
        return compare_identity(bands[0], bands[2])


def compare_identity(
    views: Sequence[NDArray[np.uint8]], made: Sequence[NDArray[np.uint8]]
) -> Identity:
    """Compare pictures with views, a pair each, every (H, W, 3) RGB."""
    alike = likeness(made, [Image.fromarray(view) for view in views], batch_size=_BATCH).numpy()
    own = np.eye(len(made), dtype=bool)
    # With one pair alone there is no other.
    other = float(alike[~own].mean()) if len(made) > 1 else float("nan")
    return Identity(own=float(alike[own].mean()), other=other)


def _views(example: Example) -> Tensor:
    assert example.references_VCHW is not None
    return example.references_VCHW
