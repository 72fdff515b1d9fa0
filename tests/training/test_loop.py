import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from dreambooth3d.errors import ArtifactError, ConfigError, RunError, StoppedError
from dreambooth3d.training.checkpoint import Checkpoint, load_checkpoint, saved_steps
from dreambooth3d.training.engine import TorchEngine, build_engine
from dreambooth3d.training.loop import (
    SILENT,
    Callbacks,
    FitResult,
    Plan,
    Progress,
    fit,
    format_seconds,
    resume_point,
)
from dreambooth3d.training.settings import OptimConfig, OptimizerName


class Line(nn.Module):
    """A task of the loop's shape: batch in, loss out, one tensor that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(4, 1)
        self.idle = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (self.line(batch) - batch.sum(dim=1, keepdim=True)).square().mean()


def batch(step: int, num_parts: int = 1) -> list[torch.Tensor]:
    whole = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return list(whole.chunk(num_parts))


def plan(folder: Path | None, steps: int = 12, **optim: float) -> Plan:
    return Plan(
        num_steps=steps, optim=OptimConfig(lr=0.05, schedule="cosine", warmup_steps=2, **optim),
        run_key="run", folder=folder, save_every=4,
    )  # fmt: skip


def make_engine(resume: Checkpoint | None = None) -> TorchEngine:
    return TorchEngine(Line(), plan(None).optim, resume=resume)


def go_on(folder: Path, callbacks: Callbacks = SILENT) -> tuple[TorchEngine, FitResult]:
    """Train as a stage does: from the newest checkpoint, if there is one."""
    resume = resume_point(plan(folder))
    engine = make_engine(resume)
    return engine, fit(engine, batch, plan(folder), resume=resume, callbacks=callbacks)


def test_it_learns_and_reports_every_step() -> None:
    seen: list[Progress] = []
    result = fit(
        make_engine(), batch, plan(None, steps=60), callbacks=Callbacks(on_step=seen.append)
    )
    assert result.losses[-1] < result.losses[0] / 3
    assert [p.step for p in seen] == list(range(1, 61))
    assert seen[-1].eta_seconds == 0
    assert "loss" in seen[0].line()


def test_the_time_left_does_not_go_by_a_slow_first_update() -> None:
    seen: list[Progress] = []

    def load(step: int) -> list[torch.Tensor]:
        time.sleep(0.0 if step else 0.5)
        return batch(step)

    fit(make_engine(), load, plan(None, steps=40), callbacks=Callbacks(on_step=seen.append))
    assert seen[0].eta_seconds >= 39 * 0.5
    assert seen[9].eta_seconds < 30 * 0.05


@pytest.mark.parametrize("stopped_after", [4, 6, 8, 11])
def test_resume_equals_the_uninterrupted_run_bit_for_bit(
    tmp_path: Path, stopped_after: int
) -> None:
    whole = make_engine()
    expected = fit(whole, batch, plan(None))

    class KilledError(Exception):
        """Stands for a killed process."""

    def stop(progress: Progress) -> None:
        if progress.step == stopped_after:
            raise KilledError

    with pytest.raises(KilledError):
        go_on(tmp_path, Callbacks(on_step=stop))
    again, resumed = go_on(tmp_path)
    assert resumed.first_step == (stopped_after - 1) // 4 * 4
    assert resumed.losses == expected.losses
    for name, weight in whole.weights().items():
        assert torch.equal(weight, again.weights()[name]), name
    for name, moment in whole.optimizer_state().items():
        assert torch.equal(moment, again.optimizer_state()[name]), name


@pytest.mark.parametrize("told_after", [1, 6, 8, 11])
def test_a_run_that_is_told_to_end_saves_first_and_loses_no_step(
    tmp_path: Path, told_after: int
) -> None:
    whole = make_engine()
    expected = fit(whole, batch, plan(None))
    seen: list[int] = []
    with pytest.raises(StoppedError, match=f"at step {told_after}; run the same command again"):
        fit(
            make_engine(), batch, plan(tmp_path),
            callbacks=Callbacks(
                on_step=lambda progress: seen.append(progress.step),
                must_end=lambda: seen[-1] == told_after,
            ),
        )  # fmt: skip
    again, resumed = go_on(tmp_path)
    assert resumed.first_step == told_after
    assert resumed.losses == expected.losses
    for name, weight in whole.weights().items():
        assert torch.equal(weight, again.weights()[name]), name


def test_a_run_that_is_told_to_end_at_its_last_step_is_done(tmp_path: Path) -> None:
    seen: list[int] = []
    result = fit(
        make_engine(), batch, plan(tmp_path),
        callbacks=Callbacks(
            on_step=lambda progress: seen.append(progress.step),
            must_end=lambda: seen[-1] == 12,
        ),
    )  # fmt: skip
    assert len(result.losses) == 12


def test_an_average_follows_the_weights_and_resumes_with_them(tmp_path: Path) -> None:
    averaged = replace(plan(None, steps=60), average_decay=0.9)
    engine = make_engine()
    start = engine.weights()
    whole = fit(engine, batch, averaged)
    for name, last in engine.weights().items():
        between = (whole.average[name] - last).norm() <= (start[name] - last).norm()
        assert bool(between), name
    assert not torch.equal(whole.average["line.weight"], engine.weights()["line.weight"])

    kept = replace(averaged, folder=tmp_path, save_every=25)

    def stop(progress: Progress) -> None:
        if progress.step == 55:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(make_engine(), batch, kept, callbacks=Callbacks(on_step=stop))
    resume = resume_point(kept)
    resumed = fit(make_engine(resume), batch, kept, resume=resume)
    assert resumed.first_step == 50
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    go_on(tmp_path)
    seen: list[Progress] = []
    _, result = go_on(tmp_path, Callbacks(on_step=seen.append))
    assert seen == []
    assert len(result.losses) == 12
    assert saved_steps(tmp_path) == [8, 12]


def test_a_checkpoint_of_another_run_or_damaged_is_refused(tmp_path: Path) -> None:
    go_on(tmp_path)
    with pytest.raises(ArtifactError, match="must belong to run other, got run"):
        load_checkpoint(tmp_path, run_key="other")
    (tmp_path / "step-00000012.weights.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(ArtifactError, match="step-00000012"):
        load_checkpoint(tmp_path, run_key="run")


@pytest.mark.parametrize("part", ["weights", "optimizer"])
def test_a_flipped_byte_in_a_checkpoint_is_found(tmp_path: Path, part: str) -> None:
    go_on(tmp_path)
    path = tmp_path / f"step-00000012.{part}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"other bytes in {path.name}"):
        load_checkpoint(tmp_path, run_key="run")


def test_a_checkpoint_of_other_parameters_is_refused(tmp_path: Path) -> None:
    go_on(tmp_path)
    found = load_checkpoint(tmp_path, run_key="run")
    assert found is not None
    with pytest.raises(ArtifactError, match="exactly the trained parameters"):
        make_engine(replace(found, weights={"other": torch.zeros(1)}))


@pytest.mark.parametrize(("name", "lr"), [("adamw", 0.05), ("muon", 0.3), ("prodigy", 1.0)])
def test_every_optimizer_learns_and_resumes_exactly(
    name: OptimizerName, lr: float, tmp_path: Path
) -> None:
    optim = OptimConfig(optimizer=name, lr=lr)
    kept = Plan(num_steps=40, optim=optim, run_key="run", folder=tmp_path, save_every=8)
    expected = fit(TorchEngine(Line(), optim), batch, replace(kept, folder=None))
    assert sum(expected.losses[-8:]) < 0.8 * sum(expected.losses[:8])

    def stop(progress: Progress) -> None:
        if progress.step == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(TorchEngine(Line(), optim), batch, kept, callbacks=Callbacks(on_step=stop))
    resume = load_checkpoint(tmp_path, run_key="run")
    resumed = fit(TorchEngine(Line(), optim, resume=resume), batch, kept, resume=resume)
    assert resumed.first_step == 16
    assert resumed.losses == expected.losses


def test_a_batch_in_parts_trains_as_the_whole() -> None:
    whole = fit(make_engine(), batch, plan(None))
    parts = fit(make_engine(), partial(batch, num_parts=4), plan(None))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-6)


def test_a_loss_that_is_no_number_stops_with_the_checkpoint_kept(tmp_path: Path) -> None:
    def broken(step: int) -> list[torch.Tensor]:
        return [part * (float("nan") if step == 9 else 1) for part in batch(step)]

    with pytest.raises(RunError, match="finite number, got nan at step 9"):
        fit(make_engine(), broken, plan(tmp_path))
    found = load_checkpoint(tmp_path, run_key="run")
    assert found is not None
    assert found.step == 8


def test_a_gradient_that_is_no_number_reaches_no_checkpoint(tmp_path: Path) -> None:
    engine = make_engine()
    seen = []

    def spoil(grad: torch.Tensor) -> torch.Tensor:
        seen.append(grad)
        # The loss of this update is sound: it shows only in the weights after it.
        return grad * float("nan") if len(seen) == 8 else grad

    dict(engine._task.named_parameters())["line.weight"].register_hook(spoil)
    with pytest.raises(RunError, match=r"norm of the gradient must stay .* got nan at step 7"):
        fit(engine, batch, plan(tmp_path))
    found = load_checkpoint(tmp_path, run_key="run")
    assert found is not None
    assert found.step == 4
    assert all(torch.isfinite(weight).all() for weight in found.weights.values())


def test_a_task_without_parameters_and_an_unknown_strategy_are_refused() -> None:
    with pytest.raises(ConfigError, match="parameters that learn"):
        TorchEngine(Line().requires_grad_(False), OptimConfig())
    with pytest.raises(ConfigError, match="strategy must be one of"):
        build_engine("fsdp", Line(), OptimConfig(), batch_share=1)  # type: ignore[arg-type]


def test_schedule() -> None:
    optim = OptimConfig(lr=1.0, schedule="cosine", warmup_steps=4)
    assert [optim.lr_at(s, 104) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert optim.lr_at(4, 104) == 1.0
    assert optim.lr_at(54, 104) == pytest.approx(0.55)
    assert optim.lr_at(104, 104) == pytest.approx(0.1)
    assert OptimConfig(lr=1.0).lr_at(7, 10) == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.4, "3s"), (200, "3m20s"), (3720, "1h02m"), (59.6, "1m00s")]
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
