import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth3d.artifacts.adapter import Adapter, AdapterCard, find_adapter
from dreambooth3d.errors import AdapterError, ArtifactError, ConfigError
from dreambooth3d.evaluate import suite_reference
from dreambooth3d.evaluate.config import ReferenceSuiteConfig
from dreambooth3d.evaluate.probe import Probe
from dreambooth3d.evaluate.reference_report import ReferenceScore
from dreambooth3d.evaluate.suite_reference import make_case
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.lora import LoraAdapter
from dreambooth3d.model.names import to_peft
from dreambooth3d.scenes import FIRST_HELD_OUT_SEED

CONFIG = ReferenceSuiteConfig(num_subjects=3, num_pictures=2, num_levels=2, steps=2)


@pytest.fixture(scope="module")
def backbone(miniature: Path) -> Backbone:
    return load_backbone(str(miniature))


@pytest.fixture(scope="module")
def adapter(backbone: Backbone) -> Adapter:
    lora = LoraAdapter(backbone.transformer, role="reference", rank=4)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(value.shape, generator=generator) * 0.1
        for name, value in lora.weights().items()
    }
    card = AdapterCard(
        kind="3dapter", backbone="miniature", backbone_revision=backbone.card.revision, rank=4,
        scale=1.0, reference_attention="joint", reference_time_offset=0, method="3dapter",
        trigger=None, class_noun=None, subject=None, num_views=1, steps=1, seed=0, parents=(),
        key="test",
    )  # fmt: skip
    return Adapter(card, {"reference": to_peft(weights)})


def test_a_case_is_a_held_out_subject_and_always_the_same() -> None:
    seed = 3 * FIRST_HELD_OUT_SEED
    case, again = (make_case(seed, CONFIG, size=32) for _ in range(2))
    assert case.caption == again.caption
    assert np.array_equal(case.view, again.view)
    assert case.target.shape == case.view.shape == (32, 32, 3)
    assert len(case.judged_by) == 4
    assert not np.array_equal(case.target, make_case(seed + 1, CONFIG, size=32).target)


def test_wrong_means_the_next_subjects_view_and_nothing_else(
    backbone: Backbone, adapter: Adapter
) -> None:
    cases = [make_case(3_000_000 + i, CONFIG, size=32) for i in range(3)]
    use = suite_reference.place(adapter, backbone)
    right, wrong = suite_reference.losses(CONFIG, backbone, use, cases)
    swapped = [replace(cases[i], view=cases[(i + 1) % 3].view) for i in range(3)]
    theirs, _ = suite_reference.losses(CONFIG, backbone, use, swapped)
    assert torch.equal(theirs, wrong)
    assert not torch.equal(right, wrong)


def test_the_suite_runs_end_to_end(backbone: Backbone, adapter: Adapter, tmp_path: Path) -> None:
    lines: list[str] = []
    score = suite_reference.run(
        CONFIG, backbone, adapter, Probe().eval(), tmp_path, report=lines.append
    )
    assert 0 <= score.share <= 1
    assert score.loss_right > 0
    assert -1 <= score.identity_gap <= 1
    assert any("3 subjects" in line for line in lines)
    written = json.loads((tmp_path / "report.json").read_text())["data"]
    assert written["score"]["gain"] == pytest.approx(score.gain)
    assert written["adapter"] == "test"
    assert (tmp_path / "index.html").is_file()
    assert (tmp_path / "contact_sheet.png").is_file()


def test_gain_is_a_share_of_the_loss_with_a_wrong_reference() -> None:
    score = ReferenceScore(
        loss_right=0.9, loss_wrong=1.0, share=0.9, identity_right=0.5, identity_wrong=0.2
    )
    assert score.gain == pytest.approx(0.1)
    assert score.identity_gap == pytest.approx(0.3)


def test_an_adapter_of_another_backbone_or_of_a_subject_is_refused(
    backbone: Backbone, adapter: Adapter, tmp_path: Path
) -> None:
    foreign = Adapter(replace(adapter.card, backbone_revision="0" * 16), adapter.weights)
    card = replace(adapter.card, kind="subject", subject="mug", trigger="sks", class_noun="mug")
    personal = Adapter(replace(card, num_views=0), adapter.weights)
    for given, sentence in (
        (foreign, "must be used with backbone"),
        (personal, "mug must be a 3Dapter"),
    ):
        with pytest.raises(AdapterError, match=sentence):
            suite_reference.run(CONFIG, backbone, given, Probe().eval(), tmp_path)


def test_adapters_are_found_by_path_and_unknown_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter.json").write_text("{}")
    assert find_adapter(str(tmp_path)) == tmp_path
    with pytest.raises(ArtifactError, match="or a packaged one"):
        find_adapter("nobody")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_subjects must be at least 2"):
        ReferenceSuiteConfig(num_subjects=1, num_pictures=1)
    with pytest.raises(ConfigError, match="band must rise"):
        ReferenceSuiteConfig(band=(0.9, 0.6))
