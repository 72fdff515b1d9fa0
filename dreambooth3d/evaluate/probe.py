"""The probe: a small network that reads what a clip of the embedded world shows.

Class, main colour, background and subject mask are read frame by frame; motion from neighbouring
frames, on a fine grid, because the sense of a turn is a shift of a few pixels inside a silhouette
that hardly changes. Everything is read twice, once in a mirror. Letters: N clips, F frames, B
pictures, P = F - 1 neighbouring pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.scenes import BACKGROUNDS, CLASSES, COLORS, MOTIONS

WEIGHTS = Path(__file__).parent / "weights" / "probe.safetensors"
SIDE = 64
MASK_SIDE = 32
Frames = NDArray[np.uint8]

# Multiples of 32 fill the CPU's bf16 tiles: an update takes a third less time than at 48, 80, 144.
_FINE, _MIDDLE, _COARSE = 32, 64, 160
_MOTION_IN, _MOTION = 24, 64
_MASK = 32
_HIDDEN = 160
# Clips read at a time: 136 frames keep the largest activation below 30 MB.
_CLIPS_AT_A_TIME, _FRAMES_AT_A_TIME = 8, 128


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the probe sees; `motion` is None for a single frame."""

    class_noun: str
    color: str
    background: str
    motion: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameLogits:
    """What is read from pictures: logits (B, names) and mask logits (B, 32, 32).

    `fine_BCHW` are features at half resolution, from which motion is read.
    """

    class_noun: Tensor
    color: Tensor
    background: Tensor
    mask_BHW: Tensor
    fine_BCHW: Tensor


