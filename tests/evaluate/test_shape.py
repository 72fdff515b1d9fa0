"""Chamfer numbers of the suite: from folders to a report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.subject import write_subject
from dreambooth3d.errors import ArtifactError, ConfigError, InputError
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.job import run_benchmark
from dreambooth3d.evaluate.point_file import read_points, write_points
from dreambooth3d.evaluate.told_turntable import Turntable
from dreambooth3d.evaluate.vggt import Vggt
from dreambooth3d.scenes import Camera, make_subject, point_cloud, reference_cameras, render_view

SEEDS = {"first": 1_000_003, "second": 1_000_016}
CONFIG = BenchmarkConfig(
    frames=1,
    wrong_frames=1,
    wrong_subjects=0,
    hub=False,
    resamples=200,
    reconstructor="visual_hull",
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two subjects with scans, and of each a turntable of the first."""
    for name, seed in SEEDS.items():
        subject = make_subject(seed)
        views = [
            Image.fromarray(render_view(subject, c, size=96).rgb) for c in reference_cameras(4)
        ]
        write_subject(
            tmp_path / "subjects" / name,
            id=name,
            class_noun=subject.class_noun,
            images=views,
            references=views,
        )
        scan = point_cloud(subject, 3000).astype(np.float64)
        write_points(tmp_path / "subjects" / name / "cloud.ply", scan)
    cameras = [Camera(azimuth_deg=30.0 * i, elevation_deg=30.0) for i in range(12)]
    subject = make_subject(SEEDS["first"])
    frames = np.stack([render_view(subject, camera, size=96).rgb for camera in cameras])
    table = {"turntable": {"turn_deg": 330, "elevation_deg": 30}}
    for name in SEEDS:
        write_clip(tmp_path / "clips" / f"{name}.mp4", frames, fps=8, metadata=table)
    return tmp_path / "subjects", tmp_path / "clips"


