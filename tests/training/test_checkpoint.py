"""Checkpoints in a folder and in an object store: which stay, and going on from there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ArtifactError
from dreambooth3d.training.checkpoint import (
    Checkpoint,
    Keeping,
    drop_checkpoints,
    load_checkpoint,
    save_checkpoint,
    saved_steps,
)
from dreambooth3d.training.engine import TorchEngine
from dreambooth3d.training.loop import Callbacks, FitResult, Plan, Progress, fit, resume_point
from dreambooth3d.training.settings import OptimConfig
from tests.s3_server import s3_url
from tests.training.test_loop import Line, batch

OPTIM = OptimConfig(lr=0.05)


@pytest.fixture(params=["folder", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return Place.parse(str(tmp_path / "checkpoints"))
    address: str = request.getfixturevalue("address")
    return Place.parse(s3_url(address, f"runs/{tmp_path.name}"))


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((2,), float(step))}
    return Checkpoint(
        run_key="run", step=step, losses=(1.0,) * step, weights=weights, optimizer=weights
    )


def train(
    home: Place, *, stop_after: int = 0, must_stop: Callable[[], bool] | None = None
) -> FitResult:
    plan = Plan(num_steps=12, optim=OPTIM, run_key="run", folder=home, save_every=3)
    resume = resume_point(plan)

    def stop(progress: Progress) -> None:
        if progress.step == stop_after:
            raise KeyboardInterrupt

    engine = TorchEngine(Line(), OPTIM, resume=resume)
    return fit(
        engine, batch, plan, resume=resume, callbacks=Callbacks(on_step=stop, must_stop=must_stop)
    )


def test_a_training_goes_on_from_where_its_checkpoints_are(home: Place, tmp_path: Path) -> None:
    expected = train(Place.parse(str(tmp_path / "whole")))
    with pytest.raises(KeyboardInterrupt):
        train(home, stop_after=8)
    assert saved_steps(home) == [3, 6]
    result = train(home)
    assert result.first_step == 6
    assert result.losses == expected.losses
    assert saved_steps(home) == [9, 12]
    assert {file.name[:13] for file in home.list() if file.size} == {
        "step-00000009",
        "step-00000012",
    }


def test_what_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    drop_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_was_not_finished_is_none(home: Place) -> None:
    save_checkpoint(home, checkpoint(1))
    # As a kill leaves it: everything but what is written last.
    save_checkpoint(home, checkpoint(2))
    (home / "step-00000002.json").write_bytes(b"")
    found = load_checkpoint(home, run_key="run")
    assert found is not None
    assert found.step == 1
    save_checkpoint(home, checkpoint(2))
    assert saved_steps(home) == [1, 2]


def test_dropping_all_may_be_interrupted_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (4, 8):
        save_checkpoint(tmp_path, checkpoint(step))
    gone: list[str] = []

    def delete(place: Place) -> None:
        if len(gone) == 3:
            raise OSError("killed here")
        gone.append(place.name)
        Path(place.url).unlink()

    monkeypatch.setattr(Place, "delete", delete)
    with pytest.raises(OSError, match="killed here"):
        drop_checkpoints(tmp_path)
    assert saved_steps(tmp_path) == []


def test_the_best_and_the_newest_stay(home: Place) -> None:
    scores: dict[int, float] = {}
    for step, score in ((1, 0.9), (2, 0.3), (3, 0.5), (4, 0.6), (5, 0.7)):
        save_checkpoint(home, checkpoint(step), keeping=Keeping(newest=2, best=1), scores=scores)
        scores[step] = score
    assert saved_steps(home) == [2, 4, 5]
    best = load_checkpoint(home, run_key="run", step=2)
    assert best is not None
    assert best.weights["w"].tolist() == [2.0, 2.0]


def test_those_that_wait_for_their_score_stay_up_to_a_limit() -> None:
    keeping = Keeping(newest=1, best=1)
    assert keeping.kept(range(1, 6), {1: 0.5, 2: 0.4}) == {2, 3, 4, 5}
    assert keeping.kept(range(1, 101), {1: 0.5}) == {1, *range(93, 101)}
    assert Keeping(newest=2).kept(range(1, 6), {1: 0.1}) == {4, 5}


def test_what_cannot_be_written_is_said_and_the_last_one_stays(tmp_path: Path) -> None:
    home = Place.parse(str(tmp_path / "checkpoints"))
    save_checkpoint(home, checkpoint(1))
    # A folder where a file has to be, for root as well.
    (tmp_path / "checkpoints" / "step-00000002.weights.safetensors" / "x").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="must be writable"):
        save_checkpoint(home, checkpoint(2))
    assert saved_steps(home) == [1]


def test_a_training_ends_when_it_is_told_to(tmp_path: Path) -> None:
    answers = iter([False, True])
    result = train(Place.parse(str(tmp_path)), must_stop=lambda: next(answers))
    assert len(result.losses) == 6
    assert saved_steps(tmp_path) == [3, 6]


def test_a_run_with_its_scores_keeps_the_best(tmp_path: Path) -> None:
    plan = Plan(
        num_steps=12, optim=OPTIM, run_key="run", folder=tmp_path, save_every=2,
        keeping=Keeping(newest=1, best=1),
    )  # fmt: skip
    scores: dict[int, float] = {}

    def judge(saved: Checkpoint) -> None:
        scores[saved.step] = abs(saved.step - 5.9)

    fit(
        TorchEngine(Line(), OPTIM),
        batch,
        plan,
        callbacks=Callbacks(on_save=judge, scores=lambda: scores),
    )
    assert saved_steps(tmp_path) == [6, 12]