def _unit(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _unit(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(x_BCHW + self.norm(self.second(self.first(x_BCHW))))


class _MaskHead(nn.Module):
    """Subject mask logits at half resolution from the two coarser maps."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Conv2d(_MIDDLE, _MASK, 1)
        self.coarse = nn.Conv2d(_COARSE, _MASK, 1)
        self.join = _unit(_MASK, _MASK)
        self.out = nn.Conv2d(_MASK, 4, 1)

    def forward(self, middle_BCHW: Tensor, coarse_BCHW: Tensor) -> Tensor:
        coarse = F.interpolate(self.coarse(coarse_BCHW), scale_factor=2.0, mode="nearest")
        joined = self.out(self.join(self.middle(middle_BCHW) + coarse))
        return F.pixel_shuffle(joined, 2)[:, 0]


class _NameHead(nn.Module):
    """Logits of class, colour and background.

    The background fills the frame (mean), the subject stands out (maximum), and its colours are
    those under its mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * _COARSE + _MIDDLE, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, len(CLASSES) + len(COLORS) + len(BACKGROUNDS))

    def forward(self, middle_BCHW: Tensor, coarse_BCHW: Tensor, mask_BHW: Tensor) -> Tensor:
        middle, coarse = middle_BCHW.float(), coarse_BCHW.float()
        share = mask_BHW.detach().sigmoid()[:, None]
        seen = (
            coarse.mean(dim=(2, 3)),
            coarse.amax(dim=(2, 3)),
            _mean_under(coarse, share),
            _mean_under(middle, share),
        )
        return cast(Tensor, self.out(F.relu(self.hidden(torch.cat(seen, dim=1))))).float()


def _mean_under(maps_BCHW: Tensor, share_B1HW: Tensor) -> Tensor:
    """Mean of maps weighted by a finer mask, (B, C); an empty mask gives nearly zero."""
    weight = F.avg_pool2d(share_B1HW, share_B1HW.shape[-1] // maps_BCHW.shape[-1])
    return (maps_BCHW * weight).sum(dim=(2, 3)) / (weight.sum(dim=(2, 3)) + 1e-3)


class _MotionHead(nn.Module):
    """Motion logits from features of neighbouring frames; space is pooled last, then time."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = _unit(_FINE, _MOTION_IN, kernel=1)
        self.layers = nn.Sequential(
            _unit(2 * _MOTION_IN, _MOTION, stride=2),
            _unit(_MOTION, _MOTION, stride=2),
            _unit(_MOTION, _MOTION),
        )
        self.out = nn.Linear(2 * _MOTION, len(MOTIONS))

    def forward(self, fine_BCHW: Tensor, num_frames: int) -> Tensor:
        small = self.reduce(fine_BCHW).unflatten(0, (-1, num_frames))
        before, after = small[:, :-1], small[:, 1:]
        pairs = torch.cat((before, after), dim=2).flatten(0, 1)
        maps = self.layers(pairs.contiguous(memory_format=torch.channels_last)).float()
        pooled = torch.cat((maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))), dim=1)
        return cast(Tensor, self.out(pooled.unflatten(0, (-1, num_frames - 1)).mean(dim=1)))


class Probe(nn.Module):
    """The network; pictures come in as (B, 3, 64, 64) in -1..1."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_unit(3, _FINE, stride=2), _Residual(_FINE))
        self.middle = nn.Sequential(
            _unit(_FINE, _MIDDLE, stride=2), _Residual(_MIDDLE), _Residual(_MIDDLE)
        )
        self.coarse = nn.Sequential(
            _unit(_MIDDLE, _COARSE, stride=2), _Residual(_COARSE), _Residual(_COARSE)
        )
        self.mask = _MaskHead()
        self.names = _NameHead()
        self.motion = _MotionHead()
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, pictures_BCHW: Tensor) -> FrameLogits:
        """Read single pictures."""
        x = pictures_BCHW.contiguous(memory_format=torch.channels_last)
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        mask = self.mask(middle, coarse).float()
        classes, colors, backgrounds = self.names(middle, coarse, mask).split(
            [len(CLASSES), len(COLORS), len(BACKGROUNDS)], dim=1
        )
        return FrameLogits(
            class_noun=classes,
            color=colors,
            background=backgrounds,
            mask_BHW=mask,
            fine_BCHW=fine,
        )

    def read_motion(self, fine_BCHW: Tensor, num_frames: int) -> Tensor:
        """Motion logits (N, motions) of clips whose frames follow each other, B = N F, F >= 2."""
        return cast(Tensor, self.motion(fine_BCHW, num_frames))


def save_probe(probe: Probe, path: Path) -> None:
    """Write the weights: matrices in fp16, the norms' running statistics in fp32."""
    tensors = {
        name: value.half() if value.is_floating_point() and "running" not in name else value
        for name, value in probe.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    save_file({name: value.contiguous() for name, value in tensors.items()}, aside)
    aside.replace(path)


def load_probe(path: Path = WEIGHTS) -> Probe:
    """Load the packaged probe, frozen, in fp32 and evaluation mode.

    Raises:
        ArtifactError: the file is absent, damaged, or of another network.
    """
    if not path.is_file():
        raise ArtifactError(
            f"the probe's weights must be at {path}, got no file; "
            f"make them with python pipelines/train_probe.py --weights {path}"
        )
    probe = Probe()
    try:
        probe.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} must hold the weights of this probe, got {type(error).__name__}; "
            f"make them again with python pipelines/train_probe.py --weights {path}"
        ) from error
    return probe.requires_grad_(False).eval()


@torch.no_grad()
def read_clips(probe: Probe, clips_NFHWC: Frames) -> list[Reading]:
    """Read clips (N, F, H, W, 3) of at least two frames; frames vote with their log-probability."""
    _check_rank(clips_NFHWC, "clips", 5)
    num_frames = clips_NFHWC.shape[1]
    if num_frames < 2:
        raise ConfigError(
            f"clips to read must have at least 2 frames, got {num_frames}; use read_frames"
        )
    readings = []
    for part in _parts(clips_NFHWC, _CLIPS_AT_A_TIME):
        looks = _look_twice(probe, part.reshape(-1, *part.shape[2:]))
        readings += _name(looks, num_frames, _read_motions(probe, looks, num_frames))
    return readings


@torch.no_grad()
def read_frames(probe: Probe, frames_BHWC: Frames) -> list[Reading]:
    """Read single frames (B, H, W, 3); motion stays None."""
    _check_rank(frames_BHWC, "frames", 4)
    readings = []
    for part in _parts(frames_BHWC, _FRAMES_AT_A_TIME):
        readings += _name(_look_twice(probe, part), 1, None)
    return readings


