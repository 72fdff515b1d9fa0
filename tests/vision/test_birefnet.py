"""The ONNX path with a real file of toy size; without runtime or weights it says what to do."""

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dreambooth3d.errors import ConfigError
from dreambooth3d.vision import birefnet
from dreambooth3d.vision.birefnet import BiRefNet, find_weights
from dreambooth3d.vision.refusal import RefusedError
from dreambooth3d.vision.segment import build_segmenter
from tests.vision.onnx_file import convolution
from tests.vision.pictures import drawn_photo

ROOT = Path(__file__).resolve().parents[2]
HAS_RUNTIME = pytest.mark.skipif(
    find_spec("onnxruntime") is None, reason="needs onnxruntime, which is optional"
)


def random_weights(outputs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.6, (outputs, 3, 3, 3)).astype(np.float32)
    return weight, rng.normal(0, 0.5, outputs).astype(np.float32)


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@HAS_RUNTIME
def test_alpha_is_the_sigmoid_of_the_networks_answer_at_the_pictures_size(tmp_path: Path) -> None:
    weight, bias = random_weights()
    path = saved(tmp_path / "tiny.onnx", convolution(weight, bias, (1, 3, 32, 40)))
    image = drawn_photo((80, 64))[0]
    alpha = build_segmenter("birefnet", weights=path)(image)
    assert alpha.shape == (64, 80)
    assert alpha.dtype == np.float32
    small = np.asarray(image.resize((40, 32), Image.Resampling.BILINEAR), np.float32) / 255
    x_HWC = (small - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    x_BCHW = torch.from_numpy(x_HWC.astype(np.float32)).permute(2, 0, 1)[None]
    logits = F.conv2d(x_BCHW, torch.from_numpy(weight), torch.from_numpy(bias), padding=1)
    likely = Image.fromarray(logits.sigmoid()[0, 0].numpy())
    expected = np.asarray(likely.resize((80, 64), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(alpha, expected, atol=1e-5)


@HAS_RUNTIME
def test_an_open_size_takes_that_of_the_training(tmp_path: Path) -> None:
    weight, bias = random_weights()
    path = saved(tmp_path / "tiny.onnx", convolution(weight, bias, (1, 3, "height", "width")))
    segmenter = BiRefNet(weights=path)
    alpha = segmenter(drawn_photo((50, 40))[0])
    assert alpha.shape == (40, 50)
    assert birefnet._opened(path).size == (1024, 1024)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(segmenter))(drawn_photo((50, 40))[0]),  # noqa: S301
        alpha,
    )


@HAS_RUNTIME
def test_alpha_of_the_picture_wins(tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.onnx", convolution(*random_weights(), (1, 3, 32, 32)))
    image, mask = drawn_photo()
    image.putalpha(Image.fromarray(mask))
    np.testing.assert_array_equal(build_segmenter("birefnet", weights=path)(image), mask)


@HAS_RUNTIME
def test_a_network_that_is_sure_of_nothing_refuses(tmp_path: Path) -> None:
    never = convolution(
        np.zeros((1, 3, 1, 1), np.float32), np.full(1, -4, np.float32), (1, 3, 16, 16)
    )
    path = saved(tmp_path / "never.onnx", never)
    with pytest.raises(RefusedError, match=r"at least 0\.5 sure of, got 0\.02") as caught:
        BiRefNet(weights=path)(drawn_photo()[0])
    assert caught.value.reason == "no_object"


@HAS_RUNTIME
def test_files_that_are_no_such_network(tmp_path: Path) -> None:
    image = drawn_photo()[0]
    damaged = saved(tmp_path / "damaged.onnx", b"not a network")
    with pytest.raises(ConfigError, match=r"must be a sound ONNX file, got .*damaged\.onnx"):
        BiRefNet(weights=damaged)(image)
    two = saved(tmp_path / "two.onnx", convolution(*random_weights(2), (1, 3, 16, 16)))
    with pytest.raises(ConfigError, match=r"must give logits \(1, 1, H, W\), got shape \(1, 2, 16"):
        BiRefNet(weights=two)(image)
    with pytest.raises(ConfigError, match=r"got nothing at .*none\.onnx"):
        build_segmenter("birefnet", weights=tmp_path / "none.onnx")


def test_without_the_runtime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime, or choose grabcut"):
        build_segmenter("birefnet")


def offline(cache: Path) -> str:
    """Ask for the pinned weights in a process that must not go online; return the error."""
    code = (
        "from dreambooth3d.errors import ConfigError\n"
        "from dreambooth3d.vision.birefnet import find_weights\n"
        "try: print(find_weights())\n"
        "except ConfigError as error: print('refused:', error)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@HAS_RUNTIME
def test_without_weights_it_says_how_to_get_them(tmp_path: Path) -> None:
    assert "refused: segmentation birefnet must have its weights, got none" in offline(tmp_path)


@HAS_RUNTIME
def test_other_weights_under_the_pinned_name_are_refused(tmp_path: Path) -> None:
    name = "models--" + birefnet.HUB_REPOSITORY.replace("/", "--")
    file = tmp_path / name / "snapshots" / birefnet.HUB_REVISION / birefnet.HUB_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    assert "refused: weights must have sha256 5600024376f5" in offline(tmp_path)


@HAS_RUNTIME
def test_given_weights_are_taken_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.onnx", convolution(*random_weights(), (1, 3, 16, 16)))
    assert find_weights(path) == path
