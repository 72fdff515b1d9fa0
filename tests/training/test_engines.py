"""Every engine trains the same numbers, and resumes them."""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from dreambooth3d.errors import ConfigError
from dreambooth3d.training.engine import Engine, TorchEngine, build_engine
from dreambooth3d.training.loop import Callbacks, FitResult, Plan, fit, resume_point
from dreambooth3d.training.settings import OptimConfig, OptimizerName
from tests.training.groups import end_member
from tests.training.test_loop import Line, batch

OPTIM = OptimConfig(lr=0.05, schedule="cosine", warmup_steps=2, max_grad_norm=1.0)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of one, as a Ray Train worker has it."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    store = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)


def train(
    strategy: str, folder: Path | None = None, *, stop_after: int = 12, num_parts: int = 1
) -> tuple[Engine, FitResult]:
    plan = Plan(num_steps=12, optim=OPTIM, run_key="run", folder=folder, save_every=4)
    resume = resume_point(plan)
    engine = build_engine(
        strategy,  # type: ignore[arg-type]
        Line(),
        OPTIM,
        batch_share=8,
        num_parts=num_parts,
        resume=resume,
    )

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == stop_after != 12:
            raise KeyboardInterrupt

    load = partial(batch, num_parts=num_parts)
    return engine, fit(engine, load, plan, resume=resume, callbacks=Callbacks(on_step=stop))


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_losses_and_weights_are_those_of_plain_pytorch(process_group: None, strategy: str) -> None:
    plain, expected = train("single")
    engine, result = train(strategy)
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)
    for name, weight in plain.weights().items():
        torch.testing.assert_close(engine.weights()[name], weight, atol=1e-6, rtol=1e-5)
    for name, moment in plain.optimizer_state().items():
        torch.testing.assert_close(engine.optimizer_state()[name], moment, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["single", "ddp", "zero2", "zero3"])
def test_every_parameter_is_in_one_group_and_clipped(process_group: None, strategy: str) -> None:
    # DeepSpeed drops an empty group, and does not clip what came as a generator.
    optim = OptimConfig(lr=1e-3, max_grad_norm=0.25)
    engine = build_engine(strategy, Line(), optim, batch_share=8)  # type: ignore[arg-type]
    before = engine.weights()
    _, norm = engine.update(batch(0), 1e-3)
    assert norm > optim.max_grad_norm
    state = engine.optimizer_state()
    assert set(state) == {f"{m}/{n}" for m in ("exp_avg", "exp_avg_sq") for n in before}
    # The first moment is a tenth of the gradient that the optimizer got.
    moments = [value for name, value in state.items() if name.startswith("exp_avg/")]
    got = torch.cat([moment.flatten() for moment in moments]).norm() / (1 - optim.beta1)
    assert float(got) == pytest.approx(optim.max_grad_norm, rel=1e-4)
    after = engine.weights()
    assert not torch.equal(after["line.weight"], before["line.weight"])
    assert not torch.equal(after["line.bias"], before["line.bias"])


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3"])
def test_a_batch_in_parts_trains_as_the_whole(process_group: None, strategy: str) -> None:
    _, expected = train("single")
    _, result = train(strategy, num_parts=2)
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "prodigy"])
def test_an_optimizer_of_whole_matrices_is_refused_where_they_are_cut(
    process_group: None, optimizer: OptimizerName
) -> None:
    with pytest.raises(ConfigError, match="use strategy ddp or single"):
        build_engine("zero2", Line(), OptimConfig(optimizer=optimizer), batch_share=8)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_resumes_where_it_was_killed(
    process_group: None, strategy: str, tmp_path: Path
) -> None:
    _, expected = train(strategy)
    with pytest.raises(KeyboardInterrupt):
        train(strategy, tmp_path, stop_after=6)
    _, result = train(strategy, tmp_path)
    assert result.first_step == 4
    assert result.losses == pytest.approx(expected.losses, rel=1e-6)


@pytest.mark.parametrize(("first", "then"), [("zero2", "single"), ("single", "zero3")])
def test_a_checkpoint_does_not_know_its_engine(
    process_group: None, first: str, then: str, tmp_path: Path
) -> None:
    _, expected = train("single")
    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path, stop_after=9)
    _, result = train(then, tmp_path)
    assert result.first_step == 8
    assert result.losses == pytest.approx(expected.losses, rel=1e-5)


def _rank(rank: int, folder: str) -> None:
    store = Path(folder, "store")
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    engine = TorchEngine(Line(), OPTIM)

    def half(step: int) -> list[torch.Tensor]:
        return [batch(step, 2)[rank]]

    result = fit(engine, half, Plan(num_steps=12, optim=OPTIM, run_key="run"))
    if rank == 0:
        Path(folder, "losses.json").write_text(json.dumps(result.losses), encoding="utf-8")
    end_member()


def test_two_workers_train_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    losses = json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))
    task: nn.Module = Line()
    expected = fit(TorchEngine(task, OPTIM), batch, Plan(num_steps=12, optim=OPTIM, run_key="x"))
    assert losses == pytest.approx(expected.losses, rel=1e-5)


def _alone(rank: int, folder: str) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ["TORCH_EXTENSIONS_DIR"] = str(Path(folder, "extensions"))
    store = Path(folder, "store")
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=1)
    train("zero2")
    end_member()


def test_deepspeed_compiles_nothing_on_a_cpu(tmp_path: Path) -> None:
    # A compiler killed at work would leave a lock file, and the next training would wait for ever.
    multiprocessing.spawn(_alone, args=(str(tmp_path),), nprocs=1)
    assert not (tmp_path / "extensions").exists()
