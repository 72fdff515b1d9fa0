"""BiRefNet through onnxruntime: masks from a network, for who has it and its weights.

Zheng et al. 2024, "Bilateral reference for high-resolution dichotomous image segmentation". The
default weights are the light model (MIT licence), 224 MB. Any ONNX file works that takes one
normalised RGB picture (1, 3, H, W) and gives logits (1, 1, H, W).
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision.refusal import RefusedError

HUB_REPOSITORY = "onnx-community/BiRefNet_lite-ONNX"
HUB_REVISION = "de15b22ba131738a16dff04aab8bdf8dc32e3ac1"
HUB_FILE = "onnx/model.onnx"
HUB_SHA256 = "5600024376f572a557870a5eb0afb1e5961636bef4e1e22132025467d0f03333"
# Where the file leaves the size open.
_SIDE = 1024
# Statistics of ImageNet, RGB.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class BiRefNet:
    """A segmenter; the file is opened once a process, at the first picture.

    Attributes:
        weights: ONNX file.
    """

    weights: Path

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the object's alpha, (H, W), 0 to 1.

        Raises:
            ConfigError: the file is no such network.
            RefusedError: `no_object`: the network is nowhere half sure.
        """
        network = _opened(self.weights)
        logits_BCHW = network.run(_prepared(image, network.size))
        alpha_HW = 1 / (1 + np.exp(-np.clip(logits_BCHW[0, 0], -30, 30)))
        resized = Image.fromarray(alpha_HW).resize(image.size, Image.Resampling.BILINEAR)
        alpha_HW = np.asarray(resized, dtype=np.float32)
        if alpha_HW.max() < 0.5:
            raise RefusedError(
                "no_object",
                "picture must show an object the network is at least 0.5 sure of, "
                f"got {alpha_HW.max():.2f}; give its mask or leave it out",
            )
        return alpha_HW


def find_weights(weights: Path | None = None) -> Path:
    """Return the ONNX file: the given one, or the pinned one, downloaded once and checked.

    Raises:
        ConfigError: onnxruntime or the file is not here, or the file is another one.
    """
    _onnxruntime()
    if weights is not None:
        if not weights.is_file():
            raise ConfigError(
                f"weights must be an ONNX file, got nothing at {weights}; check the path"
            )
        return weights
    found = _from_hub()
    digest = _sha256(str(found))
    if digest != HUB_SHA256:
        raise ConfigError(
            f"weights must have sha256 {HUB_SHA256}, got {digest} in {found}; "
            "delete the file and download it again"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Network:
    """An opened file.

    Attributes:
        session: of onnxruntime.
        input_name: of its only input.
        size: (height, width) it takes.
    """

    session: Any
    input_name: str
    size: tuple[int, int]

    def run(self, x_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits, (1, 1, H, W)."""
        logits = np.asarray(self.session.run(None, {self.input_name: x_BCHW})[0], np.float32)
        if logits.ndim != 4 or logits.shape[:2] != (1, 1):
            raise ConfigError(
                f"weights must give logits (1, 1, H, W), got shape {logits.shape}; "
                "choose another file"
            )
        return logits


@lru_cache(maxsize=1)
def _opened(weights: Path) -> _Network:
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    # One thread: the same sums in the same order everywhere, and one core a worker.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    failures = _load_failures()
    try:
        session = runtime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
    except failures as error:
        raise ConfigError(
            f"weights must be a sound ONNX file, got {weights} ({error}); download it again"
        ) from error
    shapes = [tuple(entry.shape) for entry in session.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ConfigError(
            f"weights must take one picture (1, 3, H, W), got inputs {shapes} in {weights}; "
            "choose another file"
        )
    height, width = (side if isinstance(side, int) else _SIDE for side in shapes[0][2:])
    return _Network(session=session, input_name=session.get_inputs()[0].name, size=(height, width))


def _prepared(image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    height, width = size
    small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    x_HWC = (np.asarray(small, dtype=np.float32) / 255 - _MEAN) / _SPREAD
    return np.ascontiguousarray(x_HWC.transpose(2, 0, 1)[None])


def _onnxruntime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(
            "segmentation birefnet must have onnxruntime, got none installed; "
            "pip install onnxruntime, or choose grabcut"
        ) from error


def _load_failures() -> tuple[type[Exception], ...]:
    # onnxruntime's exceptions have no base of their own.
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = ("Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NotImplemented")
    return tuple(getattr(state, name) for name in names)


def _from_hub() -> Path:
    hub = import_module("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(HUB_REPOSITORY, HUB_FILE, revision=HUB_REVISION))
    except OSError as error:
        raise ConfigError(
            f"segmentation birefnet must have its weights, got none of {HUB_REPOSITORY} "
            f"({type(error).__name__}); go online once, pass a file, or choose grabcut"
        ) from error


@lru_cache(maxsize=1)
def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
