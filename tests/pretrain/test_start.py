"""A training that goes on from a finished 3Dapter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts.adapter import save_adapter
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.errors import AdapterError, ConfigError
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.names import from_peft
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pretrain import planning
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, build_task, train_adapter
from tests.pairs.corpora import build_here

TRAINING = PretrainConfig(strategy="single", steps=3, batch_size=2, rank=4, lr=1e-2)


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = PairsConfig(samples=6, samples_per_shard=4, size=32)
    return build_here(pairs, tmp_path_factory.mktemp("corpus"))[0]


@pytest.fixture(scope="module")
def first(
    corpus: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A finished adapter: its folder and its weights."""
    examples = PairExamples(PairCorpus.open(corpus), backbone, 32)
    adapter, _ = train_adapter(TRAINING, backbone, examples, run_key="first", folder=None)
    folder = tmp_path_factory.mktemp("adapters") / "first"
    save_adapter(folder, adapter)
    return folder, from_peft(adapter.weights["reference"])


def test_it_begins_with_the_weights_it_starts_from(
    first: tuple[Path, dict[str, torch.Tensor]], backbone: Backbone
) -> None:
    folder, weights = first
    task = build_task(replace(TRAINING, start=str(folder)), backbone)
    assert task.reference is not None
    for name, weight in task.reference.weights().items():
        assert torch.equal(weight, weights[name]), name


def test_its_card_names_the_start_and_counts_its_updates(
    first: tuple[Path, dict[str, torch.Tensor]], corpus: Path, backbone: Backbone
) -> None:
    config = replace(TRAINING, start=str(first[0]), steps=2)
    examples = PairExamples(PairCorpus.open(corpus), backbone, 32)
    adapter, _ = train_adapter(config, backbone, examples, run_key="second", folder=None)
    assert adapter.card.steps == 5
    assert adapter.card.parents[-1] == "first"
    keys = {planning.key_of(replace(c, backbone=str(backbone.card.folder)), corpus)
            for c in (config, replace(config, start=""))}  # fmt: skip
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": 8}, r"rank must be that of the adapter to start from \(4\), got 8"),
        ({"reference_attention": "isolated"}, "reference_attention must be that of"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(
    first: tuple[Path, dict[str, torch.Tensor]],
    backbone: Backbone,
    change: dict[str, object],
    sentence: str,
) -> None:
    config = replace(TRAINING, start=str(first[0]))
    with pytest.raises(ConfigError, match=sentence):
        build_task(replace(config, **change), backbone)  # type: ignore[arg-type]
    foreign = replace(backbone, card=replace(backbone.card, revision="0" * 16))
    with pytest.raises(AdapterError, match="must be used with backbone"):
        build_task(config, foreign)
