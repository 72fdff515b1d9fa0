from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.backbone import job
from dreambooth3d.backbone.components import Components, build_components, build_transformer
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.backbone.curve import Curve, read_curve
from dreambooth3d.backbone.latents import LatentPool, build_latent_pool
from dreambooth3d.backbone.pool import Chunk, ensure_pool, training_specs
from dreambooth3d.backbone.train import TransformerTrainer, Update
from dreambooth3d.backbone.vae import encode_chunk
from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.training.pace import Pace
from dreambooth3d.training.snapshot import load_snapshot, save_snapshot


@pytest.fixture(scope="module")
def parts(config: BackboneTrainConfig) -> Components:
    return build_components(config, ["a red car"])


@pytest.fixture(scope="module")
def samples(
    config: BackboneTrainConfig, parts: Components, tmp_path_factory: pytest.TempPathFactory
) -> LatentPool:
    pool = ensure_pool(training_specs(config), tmp_path_factory.mktemp("pool"), workers=1)
    latents = job.encode_pool(
        pool,
        tmp_path_factory.mktemp("latents"),
        lambda chunk: encode_chunk(parts.vae, chunk, batch=2),
        parent="vae",
        on_chunk=lambda done, total: None,
    )
    return build_latent_pool(pool, latents, parts, 1.0)


def trainer_of(config: BackboneTrainConfig) -> TransformerTrainer:
    torch.manual_seed(1)
    return TransformerTrainer(build_transformer(config), config)


def test_batches_are_functions_of_the_step(
    config: BackboneTrainConfig, samples: LatentPool
) -> None:
    for step in range(6):
        one, other = samples.batch(config, step), samples.batch(config, step)
        assert torch.equal(one.noise_BCTHW, other.noise_BCTHW)
        assert len({len(text.states_SD) for text in one.texts}) == 1
        assert one.latents_BCTHW.shape[0] == len(one.texts) == len(one.sigma_B)


def test_resume_equals_the_uninterrupted_run(
    config: BackboneTrainConfig, samples: LatentPool, tmp_path: Path
) -> None:
    config = replace(config, minutes=60)
    whole = trainer_of(config)
    losses = [whole.update(samples).loss for _ in range(4)]
    first = trainer_of(config)
    for _ in range(2):
        first.update(samples)
    save_snapshot(tmp_path / "a.safetensors", first.state)
    second = trainer_of(config)
    assert load_snapshot(tmp_path / "a.safetensors", second.state)
    assert second.progress.step == 2
    assert [second.update(samples).loss for _ in range(2)] == losses[2:]
    for one, other in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_shape_is_refused(
    config: BackboneTrainConfig, samples: LatentPool, tmp_path: Path
) -> None:
    trainer = trainer_of(config)
    trainer.update(samples)
    save_snapshot(tmp_path / "a.safetensors", trainer.state)
    with pytest.raises(ArtifactError, match="other values of num_layers"):
        load_snapshot(tmp_path / "a.safetensors", trainer_of(replace(config, num_layers=2)).state)


def test_the_schedule_ends_by_time_or_by_steps() -> None:
    progress = Pace(num_steps=100, minutes=1.0, step=10, seconds=30.0)
    assert progress.share == 0.5
    assert progress.rate(warmup_steps=5, decay_fraction=0.25) == 1.0
    progress.advance(22.5)
    assert progress.rate(warmup_steps=5, decay_fraction=0.25) == pytest.approx(0.5)
    progress.step = 100
    assert progress.is_done


