"""Stage 1 on Ray Train: workers train together, the first one publishes the adapter."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from dreambooth3d.artifacts.adapter import find_adapter, load_card
from dreambooth3d.artifacts.key import (
    artifact_key,
    exclusive,
    point_latest,
)
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus, read_manifest
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, RunError
from dreambooth3d.model.backbone import localize, read_card, read_structure
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.cost import describe_cost
from dreambooth3d.pretrain.judge import start_judge
from dreambooth3d.pretrain.pretrain import (
    has_latents,
    parents_of,
    start_card,
    training_side,
)
from dreambooth3d.pretrain.validation import LEVELS
from dreambooth3d.pretrain.worker import CURVE_NAME, SPLIT, STAGE, train_rank, versioned
from dreambooth3d.runtime.relay import relayed
from dreambooth3d.runtime.session import last_line, ray_session, threads_for
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording

REVISION = 1
# A lost worker or node: the others start again with it from the last checkpoint.
_MAX_FAILURES = 3
_LATENTS_USED = "the corpus is encoded, no encoder is loaded"
_LATENTS_UNUSED = (
    "latents of the corpus are of another backbone, side or precision, pairs are encoded anew"
)


def key_of(config: PretrainConfig, corpus: Path | str) -> str:
    """Artifact key of the adapter these settings make from this corpus."""
    corpus_key = read_manifest(Place.parse(str(corpus))).key
    parents = parents_of(corpus_key, read_card(config.backbone), start_card(config))
    return artifact_key(STAGE, REVISION, versioned(config), parents)


def plan(config: PretrainConfig, corpus: Path | str, out: Path) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    card = read_card(config.backbone)
    side = training_side(config, card)
    key, found = key_of(config, corpus), PairCorpus.open(corpus, split=SPLIT)
    return {
        "inputs": {"pairs": found.place.url, "num_pairs": len(found)},
        "backbone": f"{card.name} ({card.revision})",
        "artifact": str(out / key),
        "is done": (out / key).is_dir(),
        "workers": f"{config.workers} x {config.strategy}",
        "updates": f"{config.steps} of {config.batch_size} pairs",
        "pictures": f"{side} x {side} pixels",
        "reference attention": config.reference_attention,
        "start": config.start or "anew",
        "cost": describe_cost(config, read_structure(config.backbone), side),
    }


def run(
    config: PretrainConfig, corpus: Path | str, out: Path, *, report: Callable[[str], None] = print
) -> Manifest:
    """Train into `out/<key>`, going on from the last checkpoint of an interrupted run.

    Args:
        config: of the training.
        corpus: a folder or a URL.
        out: folder of adapters; all workers must reach it.
        report: told how far it is.
    """
    start = str(find_adapter(config.start).resolve()) if config.start else ""
    config = replace(config, backbone=localize(config.backbone), start=start)
    key = key_of(config, corpus)
    final = out / key
    with exclusive(out, key):
        if final.is_dir():
            report(f"pretrain {key}: already trained, nothing to do")
        else:
            found = PairCorpus.open(corpus, split=SPLIT, verify=True)
            if "latents" in found.manifest.outputs:
                is_used = has_latents(config, found, read_card(config.backbone))
                report(f"pretrain {key}: {_LATENTS_USED if is_used else _LATENTS_UNUSED}")
            _train(config, found.place, out.resolve(), key, report)
            report(f"pretrain {key}: adapter at {final}")
    point_latest(out, key)
    with recording(report):
        _record(config, final, out.parent)
    return Manifest.load(final)


def _train(
    config: PretrainConfig, corpus: Place, out: Path, key: str, report: Callable[[str], None]
) -> None:
    report(f"pretrain {key}: starting {config.workers} worker(s), about half a minute")
    with ray_session(), relayed(report) as lines:
        has_gpu = _has_gpus(config)
        threads = threads_for(config.workers)
        trainer = TorchTrainer(
            train_rank,
            train_loop_config={
                "config": asdict(config),
                "corpus": corpus,
                "out": str(out),
                "key": key,
                "threads": threads,
                "lines": lines,
                "judge": start_judge(config, corpus, out / ".checkpoints" / key, lines, report),
            },
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=has_gpu,
                resources_per_worker=None if has_gpu else {"CPU": threads},
            ),
            run_config=RunConfig(
                name=key,
                storage_path=str(out / ".ray"),
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            ),
            torch_config=TorchConfig(backend="nccl" if has_gpu else "gloo"),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise RunError(
                f"pretraining must finish, got: {last_line(error)}; "
                "run the same command again to go on from the last checkpoint"
            ) from error


def _has_gpus(config: PretrainConfig) -> bool:
    """Whether every worker gets a GPU; without asking, a cluster with too few is a mistake."""
    if config.device != "auto":
        return config.device == "gpu"
    num_workers = config.workers
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if 0 < num_gpus < num_workers:
        raise ConfigError(
            f"workers must be at most the cluster's GPUs ({num_gpus}), got {num_workers}; "
            "lower workers, or ask for GPUs with --set device=gpu"
        )
    return num_gpus > 0


def _curves(curve: Mapping[str, Any]) -> dict[str, Sequence[float] | dict[int, float]]:
    """What MLflow draws: the loss, and of held-out pairs the loss by noise level and the gain."""
    curves: dict[str, Sequence[float] | dict[int, float]] = {"loss": curve["loss"]}
    found = curve["validations"]
    for place, level in enumerate(LEVELS if found else ()):
        curves[f"held_out_loss_{level:g}"] = {row["step"]: row["own"][place] for row in found}
    if found:
        curves["held_out_gain"] = {row["step"]: row["gain"] for row in found}
    return curves


def _record(config: PretrainConfig, final: Path, root: Path) -> None:
    """Write the run to MLflow, once: an outage then is made up for by the next run."""
    card = load_card(final)
    curve = json.loads((final / CURVE_NAME).read_text(encoding="utf-8"))
    tracker = Tracker(root, "dreambooth3d-pretrain")
    if tracker.find({"artifact_key": card.key}) is not None:
        return
    tracker.record(
        RunRecord(
            name=card.key,
            params=asdict(config),
            tags={
                "artifact_key": card.key,
                "pairs": card.parents[0],
                "sha256": card.weights_sha256,
            },
            curves=_curves(curve),
            folder=final,
            model="dreambooth3d-3dapter",
        )
    )
