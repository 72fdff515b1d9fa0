import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import serve_s3

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start a Ray come first: they are the longest, and two processes share the rest."""
    on_ray = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in on_ray)


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete untrained backbone folder of the real classes, small enough to train in a test."""
    import torch

    from dreambooth3d.backbone.components import build_components, save_folder
    from dreambooth3d.backbone.config import BackboneTrainConfig

    config = BackboneTrainConfig(
        size=32, width=32, head_dim=16, num_layers=2, text_width=32, latent_channels=4,
        vae_channels=(8, 8, 8, 8), spatial_ratio=8, patch_size=1,
    )  # fmt: skip
    parts = build_components(config, ["a video of a red car on a beach", "a photo of a sks mug"])
    torch.manual_seed(1)
    for parameter in parts.transformer.parameters():
        # Zero-initialised modulation would hide mistakes: every path must carry signal.
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("backbone") / "miniature"
    save_folder(parts, folder, flow_shift=3.0)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and subjects; absent outside the project's own machines."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, the folder of real photos, which is not here")
    return SHARED


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of an S3 server on loopback, fresh for every module."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as address:
        yield address