def test_a_turntable_is_nearer_to_the_scan_of_its_own_subject(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    scored, _ = run_benchmark(CONFIG, *folders, tmp_path / "out", report=lambda _: None)
    own, other = (c.numbers.numbers["chamfer_distance_visual_hull"] for c in scored)
    assert 0 < own < 0.8 * other
    data = json.loads((tmp_path / "out" / "report.json").read_text())["data"]
    assert data["means"]["chamfer_distance_visual_hull"]["mean"] == pytest.approx((own + other) / 2)
    clouds = [path.parent for path in (tmp_path / "out" / "clouds").glob("*/cloud.ply")]
    assert len(clouds) == 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("its shape in blue, the true one in grey</figcaption>") == 2
    # The scores themselves do not depend on shapes: without them nothing is scored again.
    said: list[str] = []
    run_benchmark(replace(CONFIG, reconstructor=""), *folders, tmp_path / "out", report=said.append)
    assert sum("scored before" in line for line in said) == 2


def test_what_has_no_shape_is_named_and_costs_nothing_else(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    subjects, clips = folders
    (clips / "first.mp4.json").write_text("{}")
    (subjects / "second" / "cloud.ply").unlink()
    said: list[str] = []
    scored, _ = run_benchmark(CONFIG, subjects, clips, tmp_path / "out", report=said.append)
    assert all("identity" in clip.numbers.numbers for clip in scored)
    assert not any("chamfer" in name for clip in scored for name in clip.numbers.numbers)
    text = "\n".join(said)
    assert 'first.mp4 has no chamfer_visual_hull: clip must have {"turntable": {}}' in text
    assert "second.mp4 has no chamfer_visual_hull: second must have cloud.ply or captures" in text
    (clips / "first.mp4.json").write_text('{"turntable": {"turn": 3}}')
    (subjects / "second" / "cloud.ply").write_text("no cloud")
    run_benchmark(CONFIG, subjects, clips, tmp_path / "out", report=said.append)
    text = "\n".join(said)
    assert "first.mp4 has no chamfer_visual_hull: turntable must be numbers named" in text
    assert "second.mp4 has no chamfer_visual_hull: point cloud must be a PLY file" in text


@pytest.mark.parametrize(
    "table", [{"turn_deg": 1e308}, {"turn_deg": True}, {"first_deg": float("nan")},
              {"elevation_deg": 91}, {"turn_deg": "360"}, {"turn_deg": 10**400}]
)  # fmt: skip
def test_a_turntable_turns_by_a_number_of_degrees(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(table))} must be a number of at most"):
        Turntable(**table)


def test_frames_that_colmap_cannot_use_are_tried_once(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = replace(CONFIG, reconstructor="pycolmap")
    said: list[str] = []
    run_benchmark(config, *folders, tmp_path / "out", report=said.append)
    assert "find their camera" in "\n".join(said)
    refused = list((tmp_path / "out" / "clouds").glob("*/refused.json"))
    assert refused
    refused[0].write_text('{"why": "as before"}')
    run_benchmark(config, *folders, tmp_path / "out", report=said.append)
    assert "as before" in "\n".join(said)


def test_reconstructors_are_three() -> None:
    with pytest.raises(ConfigError, match="pycolmap, vggt, visual_hull or empty, got 'colmap'"):
        BenchmarkConfig(reconstructor="colmap")


class Surfaces(torch.nn.Module):
    """Gives every pixel its place in the frame, as VGGT's own interface does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = torch.zeros(0)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen = images
        side = torch.arange(images.shape[-1]).float()
        rows, columns = torch.meshgrid(side, side, indexing="ij")
        places = torch.stack([columns, rows, rows * 0], dim=-1)
        points = places.expand(1, len(images), *places.shape)
        return {"world_points": points, "world_points_conf": points[..., 0]}


def test_vggt_is_shown_the_object_on_white_and_keeps_its_surest_points() -> None:
    model = Surfaces()
    frame = np.full((60, 120, 3), 10, np.uint8)
    mask = np.zeros((60, 120), np.bool_)
    mask[15:45, 30:90] = True
    found = Vggt(model=model, weights="none")([frame, frame], [mask, mask])
    assert model.seen.shape == (2, 3, 518, 518)
    assert model.seen[0, :, 259, 259].tolist() == pytest.approx([10 / 255] * 3)
    assert model.seen[0, :, 259, 10].tolist() == [1, 1, 1]
    # The mask is 518 / 120 as large, in the middle; the surest seventh tenths are on the right.
    assert found[:, 0].max() <= 90 * 518 / 120
    assert found[:, 0].min() == pytest.approx(30 * 518 / 120 + 0.3 * 60 * 518 / 120, abs=6)
    assert (found[:, 1].min(), found[:, 1].max()) == pytest.approx((194, 323), abs=6)
    with pytest.raises(InputError, match="masks must cover the object, got 0 pixels"):
        Vggt(model=model, weights="none")([frame], [np.zeros_like(mask)])


def test_scans_may_be_points_or_meshes(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    write_points(tmp_path / "points.ply", points)
    assert np.allclose(read_points(tmp_path / "points.ply"), points, atol=1e-6)
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "box.ply")
    drawn = read_points(tmp_path / "box.ply")
    assert np.allclose(np.abs(drawn).max(axis=0), [0.5, 1, 1.5])
    assert np.array_equal(read_points(tmp_path / "box.ply"), drawn)
    (tmp_path / "no.ply").write_text("hello")
    with pytest.raises(ArtifactError, match="must be a PLY file"):
        read_points(tmp_path / "no.ply")
    for wrong in (np.zeros((50, 3)), np.full((50, 3), np.nan), points[:1]):
        write_points(tmp_path / "wrong.ply", wrong)
        with pytest.raises(ArtifactError, match=r"wrong\.ply: point cloud must"):
            read_points(tmp_path / "wrong.ply")
