from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth3d.artifacts.adapter import Adapter
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import AdapterError, ConfigError, ImageError
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import Judgement
from dreambooth3d.personalize.personalize import (
    prepare,
    rank_of,
    resolve,
    train_subject,
)
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, train_adapter
from dreambooth3d.training.loop import Progress
from tests.pairs.corpora import write_scenes

CONFIG = PersonalizeConfig(steps=6, rank=4, lr=1e-2, batch_size=2, save_every=2)


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PairCorpus:
    return write_scenes(tmp_path_factory.mktemp("corpus"), samples=8)


@pytest.fixture(scope="module")
def pretrained(backbone: Backbone, corpus: PairCorpus) -> dict[str, Adapter]:
    found = {}
    examples = PairExamples(corpus, backbone, backbone.card.train_side)
    for attention in ("joint", "isolated"):
        config = PretrainConfig(
            strategy="single", steps=3, batch_size=2, rank=4, lr=1e-2, reference_attention=attention
        )
        found[attention], _ = train_adapter(config, backbone, examples, run_key="p", folder=None)
    return found


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("subjects") / "thing"
    return photograph(folder, 1_000_070, id="thing", num_images=5, num_references=6, size=32)


def train(
    config: PersonalizeConfig, subject: Subject, backbone: Backbone, adapter: Adapter | None,
    **more: object,
) -> Adapter:  # fmt: skip
    trained, _ = train_subject(
        config, subject, backbone, adapter, key="key", parents=("p",), **more  # type: ignore[arg-type]
    )  # fmt: skip
    return trained


@pytest.mark.parametrize(
    ("method", "roles", "num_views"),
    [("joint", {"reference", "subject"}, 4), ("3dreambooth", {"subject"}, 0),
     ("3dapter", {"reference"}, 4)],
)  # fmt: skip
def test_each_method_gives_its_adapters(
    method: str, roles: set[str], num_views: int,
    subject: Subject, backbone: Backbone, pretrained: dict[str, Adapter],
) -> None:  # fmt: skip
    config = PersonalizeConfig(steps=2, rank=4, lr=1e-2, method=method)
    found = train(config, subject, backbone, pretrained["joint"])
    assert set(found.weights) == roles
    assert len(found.references) == found.card.num_views == num_views
    old = pretrained["joint"].weights["reference"]
    if method == "3dapter":
        assert all(torch.equal(t, old[n]) for n, t in found.weights["reference"].items())
    if method == "joint":
        assert any(not torch.equal(t, old[n]) for n, t in found.weights["reference"].items())
        assert any(t.any() for n, t in found.weights["subject"].items() if "lora_B" in n)


@pytest.mark.parametrize("attention", ["joint", "isolated"])
def test_an_interrupted_subject_ends_bit_for_bit_the_same(
    attention: str, subject: Subject, backbone: Backbone, pretrained: dict[str, Adapter],
    tmp_path: Path,
) -> None:  # fmt: skip
    class KilledError(Exception):
        """Stands for a killed worker."""

    def kill(progress: Progress, _judged: Judgement | None) -> None:
        if progress.step == 5:
            raise KilledError

    config = PersonalizeConfig(**{**vars(CONFIG), "reference_attention": attention})
    whole = train(config, subject, backbone, pretrained[attention])
    with pytest.raises(KilledError):
        train(config, subject, backbone, pretrained[attention], folder=tmp_path, on_step=kill)
    again = train(config, subject, backbone, pretrained[attention], folder=tmp_path)
    for role, weights in whole.weights.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, again.weights[role][name]), name


def test_the_subject_is_learned(
    subject: Subject, backbone: Backbone, pretrained: dict[str, Adapter]
) -> None:
    config = PersonalizeConfig(steps=150, rank=4, lr=2e-2, batch_size=4)
    _, result = train_subject(config, subject, backbone, pretrained["joint"], key="k", parents=())
    assert sum(result.losses[-20:]) < 0.97 * sum(result.losses[:20])


def test_what_does_not_fit_is_refused(
    subject: Subject, backbone: Backbone, pretrained: dict[str, Adapter]
) -> None:
    with pytest.raises(ConfigError, match="must be given a 3Dapter"):
        train(CONFIG, subject, backbone, None)
    with pytest.raises(AdapterError, match="reference_attention isolated, got joint"):
        train(CONFIG, subject, backbone, pretrained["isolated"])
    other = PersonalizeConfig(rank=8)
    with pytest.raises(ConfigError, match=r"rank must be that of the 3Dapter \(4\), got 8"):
        train(other, subject, backbone, pretrained["joint"])


def test_the_rank_is_that_of_the_3dapter_unless_said(pretrained: dict[str, Adapter]) -> None:
    card = pretrained["joint"].card
    assert rank_of(PersonalizeConfig(), card) == card.rank == 4
    assert rank_of(PersonalizeConfig(method="3dreambooth"), None) == 16
    assert rank_of(PersonalizeConfig(method="3dreambooth", rank=8), card) == 8


def test_pictures_are_prepared(subject: Subject, tmp_path: Path) -> None:
    found = prepare(CONFIG, subject)
    assert (len(found.captures), len(found.views)) == (5, 4)
    bare = Subject(id="x", class_noun="thing", images=subject.images, references=())
    assert len(prepare(CONFIG, bare).views) == 4
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64)).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"broken\.png"):
        prepare(CONFIG, Subject(id="x", class_noun="thing", images=(broken,), references=()))


def test_a_rows_own_settings_win(subject: Subject) -> None:
    own = Subject(id="x", class_noun="thing", images=subject.images, references=(), steps=9, seed=4)
    assert (resolve(CONFIG, own).steps, resolve(CONFIG, own).seed) == (9, 4)
    assert resolve(CONFIG, subject) == CONFIG
