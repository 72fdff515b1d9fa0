import venv
from pathlib import Path

import pytest

from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe_pool import ProbePool, ensure_pool, training_specs

# The interface of vbench 0.1.5: one dimension fails, one may hang, some lack values.
_VBENCH = """
import json, os, pathlib, sys, time

class VBench:
    def __init__(self, device, full_info_dir, output_path):
        assert device == "cpu-device"
        self.results = pathlib.Path(output_path)
        self.results.mkdir(parents=True)

    def evaluate(self, videos_path, name, prompt_list, dimension_list, mode, **kwargs):
        assert mode == "custom_input"
        assert kwargs == {"imaging_quality_preprocessing_mode": "longer"}
        (dimension,) = dimension_list
        files = sorted(pathlib.Path(videos_path).iterdir())
        assert sorted(prompt_list) == [file.name for file in files]
        print("words " * 1000)
        if dimension == "aesthetic_quality":
            raise FileNotFoundError("no weights.pth\\nsecond line")
        if dimension == os.environ.get("HANGING"):
            (pathlib.Path(files[0].resolve()).parent / "started").touch()
            time.sleep(60)
        values = [VALUES[dimension](file, prompt_list[file.name]) for file in files]
        rows = [{"video_path": str(f), "video_results": v} for f, v in zip(files, values)]
        if dimension == "temporal_flickering":
            rows = rows[1:]
        text = json.dumps({dimension: [0.5, rows]})
        (self.results / (name + "_eval_results.json")).write_text(text)

VALUES = {
    "subject_consistency": lambda file, prompt: 0.25,
    "background_consistency": lambda file, prompt: float("nan"),
    "temporal_flickering": lambda file, prompt: 0.75,
    "motion_smoothness": lambda file, prompt: 0.99,
    "dynamic_degree": lambda file, prompt: True,
    "imaging_quality": lambda file, prompt: 70.5,
    "overall_consistency": lambda file, prompt: len(prompt) / 100,
}
"""
_TORCH = """
device = lambda name: f"{name}-device"
class cuda:
    is_available = lambda: False
"""


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


@pytest.fixture(scope="session")
def vbench_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with a package called vbench, and none of ours."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "vbench").mkdir()
    (site / "vbench" / "__init__.py").write_text(_VBENCH)
    (site / "torch.py").write_text(_TORCH)
    (site / "vbench-0.1.5.dist-info").mkdir()
    card = "Metadata-Version: 2.1\nName: vbench\nVersion: 0.1.5\n"
    (site / "vbench-0.1.5.dist-info" / "METADATA").write_text(card)
    return home / "bin" / "python"
