"""A training ends when held-out losses no longer fall, and gives the best of what it was."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, train_adapter
from dreambooth3d.pretrain.publishing import versioned
from dreambooth3d.pretrain.stopping import Verdict, decide, held_out_losses
from dreambooth3d.training.checkpoint import Checkpoint
from dreambooth3d.training.loop import Callbacks
from tests.pairs.corpora import build_here

TRAINING = PretrainConfig(
    strategy="single", steps=12, batch_size=2, rank=4, lr=1e-2, save_every=2, patience=2, keep=1
)


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({}, None),
        ({2: 0.5}, Verdict(best=2, is_over=False)),
        ({2: 0.5, 4: 0.4, 6: 0.45}, Verdict(best=4, is_over=False)),
        ({2: 0.5, 4: 0.4, 6: 0.45, 8: 0.4}, Verdict(best=4, is_over=True)),
        # What was trained meanwhile does not count, however good.
        ({2: 0.5, 4: 0.4, 6: 0.45, 8: 0.4, 10: 0.1}, Verdict(best=4, is_over=True)),
        ({2: 0.5, 4: 0.6, 6: 0.4, 8: 0.5}, Verdict(best=6, is_over=False)),
    ],
)
def test_patience_ends_it_and_names_the_best(
    losses: Mapping[int, float], verdict: Verdict | None
) -> None:
    assert decide(losses, 2) == verdict


def test_checkpoints_before_a_preemption_do_not_count() -> None:
    rows = [{"step": step, "loss": 1.0} for step in (4, 5, 8, 10)]
    assert set(held_out_losses(rows, every=4, last=10)) == {4, 8, 10}


def test_only_patience_changes_the_key() -> None:
    plain = replace(TRAINING, patience=0)
    assert versioned(plain) == versioned(replace(plain, save_every=5, keep=4, checkpoints="/x"))
    assert versioned(TRAINING) != versioned(plain)
    assert versioned(TRAINING) != versioned(replace(TRAINING, save_every=5))


@pytest.mark.parametrize("change", [{"is_validated": False}, {"keep_best": 0}])
def test_patience_without_a_judge_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="patience must be 0 without"):
        replace(TRAINING, **change)  # type: ignore[arg-type]


def test_the_adapter_is_that_of_the_best_checkpoint(tmp_path: Path, miniature: Path) -> None:
    pairs = PairsConfig(samples=6, samples_per_shard=4, size=32)
    backbone = load_backbone(str(miniature))
    examples = PairExamples(PairCorpus.open(build_here(pairs, tmp_path)[0]), backbone, 32)
    losses: dict[int, float] = {}
    saved: dict[int, dict[str, torch.Tensor]] = {}

    def judge(checkpoint: Checkpoint) -> None:
        losses[checkpoint.step] = {2: 0.5, 4: 0.3}.get(checkpoint.step, 0.4)
        saved[checkpoint.step] = checkpoint.weights

    def is_over() -> bool:
        verdict = decide(losses, TRAINING.patience)
        return verdict is not None and verdict.is_over

    adapter, result = train_adapter(
        TRAINING, backbone, examples, run_key="k", folder=tmp_path / "checkpoints",
        callbacks=Callbacks(on_save=judge, scores=lambda: losses, must_stop=is_over),
        choose=lambda: 4,
    )  # fmt: skip
    assert len(result.losses) == 8
    assert adapter.card.steps == 4
    best = {name: w for name, w in saved[4].items() if name.endswith("lora_B.weight")}
    made = [w for name, w in adapter.weights["reference"].items() if "lora_B" in name]
    assert len(made) == len(best)
    assert sorted(float(w.sum()) for w in made) == sorted(float(w.sum()) for w in best.values())
