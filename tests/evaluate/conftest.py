from pathlib import Path

import pytest

from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe_pool import ProbePool, ensure_pool, training_specs


@pytest.fixture(scope="session")
def probe_config() -> ProbeConfig:
    """The smallest training that still has every part."""
    return ProbeConfig(
        size=16, num_frames=3, num_clips=4, num_images=6, num_held_out=2, chunk=3, steps=3,
        minutes=0, batch_images=4, batch_clips=2, window=2, warmup_steps=1, workers=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def probe_pool(probe_config: ProbeConfig, tmp_path_factory: pytest.TempPathFactory) -> ProbePool:
    folder: Path = tmp_path_factory.mktemp("probe")
    return ensure_pool(training_specs(probe_config), folder, workers=1)