@torch.no_grad()
def subject_masks(probe: Probe, frames_BHWC: Frames) -> NDArray[np.bool_]:
    """Say where the subject is in frames (B, H, W, 3): a coarse mask (B, 32, 32)."""
    _check_rank(frames_BHWC, "frames", 4)
    parts = [_look(probe, part).mask_BHW > 0 for part in _parts(frames_BHWC, _FRAMES_AT_A_TIME)]
    masks: NDArray[np.bool_] = torch.cat(parts).numpy()
    return masks


def to_pictures(frames_BHWC: Frames) -> Tensor:
    """Frames (B, H, W, 3) uint8 as the probe takes them: (B, 3, 64, 64) in -1..1."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames_BHWC)).permute(0, 3, 1, 2).float()
    if pictures.shape[-2:] != (SIDE, SIDE):
        pictures = F.interpolate(
            pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
    return pictures / 127.5 - 1


def _look(probe: Probe, frames_BHWC: Frames) -> FrameLogits:
    with torch.autocast("cpu", torch.bfloat16):
        logits: FrameLogits = probe(to_pictures(frames_BHWC))
    return logits


def _look_twice(probe: Probe, frames_BHWC: Frames) -> tuple[FrameLogits, FrameLogits]:
    """Look at frames as they are and in a mirror, which hides nothing but left and right."""
    return _look(probe, frames_BHWC), _look(probe, frames_BHWC[:, :, ::-1])


def opposite_motion(motion: str) -> str:
    """The motion seen in a mirror, or when time runs backwards."""
    kind, _, direction = motion.partition(" ")
    swapped = {"left": "right", "right": "left"}.get(direction)
    return motion if swapped is None else f"{kind} {swapped}"


OPPOSITE = tuple(MOTIONS.index(opposite_motion(motion)) for motion in MOTIONS)


def _read_motions(
    probe: Probe, looks: tuple[FrameLogits, FrameLogits], num_frames: int
) -> list[str]:
    with torch.autocast("cpu", torch.bfloat16):
        plain, mirrored = (probe.read_motion(look.fine_BCHW, num_frames) for look in looks)
    votes = plain.float().log_softmax(dim=1) + mirrored.float().log_softmax(dim=1)[:, OPPOSITE]
    return [MOTIONS[index] for index in votes.argmax(dim=1).tolist()]


def _name(
    looks: Sequence[FrameLogits], num_frames: int, motions: Sequence[str] | None
) -> list[Reading]:
    """Name what every group of `num_frames` pictures shows; looks and frames vote."""
    nouns = _vote([look.class_noun for look in looks], num_frames, CLASSES)
    colors = _vote([look.color for look in looks], num_frames, COLORS)
    backgrounds = _vote([look.background for look in looks], num_frames, BACKGROUNDS)
    seen: Sequence[str | None] = [None] * len(nouns) if motions is None else motions
    return [
        Reading(class_noun=noun, color=color, background=background, motion=motion)
        for noun, color, background, motion in zip(nouns, colors, backgrounds, seen, strict=True)
    ]


def _vote(logits: Sequence[Tensor], num_frames: int, names: Sequence[str]) -> list[str]:
    votes = torch.stack([look.log_softmax(dim=1) for look in logits]).mean(dim=0)
    groups = votes.unflatten(0, (-1, num_frames)).mean(dim=1)
    return [names[index] for index in groups.argmax(dim=1).tolist()]


def _parts(rows: Frames, count: int) -> Iterator[Frames]:
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


def _check_rank(pixels: Frames, what: str, rank: int) -> None:
    is_right = pixels.dtype == np.uint8 and pixels.ndim == rank and pixels.shape[-1] == 3
    if not is_right or pixels.size == 0:
        shape = "(N, F, H, W, 3)" if rank == 5 else "(B, H, W, 3)"
        raise ConfigError(
            f"{what} to read must be uint8 of shape {shape}, "
            f"got {pixels.dtype} of shape {pixels.shape}; convert them"
        )
