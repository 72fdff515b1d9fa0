"""Fan subjects out as Ray tasks; a subject is trained once per content key, whatever the batch."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from dreambooth3d.artifacts.adapter import load_adapter, load_card, save_adapter
from dreambooth3d.artifacts.jsonfile import read_json
from dreambooth3d.artifacts.key import (
    artifact_key,
    content_hash,
    exclusive,
    link_or_copy,
    point_latest,
    publish,
)
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import Dreambooth3dError
from dreambooth3d.model.backbone import localize, read_card
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import Outcome, describe, failed, write_table
from dreambooth3d.personalize.personalize import check_pretrained, resolve, train_subject
from dreambooth3d.runtime.backbones import warm_backbone
from dreambooth3d.runtime.session import last_line, num_cores, ray_session
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording
from dreambooth3d.training.loop import format_seconds

STAGE, REVISION = "personalize", 1
CURVE_NAME = "curve.json"
# Sums in another number of threads round otherwise: a subject must come out the same alone, in a
# batch, and when the batch is gone on with.
_THREADS = 1


def key_of(config: PersonalizeConfig, subject: Subject, parents: Sequence[str]) -> str:
    """Content key of one subject's adapter: settings, words and every picture's bytes."""
    settings = _versioned(resolve(config, subject))
    words = {"subject": subject.id, "class_noun": subject.class_noun, "trigger": subject.trigger}
    images = [content_hash(path) for path in (*subject.images, *subject.references)]
    return artifact_key(
        STAGE, REVISION, {**settings, **words}, [*parents, str(len(subject.images)), *images]
    )


def parents_of(config: PersonalizeConfig, pretrained: Path | None) -> tuple[str, ...]:
    """Keys a subject's adapter is made from: backbone revision, then the 3Dapter."""
    revision = read_card(config.backbone).revision
    if pretrained is None or config.method == "3dreambooth":
        return (revision,)
    return (revision, load_card(pretrained).key)


def plan(
    config: PersonalizeConfig, subjects: Sequence[Subject], pretrained: Path | None, out: Path
) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    parents = parents_of(config, pretrained)
    check_pretrained(
        config, None if pretrained is None else load_card(pretrained), read_card(config.backbone)
    )
    rows = {}
    for subject in subjects:
        key = key_of(config, subject, parents)
        rows[subject.id] = (
            f"{key}: {len(subject.images)} captures, {len(subject.references)} references, "
            f"{resolve(config, subject).steps} steps"
            + (", already trained" if _home(out, key).is_dir() else "")
        )
    return {
        "inputs": {"3Dapter": str(pretrained), "subjects": len(subjects)},
        "method": f"{config.method}, {config.reference_attention} attention",
        "artifacts": rows,
        "workers": config.workers or "every core",
    }


