"""Checkpoints judged while a subject is trained, on captures that it is never trained on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreambooth3d.artifacts.image import letterbox
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.diffusion.noise import draw_noise, keyed_generator
from dreambooth3d.diffusion.path import interpolate
from dreambooth3d.diffusion.sampler import euler, flow_sigmas
from dreambooth3d.model.backbone import Backbone
from dreambooth3d.model.codec import to_frames
from dreambooth3d.model.texts import TextStates
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import Judgement
from dreambooth3d.training.task import AdapterTask, TrainBatch
from dreambooth3d.vision.object_embedding import likeness

LEVELS = (0.4, 0.6, 0.8, 0.95)
"""Noise levels of the loss: below, the noisy picture shows the subject itself."""
START = 0.9
"""Noise level from which held-out captures are completed, for their identity."""
NUM_STEPS = 10
"""Euler steps of a completion."""
_BATCH = 12
_BEST, _SCORES, _SAMPLE = "best.safetensors", "judgements.json", "sample-{:06d}.png"


@torch.no_grad()
def view_losses(
    task: AdapterTask,
    targets_NCHW: Tensor,
    views_VCHW: Tensor | None,
    text: TextStates,
    *,
    seed: int,
) -> Tensor:
    """Velocity loss of every picture, (N,), the mean over `LEVELS`; noise is the same each time."""
    total = torch.zeros(len(targets_NCHW))
    for place, level in enumerate(LEVELS):
        noise = _noise(targets_NCHW, seed, place)
        for rows in torch.arange(len(targets_NCHW)).split(_BATCH):
            batch = TrainBatch(
                target_BCTHW=targets_NCHW[rows][:, :, None],
                noise_BCTHW=noise[rows][:, :, None],
                sigma_B=torch.full((len(rows),), level),
                texts=(text,) * len(rows),
                references_BVCHW=None if views_VCHW is None else views_VCHW[None],
            )
            total[rows] += task.row_losses(_moved(batch, text)).cpu()
    return total / len(LEVELS)


@torch.no_grad()
def complete_views(
    task: AdapterTask,
    targets_NCHW: Tensor,
    views_VCHW: Tensor | None,
    text: TextStates,
    *,
    seed: int,
    start: float = START,
) -> Tensor:
    """Complete pictures from a noise level at which their layout shows but not whose they are.

    Returns:
        Latents, (N, C, 1, H, W).
    """
    device = text.states_SD.device
    sigmas = flow_sigmas(NUM_STEPS, 1.0) * start
    views = None if views_VCHW is None else views_VCHW[None].to(device)
    noise = _noise(targets_NCHW, seed, len(LEVELS))
    found = []
    for rows in torch.arange(len(targets_NCHW)).split(_BATCH):
        level = torch.full((len(rows),), start)
        x = interpolate(targets_NCHW[rows], noise[rows], level)[:, :, None].to(device)
        texts = (text,) * len(rows)

        def velocity(
            x: Tensor, sigma_B: Tensor, /, texts: tuple[TextStates, ...] = texts
        ) -> Tensor:
            return task.velocity(x, sigma_B, texts, views)

        found.append(euler(velocity, x, sigmas).cpu())
    return torch.cat(found)


def _noise(targets_NCHW: Tensor, seed: int, place: int) -> Tensor:
    keys = [keyed_generator("held out", seed, row, place) for row in range(len(targets_NCHW))]
    return torch.stack([draw_noise(targets_NCHW.shape[1:], key) for key in keys])


def _moved(batch: TrainBatch, text: TextStates) -> TrainBatch:
    device, views = text.states_SD.device, batch.references_BVCHW
    return TrainBatch(
        target_BCTHW=batch.target_BCTHW.to(device),
        noise_BCTHW=batch.noise_BCTHW.to(device),
        sigma_B=batch.sigma_B.to(device),
        texts=batch.texts,
        references_BVCHW=None if views is None else views.to(device),
    )


class HeldOutJudge:
    """Judges a training's weights as they stand, keeps the best, and says when to stop.

    After it has said so, later checkpoints no longer count: how far a training overshoots does not
    change what is kept. What it finds is kept beside the checkpoints, for a training that goes on.

    Args:
        config: `judged_by`, `patience`, `seed`.
        backbone: decodes the samples.
        task: the training's own.
        captures, targets_NCHW: held out; none judges nothing.
        views_VCHW, text: what the training sees of the subject.
        weights: gives the trained weights.
        folder: of the checkpoints; None keeps all in memory.
    """

    def __init__(
        self,
        config: PersonalizeConfig,
        backbone: Backbone,
        task: AdapterTask,
        *,
        captures: Sequence[Image.Image],
        targets_NCHW: Tensor,
        views_VCHW: Tensor | None,
        text: TextStates,
        weights: Callable[[], dict[str, Tensor]],
        folder: Path | None,
    ) -> None:
        self._config, self._backbone, self._task = config, backbone, task
        self._captures, self._targets = captures, targets_NCHW
        self._views, self._text, self._weights = views_VCHW, text, weights
        self._folder = None if folder is None else folder / "held-out"
        self._found: dict[int, Judgement] = {}
        self._best: dict[str, Tensor] = {}
        self.samples: dict[int, Image.Image] = {}
        self._restore()

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """Of every checkpoint, in order of their steps."""
        return tuple(self._found[step] for step in sorted(self._found))

    @property
    def best_step(self) -> int | None:
        """The best checkpoint before training had to stop; None when nothing was judged."""
        counted = self._counted()
        return min(counted, key=self._badness).step if counted else None

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """Trained weights of the best checkpoint."""
        return self._best

    def must_stop(self) -> bool:
        """Whether the last `patience` checkpoints were no better than one before."""
        return self._stop_place() is not None

    def judge(self, step: int) -> None:
        """Judge the weights as they stand after `step` updates."""
        if not self._captures or step in self._found or self.must_stop():
            return
        arguments = (self._task, self._targets, self._views, self._text)
        loss = view_losses(*arguments, seed=self._config.seed).mean()
        made = complete_views(*arguments, seed=self._config.seed)
        frames = to_frames(self._backbone.codec.decode(made.to(self._backbone.device)))[:, 0]
        size = frames.shape[2], frames.shape[1]
        framed = [letterbox(capture, size) for capture in self._captures]
        identity = likeness(list(frames), framed, batch_size=_BATCH).diagonal().mean()
        self._found[step] = Judgement(step=step, loss=float(loss), identity=float(identity))
        self.samples[step] = _side_by_side(frames)
        if self.best_step == step:
            self._best = self._weights()
        self._keep(step)

    def _badness(self, judgement: Judgement) -> tuple[float, int]:
        if self._config.judged_by == "identity" and judgement.identity is not None:
            return -judgement.identity, judgement.step
        return judgement.loss, judgement.step

    def _counted(self) -> tuple[Judgement, ...]:
        return self.judgements[: self._stop_place()]

    def _stop_place(self) -> int | None:
        """How many judgements count where the training had to stop; None while it goes on."""
        found, patience = self.judgements, self._config.patience
        for place in range(patience + 1, len(found) + 1) if patience else ():
            best = min(range(place), key=lambda row: self._badness(found[row]))
            if best < place - patience:
                return place
        return None

    def _keep(self, step: int) -> None:
        """Weights first: a judgement that is lost is made again, from the same weights."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.best_step == step:
            with publish_file(self._folder / _BEST) as aside:
                save_file(self._best, aside)
        with publish_file(self._folder / _SAMPLE.format(step)) as aside:
            self.samples[step].save(aside, format="PNG")
        with publish_file(self._folder / _SCORES) as aside:
            rows = [asdict(judgement) for judgement in self.judgements]
            aside.write_text(json.dumps(rows), encoding="utf-8")

    def _restore(self) -> None:
        if self._folder is None or not (self._folder / _SCORES).is_file():
            return
        rows = json.loads((self._folder / _SCORES).read_text(encoding="utf-8"))
        self._found = {row["step"]: Judgement(**row) for row in rows}
        self._best = load_file(self._folder / _BEST)
        for step in self._found:
            with Image.open(self._folder / _SAMPLE.format(step)) as picture:
                self.samples[step] = picture.convert("RGB")


def _side_by_side(frames_NHWC: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.concatenate(list(frames_NHWC), axis=1))
