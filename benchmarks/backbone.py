"""The rows of the backbone's proof: one run of each suite for a seed."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.rows import Row
from dreambooth3d.artifacts.adapter import find_adapter, load_adapter
from dreambooth3d.evaluate import suite_backbone, suite_reference
from dreambooth3d.evaluate.config import BackboneSuiteConfig, ReferenceSuiteConfig
from dreambooth3d.evaluate.probe import load_probe
from dreambooth3d.evaluate.reference_report import ReferenceScore
from dreambooth3d.evaluate.suite_scores import BackboneScore
from dreambooth3d.model.backbone import load_backbone

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = "tiny"


@cache
def measure(seed: int) -> BackboneScore:
    """Run the suite once for a seed; its report is in runs/evaluate/backbone."""
    out = ROOT / "runs" / "evaluate" / "backbone"
    config = BackboneSuiteConfig(seed=seed)
    backbone = load_backbone(BACKBONE)
    return suite_backbone.run(config, backbone, load_probe(), out, report=_progress)


@cache
def measure_references(seed: int) -> ReferenceScore:
    """Measure the packaged 3Dapter on subjects that nothing was trained on."""
    adapter = load_adapter(find_adapter(BACKBONE))
    config = ReferenceSuiteConfig(seed=seed)
    backbone = load_backbone(BACKBONE)
    out = ROOT / "runs" / "evaluate" / "reference"
    return suite_reference.run(config, backbone, adapter, load_probe(), out, report=_progress)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _at_least(name: str, bar: float, pick: Callable[[BackboneScore], float]) -> Row:
    return Row(name=name, measure=lambda seed: pick(measure(seed)), rule=">=", bar=bar)


def _at_most(name: str, bar: float, pick: Callable[[BackboneScore], float]) -> Row:
    return Row(name=name, measure=lambda seed: pick(measure(seed)), rule="<=", bar=bar)


def _with_reference(name: str, bar: float, pick: Callable[[ReferenceScore], float]) -> Row:
    return Row(name=name, measure=lambda seed: pick(measure_references(seed)), rule=">=", bar=bar)


ROWS = (
    _at_least("real_background", 0.98, lambda score: score.real.background),
    _at_least("real_color", 0.97, lambda score: score.real.color),
    _at_least("real_class", 0.97, lambda score: score.real.class_noun),
    _at_least("real_motion", 0.97, lambda score: score.real.motion),
    _at_least("background", 0.95, lambda score: score.generated.background),
    _at_least("color", 0.85, lambda score: score.generated.color),
    _at_least("class", 0.80, lambda score: score.generated.class_noun),
    _at_least("motion", 0.80, lambda score: score.generated.motion),
    _at_least("unseen_background", 0.85, lambda score: score.unseen_generated.background),
    _at_least("unseen_color", 0.75, lambda score: score.unseen_generated.color),
    _at_least("unseen_class", 0.70, lambda score: score.unseen_generated.class_noun),
    _at_least("unseen_motion", 0.70, lambda score: score.unseen_generated.motion),
    _at_least("turn_real", 0.98, lambda score: score.turn_real.agreement),
    _at_least("turn_agreement", 0.90, lambda score: score.turn_generated.agreement),
    # As every motion: what keeps its first frame for ever agrees with itself, but does not turn.
    _at_least("turn_motion", 0.80, lambda score: score.turn_generated.motion),
    _at_most("turn_silhouette", 0.15, lambda score: score.turn_silhouette),
    _at_most("moves", 0.25, lambda score: score.moves),
    _at_least("vae_psnr", 30, lambda score: score.vae_psnr),
    _with_reference("reference_gain", 0.10, lambda score: score.gain),
    _with_reference("reference_share", 0.90, lambda score: score.share),
    _with_reference("identity_gap", 0.15, lambda score: score.identity_gap),
)