def test_job_exports_a_backbone_and_goes_on(config: BackboneTrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    job.run(config, tmp_path / "run", folder=folder)
    backbone = load_backbone(str(folder))
    assert backbone.codec.scaling_factor != 1.0
    again = job.run(config, tmp_path / "run", folder=folder)
    assert load_backbone(str(again)).card.revision == backbone.card.revision


def test_training_starts_from_a_finished_backbone(
    config: BackboneTrainConfig, tmp_path: Path
) -> None:
    first = job.run(config, tmp_path / "first", folder=tmp_path / "one")
    job.run(replace(config, steps=1), tmp_path / "second", folder=tmp_path / "two", start=first)
    one, two = load_backbone(str(first)), load_backbone(str(tmp_path / "two"))
    assert one.codec.scaling_factor == two.codec.scaling_factor
    states = [b.prompts("a red car").states_SD for b in (one, two)]
    assert torch.equal(*states)
    curve = [read_curve(folder / job.CURVE_NAME) for folder in (first, tmp_path / "two")]
    assert [point.step for point in curve[0]] == [config.steps]
    assert curve[1][:-1] == curve[0]
    assert curve[1][-1].step == config.steps + 1
    assert (tmp_path / "first" / "vae-score.json").is_file()
    assert not (tmp_path / "second" / "vae-score.json").exists()


def test_a_checkpoint_of_another_start_is_refused(
    config: BackboneTrainConfig, tmp_path: Path
) -> None:
    first = job.run(config, tmp_path / "run", folder=tmp_path / "one")
    with pytest.raises(ArtifactError, match="other values of origin"):
        job.run(config, tmp_path / "run", folder=tmp_path / "two", start=first)
    other = replace(config, num_layers=2)
    with pytest.raises(ConfigError, match=r"num_layers must be that of .*one \(1\), got 2"):
        job.run(other, tmp_path / "other", folder=tmp_path / "two", start=first)


def test_only_a_new_folder_or_a_backbones_is_written(
    config: BackboneTrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"precious")
    for folder in (tmp_path / "photos", tmp_path):
        with pytest.raises(ConfigError, match="must be new, or a backbone's to replace"):
            job.run(config, tmp_path / "run", folder=folder)
    assert (tmp_path / "photos" / "1.jpg").is_file()


def test_a_replaced_folder_keeps_its_card(config: BackboneTrainConfig, tmp_path: Path) -> None:
    folder = job.run(config, tmp_path / "run", folder=tmp_path / "one")
    (folder / "MODEL_CARD.md").write_text("kept")
    job.run(config, tmp_path / "run", folder=folder)
    assert (folder / "MODEL_CARD.md").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if "one" in path.name) == ["one"]


def test_other_scenes_or_another_vae_are_encoded_anew(
    config: BackboneTrainConfig, tmp_path: Path
) -> None:
    def encode(chunk: Chunk) -> np.ndarray:
        return np.full((len(chunk.pixels), 1), len(chunk.captions), np.float16)

    def lengths(settings: BackboneTrainConfig, parent: str) -> tuple[int, list[int]]:
        told: list[int] = []
        pool = ensure_pool(training_specs(settings), tmp_path / "pool", workers=1)
        latents = job.encode_pool(
            pool, tmp_path / "latents", encode, parent=parent,
            on_chunk=lambda done, total: told.append(done),
        )  # fmt: skip
        return len(latents["image"]), told

    assert lengths(config, "a" * 64)[0] == 6
    assert lengths(config, "a" * 64) == (6, [])
    more = replace(config, num_images=8)
    assert lengths(more, "a" * 64)[0] == 8
    assert len(lengths(more, "b" * 64)[1]) == 6


def test_a_resumed_curve_has_no_seam(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    curve = Curve(path, step=0)
    for step in (1, 2, 3, 4):
        curve.add(Update(step=step, kind="clip" if step % 2 else "image", loss=step, num_samples=1))
        if step % 2 == 0:
            curve.flush(10.0 * step)
    assert [p.losses for p in read_curve(path)] == [
        {"clip": 1.0, "image": 2.0},
        {"clip": 3.0, "image": 4.0},
    ]
    resumed = Curve(path, step=3)
    resumed.add(Update(step=4, kind="reference", loss=7.0, num_samples=1))
    resumed.flush(40.0)
    assert [(p.step, p.losses) for p in read_curve(path)] == [
        (2, {"clip": 1.0, "image": 2.0}),
        (4, {"reference": 7.0}),
    ]
