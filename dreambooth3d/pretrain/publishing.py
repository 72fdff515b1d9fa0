"""What a pretraining leaves: the adapter, its curve, and what was found on held-out subjects."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.adapter import Adapter, save_adapter
from dreambooth3d.artifacts.key import publish
from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.judge import PICTURES_NAME
from dreambooth3d.pretrain.validation import LEVELS
from dreambooth3d.training.loop import FitResult

STAGE = "pretrain"
CURVE_NAME = "curve.json"


def publish_adapter(
    config: PretrainConfig,
    adapter: Adapter,
    result: FitResult,
    validations: list[dict[str, Any]],
    final: Path,
    *,
    corpus_sha256: str,
    system: Mapping[str, Mapping[int, float]],
) -> None:
    """Publish a trained adapter with its curve, and pictures of held-out pairs beside it.

    Args:
        config: of the training.
        adapter: what came out.
        result: how the training went.
        validations: what was found on held-out pairs.
        final: folder to be.
        corpus_sha256: of the manifest of the corpus.
        system: metrics of the machine by name and step.
    """
    key = final.name
    pictures = final.parent / ".checkpoints" / key / PICTURES_NAME
    with publish(final) as aside:
        if pictures.is_dir():
            shutil.copytree(pictures, aside / PICTURES_NAME)
        card = save_adapter(aside, adapter)
        curve = {
            "loss": list(result.losses),
            "first_step": result.first_step,
            "step_seconds": result.step_seconds,
            "data_share": result.data_share,
            "validations": validations,
            "system": system,
        }
        (aside / CURVE_NAME).write_text(json.dumps(curve), encoding="utf-8")
        Manifest(
            stage=STAGE,
            key=key,
            config=versioned(config),
            parents=card.parents,
            outputs={
                "weights_sha256": card.weights_sha256,
                "curve": CURVE_NAME,
                "pairs_manifest_sha256": corpus_sha256,
            },
        ).save(aside)


def curves_of(curve: Mapping[str, Any]) -> dict[str, Sequence[float] | dict[int, float]]:
    """What MLflow draws: the loss, and of held-out pairs the loss by noise level and the gain."""
    curves: dict[str, Sequence[float] | dict[int, float]] = {"loss": curve["loss"]}
    found = curve["validations"]
    for place, level in enumerate(LEVELS if found else ()):
        curves[f"held_out_loss_{level:g}"] = {row["step"]: row["own"][place] for row in found}
    if found:
        curves["held_out_gain"] = {row["step"]: row["gain"] for row in found}
    for kind in ("own", "other"):
        # Not there in what was judged before identity was.
        points = {r["step"]: r["identity"][kind] for r in found if kind in r.get("identity", {})}
        if points:
            curves[f"held_out_identity_{kind}"] = points
    for name, points in curve.get("system", {}).items():
        curves[name] = {int(step): value for step, value in points.items()}
    return curves


def versioned(config: PretrainConfig) -> dict[str, Any]:
    """Settings of the key; what is trained and from where counts as a parent, not by its path."""
    found = {k: v for k, v in versioned_fields(config).items() if k not in ("backbone", "start")}
    if config.patience:
        # Where it may end.
        return found | {"save_every": config.save_every}
    found.pop("patience")
    return found


def manifest_sha256(corpus: Place) -> str:
    """Hash of a corpus's manifest: it names every shard with its own."""
    return (corpus / MANIFEST_NAME).sha256()