def run(
    config: PersonalizeConfig,
    subjects: Sequence[Subject],
    pretrained: Path | None,
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> tuple[Manifest | None, tuple[Outcome, ...]]:
    """Train every subject that has no adapter yet and publish the batch as one folder.

    A subject that fails leaves nothing behind; the others are published without it. The manifest
    is None when every subject failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = replace(config, backbone=localize(config.backbone))
    pretrained = None if pretrained is None else pretrained.resolve()
    subjects = [_absolute(subject) for subject in subjects]
    check_pretrained(
        config, None if pretrained is None else load_card(pretrained), read_card(config.backbone)
    )
    parents = parents_of(config, pretrained)
    keys = {subject.id: key_of(config, subject, parents) for subject in subjects}
    outcomes = {
        s.id: _kept(out, s, keys[s.id], config)
        for s in subjects
        if _is_whole(_home(out, keys[s.id]), s.id, report)
    }
    for name in outcomes:
        report(f"personalize {name}: already trained, nothing to do")
    missing = [subject for subject in subjects if subject.id not in outcomes]
    if missing:
        with ray_session():
            outcomes |= _fan_out(config, missing, keys, pretrained, out.resolve(), parents, report)
    ordered = tuple(outcomes[subject.id] for subject in subjects)
    manifest = _publish_batch(config, ordered, parents, out)
    with recording(report):
        _record(config, subjects, ordered, out, pretrained)
    return manifest, ordered


def _is_whole(home: Path, subject: str, report: Callable[[str], None]) -> bool:
    """Whether a finished adapter is there undamaged; a damaged one is said, and made again."""
    if not home.is_dir():
        return False
    try:
        load_adapter(home)
        Manifest.load(home)
        read_json(home / CURVE_NAME, what="loss curve")
    except Dreambooth3dError as error:
        report(f"personalize {subject}: the stored adapter is damaged, training it again: {error}")
        shutil.rmtree(home)
        return False
    return True


def _absolute(subject: Subject) -> Subject:
    """Name pictures by absolute paths: workers run in other working directories."""
    return replace(
        subject,
        images=tuple(path.resolve() for path in subject.images),
        references=tuple(path.resolve() for path in subject.references),
    )


def _fan_out(
    config: PersonalizeConfig,
    subjects: Sequence[Subject],
    keys: Mapping[str, str],
    pretrained: Path | None,
    out: Path,
    parents: tuple[str, ...],
    report: Callable[[str], None],
) -> dict[str, Outcome]:
    gpus = ray.cluster_resources().get("GPU", 0)
    at_once = config.workers or (int(gpus) or num_cores())
    task = ray.remote(num_cpus=_THREADS, num_gpus=1 if gpus else 0, max_retries=config.tries - 1)(
        _train_remotely
    )
    queue = list(subjects)
    running: dict[Any, Subject] = {}
    outcomes: dict[str, Outcome] = {}
    started = time.monotonic()
    while queue or running:
        while queue and len(running) < at_once:
            subject = queue.pop(0)
            arguments = (config, subject, pretrained, keys[subject.id], parents, out)
            running[task.remote(*arguments)] = subject
        done, _ = ray.wait(list(running), num_returns=1)
        subject = running.pop(done[0])
        outcome = _collect(done[0], config, subject, keys[subject.id])
        outcomes[subject.id] = outcome
        spent = time.monotonic() - started
        eta = spent / len(outcomes) * (len(subjects) - len(outcomes))
        report(f"personalize {len(outcomes)}/{len(subjects)} {describe(outcome)} "
               f"eta {format_seconds(eta)}")  # fmt: skip
    return outcomes


def _train_remotely(
    config: PersonalizeConfig,
    subject: Subject,
    pretrained: Path | None,
    key: str,
    parents: tuple[str, ...],
    out: Path,
) -> Outcome:
    """One Ray task: one subject. Errors that are meant for the reader come back as an outcome."""
    import torch

    torch.set_num_threads(_THREADS)
    own = resolve(config, subject)
    with exclusive(out, key):
        return _train_or_keep(own, subject, pretrained, key, parents, out)


def _train_or_keep(
    own: PersonalizeConfig,
    subject: Subject,
    pretrained: Path | None,
    key: str,
    parents: tuple[str, ...],
    out: Path,
) -> Outcome:
    if _home(out, key).is_dir():
        return _kept(out, subject, key, own)
    try:
        backbone = warm_backbone(own.backbone, own.precision)
        adapter, result = train_subject(
            own,
            subject,
            backbone,
            None if pretrained is None else load_adapter(pretrained),
            key=key,
            parents=parents,
            folder=out / ".checkpoints" / key,
        )
    except Dreambooth3dError as error:
        return failed(own, subject, key, str(error))
    with publish(_home(out, key)) as aside:
        card = save_adapter(aside, adapter)
        curve = {"loss": list(result.losses), "seconds": result.seconds}
        (aside / CURVE_NAME).write_text(json.dumps(curve), encoding="utf-8")
        Manifest(
            stage=STAGE,
            key=key,
            config=_versioned(own),
            parents=parents,
            outputs={"weights_sha256": card.weights_sha256, "curve": CURVE_NAME},
        ).save(aside)
    shutil.rmtree(out / ".checkpoints" / key, ignore_errors=True)
    return replace(_kept(out, subject, key, own), status="trained")


def _collect(reference: Any, config: PersonalizeConfig, subject: Subject, key: str) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except RayError as error:
        return failed(
            config, subject, key, f"the worker ended before it was done: {last_line(error)}"
        )
    return outcome


def _kept(out: Path, subject: Subject, key: str, config: PersonalizeConfig) -> Outcome:
    home = _home(out, key)
    curve: dict[str, Any] = read_json(home / CURVE_NAME, what="loss curve")
    losses = curve["loss"]
    head = max(1, len(losses) // 10)
    return Outcome(
        subject=subject.id,
        status="kept",
        key=key,
        method=config.method,
        steps=len(losses),
        first_loss=sum(losses[:head]) / head if losses else None,
        last_loss=sum(losses[-head:]) / head if losses else None,
        seconds=round(float(curve["seconds"]), 2),
        adapter=f"adapters/{subject.id}",
        sha256=load_card(home).weights_sha256,
    )


def _publish_batch(
    config: PersonalizeConfig, outcomes: tuple[Outcome, ...], parents: tuple[str, ...], out: Path
) -> Manifest | None:
    """Publish the adapters of a batch side by side with its table; finished rows are linked."""
    done = [outcome for outcome in outcomes if not outcome.is_failed]
    if not done:
        return None
    key = artifact_key(
        f"{STAGE}-batch", REVISION, _versioned(config), [*parents, *(o.key for o in done)]
    )
    final = out / key
    if any(outcome.status == "trained" for outcome in done):
        # It may show an adapter that was damaged and is made anew.
        shutil.rmtree(final, ignore_errors=True)
    if not final.is_dir():
        with publish(final) as aside:
            for outcome in done:
                shutil.copytree(
                    _home(out, outcome.key), aside / outcome.adapter, copy_function=_link
                )
            write_table(aside / "results.csv", done)
            Manifest(
                stage=f"{STAGE}-batch",
                key=key,
                config=_versioned(config),
                parents=(*parents, *(o.key for o in done)),
                outputs={"adapters": {o.subject: o.sha256 for o in done}},
            ).save(aside)
    point_latest(out, key)
    return Manifest.load(final)


def _link(source: str, target: str) -> None:
    link_or_copy(Path(source), Path(target))


def _record(
    config: PersonalizeConfig,
    subjects: Sequence[Subject],
    outcomes: Sequence[Outcome],
    out: Path,
    pretrained: Path | None,
) -> None:
    """Write to MLflow what is not there yet: a parent run, a child and a model a subject."""
    tracker = Tracker(out.parent, "dreambooth3d-personalize")
    fresh = [
        (subject, outcome)
        for subject, outcome in zip(subjects, outcomes, strict=True)
        if outcome.is_failed or tracker.find({"artifact_key": outcome.key}) is None
    ]
    if not fresh:
        return
    parent = tracker.start(
        f"batch of {len(fresh)}", {"3dapter": "none" if pretrained is None else pretrained.name}
    )
    for subject, outcome in fresh:
        tracker.record(_run_record(resolve(config, subject), outcome, out), parent=parent)
    tracker.finish(parent, is_failed=any(outcome.is_failed for _, outcome in fresh))


def _run_record(config: PersonalizeConfig, outcome: Outcome, out: Path) -> RunRecord:
    home = _home(out, outcome.key)
    is_done = not outcome.is_failed
    curve: dict[str, Any] = read_json(home / CURVE_NAME, what="loss curve") if is_done else {}
    return RunRecord(
        name=outcome.subject,
        params=asdict(config),
        tags={
            "artifact_key": outcome.key,
            "subject": outcome.subject,
            "sha256": outcome.sha256,
            "error": outcome.error,
        },
        curves={"loss": curve.get("loss", [])},
        metrics={"seconds": outcome.seconds},
        folder=home if is_done else None,
        model=f"dreambooth3d-{outcome.subject}" if is_done else None,
        is_failed=outcome.is_failed,
    )


def _versioned(config: PersonalizeConfig) -> dict[str, Any]:
    """Settings of the key; the backbone counts by its revision, a parent, not by its path."""
    return {k: v for k, v in versioned_fields(config).items() if k != "backbone"}


def _home(out: Path, key: str) -> Path:
    return out / "subjects" / key
