from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts.adapter import Adapter
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.heldout_scores import HeldOutJudge, complete_views, view_losses
from dreambooth3d.personalize.lessons import batch_loader, encode_lessons, encode_pictures
from dreambooth3d.personalize.outcome import Evidence, Judgement
from dreambooth3d.personalize.personalize import build_task, prepare, train_subject
from dreambooth3d.training.loop import Progress

CONFIG = PersonalizeConfig(
    method="3dreambooth", steps=12, rank=4, lr=1e-2, score_every=4, save_every=4, patience=2
)


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("subjects") / "thing"
    return photograph(folder, 1_000_071, id="thing", num_images=10, num_references=4, size=32)


def train(
    config: PersonalizeConfig, subject: Subject, backbone: Backbone, **more: object
) -> tuple[Adapter, Evidence]:
    return train_subject(
        config, subject, backbone, None, key="k", parents=(), **more  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_backbone_of_bf16_is_judged_as_one_of_fp32(
    subject: Subject, backbone: Backbone, miniature: Path
) -> None:
    pictures = prepare(CONFIG, subject).held_out
    losses = []
    for own in (backbone, load_backbone(str(miniature), dtype=torch.bfloat16)):
        task, text = build_task(CONFIG, own, None), own.prompts("a video of a sks thing")
        targets = encode_pictures(own, pictures, 32)
        assert torch.isfinite(complete_views(task, targets, None, text, seed=0)).all()
        losses.append(float(view_losses(task, targets, None, text, seed=0).mean()))
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_held_out_captures_are_not_trained_on(subject: Subject) -> None:
    found = prepare(CONFIG, subject)
    assert (len(found.captures), len(found.held_out)) == (8, 2)
    trained = {picture.tobytes() for picture in found.captures}
    assert not trained & {picture.tobytes() for picture in found.held_out}


def test_checkpoints_are_judged_and_the_best_is_kept(subject: Subject, backbone: Backbone) -> None:
    adapter, found = train(CONFIG, subject, backbone)
    assert [judgement.step for judgement in found.judgements] == [0, 4, 8, 12]
    assert found.best_step == min(found.judgements, key=lambda j: j.loss).step
    assert adapter.card.steps == found.best_step
    assert set(found.samples) == {0, 4, 8, 12}
    short, _ = train(PersonalizeConfig(**{**vars(CONFIG), "steps": 12}), subject, backbone)
    for name, tensor in adapter.weights["subject"].items():
        assert torch.equal(tensor, short.weights["subject"][name])


def test_a_training_that_gets_worse_stops_and_keeps_what_was_better(
    subject: Subject, backbone: Backbone
) -> None:
    config = PersonalizeConfig(**{**vars(CONFIG), "steps": 400, "lr": 3.0})
    adapter, found = train(config, subject, backbone)
    assert len(found.losses) < 400
    assert found.best_step < len(found.losses)
    assert adapter.card.steps == found.best_step


def test_what_was_judged_outlives_an_interruption(
    subject: Subject, backbone: Backbone, tmp_path: Path
) -> None:
    class KilledError(Exception):
        """Stands for a killed worker."""

    def kill(progress: Progress, _judged: Judgement | None) -> None:
        if progress.step == 9:
            raise KilledError

    whole, expected = train(CONFIG, subject, backbone)
    with pytest.raises(KilledError):
        train(CONFIG, subject, backbone, folder=tmp_path, on_step=kill)
    again, found = train(CONFIG, subject, backbone, folder=tmp_path)
    assert found.judgements == expected.judgements
    assert found.best_step == expected.best_step
    assert set(found.samples) == set(expected.samples)
    for name, tensor in whole.weights["subject"].items():
        assert torch.equal(tensor, again.weights["subject"][name])


def test_training_stops_after_patience_and_later_judgements_do_not_count() -> None:
    judge = HeldOutJudge.__new__(HeldOutJudge)
    judge._config = CONFIG
    losses = (3.0, 2.0, 2.5, 2.1, 1.0)
    judge._found = {n: Judgement(step=n, loss=loss) for n, loss in enumerate(losses)}
    assert judge.must_stop()
    assert judge.best_step == 1
    judge._found = {n: Judgement(step=n, loss=loss) for n, loss in enumerate(losses[:3])}
    assert not judge.must_stop()


def test_foreground_prior_and_dropout_shape_the_batches(
    subject: Subject, backbone: Backbone
) -> None:
    config = PersonalizeConfig(
        steps=2, rank=4, batch_size=6, foreground_weight=4.0, prior_weight=0.5, num_prior=2,
        reference_dropout=0.5,
        prompt="a video of a [{trigger} {class_noun}] | a photo of a [{trigger} {class_noun}]",
    )  # fmt: skip
    prepared = prepare(config, subject)
    lessons = encode_lessons(config, subject, backbone, prepared.captures, prepared.views)
    batch, prior = batch_loader(config, subject, backbone, lessons)(0)
    assert lessons.weights_NHW is not None
    torch.testing.assert_close(lessons.weights_NHW.mean(dim=(1, 2)), torch.ones(8))
    assert float(lessons.weights_NHW.amax()) > 1.2 > 0.8 > float(lessons.weights_NHW.amin())
    assert batch.references_BVCHW is not None
    assert len({views.numpy().tobytes() for views in batch.references_BVCHW}) == 2
    assert len({len(text.states_SD) for text in batch.texts} | {id(t) for t in batch.texts}) > 1
    assert prior.weight_B11HW is not None
    assert bool((prior.weight_B11HW == 0.5).all())
    assert all(text.span is None for text in prior.texts)
    task = build_task(PersonalizeConfig(method="3dreambooth", rank=4), backbone, None)
    double = type(prior)(**{**vars(prior), "weight_B11HW": 2 * prior.weight_B11HW})
    torch.testing.assert_close(task.row_losses(double), 2 * task.row_losses(prior))
