"""A catalogue in, a table of adapters out: every subject a Ray task, trained once per key."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, WorkerCrashedError

from dreambooth3d.artifacts.adapter import load_adapter, load_card
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import ConfigError, Dreambooth3dError
from dreambooth3d.model.backbone import (
    load_tokenizer,
    localize,
    read_card,
    resolve_backbone,
)
from dreambooth3d.personalize.batch import publish_batch
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.keys import (
    home_of,
    key_of,
    parents_of,
    saved_step,
)
from dreambooth3d.personalize.orders import Order
from dreambooth3d.personalize.outcome import Outcome, describe, failed
from dreambooth3d.personalize.personalize import check_pretrained, resolve
from dreambooth3d.personalize.progress import Board
from dreambooth3d.personalize.schedule import Schedule, Turn
from dreambooth3d.personalize.tracking import BatchRecord
from dreambooth3d.personalize.warm_worker import THREADS, kept, left_off
from dreambooth3d.personalize.wording import training_prompts
from dreambooth3d.runtime.fanout import Fanout
from dreambooth3d.runtime.relay import relayed
from dreambooth3d.runtime.session import last_line, num_cores, ray_session, stopping

_WORK = "dreambooth3d.personalize.warm_worker"
_POLL_SECONDS = 0.5
# A training saves and ends after the update it is at.
_STOP_SECONDS = 60.0


def plan(
    config: PersonalizeConfig, subjects: Sequence[Subject], pretrained: Path | None, out: Path
) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    parents = parents_of(config, pretrained)
    _check(config, subjects, pretrained)
    rows = {}
    for subject in subjects:
        key = key_of(config, subject, parents)
        rows[subject.id] = (
            f"{key}: [{subject.trigger} {subject.class_noun}], {len(subject.images)} captures, "
            f"{len(subject.references)} references, "
            f"{resolve(config, subject).steps} steps"
            + (", already trained" if home_of(out, key).is_dir() else "")
        )
    return {
        "inputs": {"3Dapter": str(pretrained), "subjects": len(subjects)},
        "method": f"{config.method}, {config.reference_attention} attention",
        "artifacts": rows,
        "workers": config.workers or "every core",
        "clips": sum(len(subject.prompts) for subject in subjects),
    }


def run(
    config: PersonalizeConfig,
    subjects: Sequence[Subject],
    pretrained: Path | None,
    out: Path,
    *,
    left_out: Sequence[Outcome] = (),
    report: Callable[[str], None] = print,
) -> tuple[Manifest, tuple[Outcome, ...]]:
    """Train every subject that has no adapter yet and publish the batch as one folder.

    A subject that fails leaves nothing but its checkpoint; the others are published without it.
    `left_out` are rows of the catalogue that were left out; the tables tell of them.

    Raises:
        KeyboardInterrupt: on Ctrl-C and SIGTERM, after what runs has been saved and what is
            finished has been published.
    """
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    config = replace(config, backbone=localize(config.backbone))
    pretrained = None if pretrained is None else pretrained.resolve()
    _check(config, subjects, pretrained)
    parents = parents_of(config, pretrained)
    orders = {s.id: _order(config, s, pretrained, parents, out) for s in subjects}
    outcomes: dict[str, Outcome] = {}
    record = BatchRecord(config, orders, out, report)
    for name, order in orders.items():
        if (found := _find_whole(order, report)) is not None:
            outcomes[name] = found
            report(f"personalize {name}: already trained, nothing to do")
            record.add(outcomes[name])
    missing = [order for name, order in orders.items() if name not in outcomes]
    is_stopped = False
    if missing:
        with ray_session():
            is_stopped = _fan_out(config, missing, outcomes, record, report)
    for order in missing:
        if order.subject.id not in outcomes:
            outcomes[order.subject.id] = left_off(order)
    ordered = tuple(outcomes[subject.id] for subject in subjects)
    manifest = publish_batch(config, list(orders.values()), ordered, out, left_out)
    record.finish()
    report(f"personalize: table and page in {out / manifest.key}")
    if is_stopped:
        raise KeyboardInterrupt
    return manifest, ordered


def check_start(config: PersonalizeConfig, pretrained: Path | None) -> None:
    """Refuse a 3Dapter, a folder or none, that the backbone and the settings cannot start from.

    Raises:
        Dreambooth3dError: names what does not fit.
    """
    check_pretrained(
        config, None if pretrained is None else load_card(pretrained), read_card(config.backbone)
    )


def _check(config: PersonalizeConfig, subjects: Sequence[Subject], pretrained: Path | None) -> None:
    """Refuse what every worker would find wrong, before any is started."""
    check_start(config, pretrained)
    tokenizer = load_tokenizer(resolve_backbone(config.backbone, has_weights=False))
    for subject in subjects:
        training_prompts(config, subject, tokenizer)


def _order(
    config: PersonalizeConfig,
    subject: Subject,
    pretrained: Path | None,
    parents: tuple[str, ...],
    out: Path,
) -> Order:
    # Pictures by absolute paths: workers run in other working directories.
    subject = replace(
        subject,
        images=tuple(path.resolve() for path in subject.images),
        references=tuple(path.resolve() for path in subject.references),
    )
    return Order(
        config=resolve(config, subject),
        subject=subject,
        pretrained=pretrained,
        key=key_of(config, subject, parents),
        parents=parents,
        out=out,
        # Of this command alone: another batch in the same folder goes on.
        stop=out / f".stop-{os.getpid()}",
    )


def _find_whole(order: Order, report: Callable[[str], None]) -> Outcome | None:
    """Describe a finished adapter that is undamaged; a damaged one is said, and made again."""
    home = home_of(order.out, order.key)
    if not home.is_dir():
        return None
    try:
        load_adapter(home)
        Manifest.load(home)
        return kept(order)
    except Dreambooth3dError as error:
        report(
            f"personalize {order.subject.id}: the stored adapter is damaged, training it again: "
            f"{error}"
        )
        shutil.rmtree(home)
        return None


def _fan_out(
    config: PersonalizeConfig,
    orders: Sequence[Order],
    outcomes: dict[str, Outcome],
    record: BatchRecord,
    report: Callable[[str], None],
) -> bool:
    """Train the orders, adding to `outcomes`; whether it was stopped before all had ended."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if 0 < gpus < config.gpus_per_subject:
        raise ConfigError(
            f"gpus_per_subject must be at most the cluster's {gpus:g}, "
            f"got {config.gpus_per_subject:g}; lower it"
        )
    slots = int(gpus / config.gpus_per_subject) if gpus else num_cores()
    at_once = config.workers or slots
    board = Board({o.subject.id: o.config.steps for o in orders}, report)
    stop = orders[0].stop
    stop.unlink(missing_ok=True)
    with relayed(lambda line: board.hear(json.loads(line))) as lines:
        fanout = Fanout(
            _WORK,
            {"backbone": config.backbone, "precision": config.precision},
            num_cpus=min(float(THREADS), num_cores() / at_once),
            num_gpus=config.gpus_per_subject if gpus else 0,
            lines=lines,
        )
        batch = _Batch(config, orders, fanout, at_once, board)
        with stopping() as has_to_stop:
            for outcome in batch.outcomes(has_to_stop, stop, report):
                outcomes[outcome.subject] = outcome
                report(
                    f"personalize {len(batch.ended)}/{len(orders)} {describe(outcome)}, "
                    f"eta {batch.eta()}"
                )
                if outcome.status != "stopped":
                    record.add(outcome)
    stop.unlink(missing_ok=True)
    return has_to_stop.is_set()


class _Batch:
    """Runs orders side by side; a lost worker's subject goes on elsewhere."""

    def __init__(
        self,
        config: PersonalizeConfig,
        orders: Sequence[Order],
        fanout: Fanout,
        at_once: int,
        board: Board,
    ) -> None:
        self._orders = {order.subject.id: order for order in orders}
        self._schedule = Schedule(
            [order.subject for order in orders], tries=config.tries, backoff=config.backoff
        )
        self._fanout, self._at_once, self._board = fanout, at_once, board
        self._running: dict[Any, Turn] = {}
        self._began = time.monotonic()
        self.ended: set[str] = set()

    def eta(self) -> str:
        """How long it will still take."""
        return self._board.eta(self._now())

    def outcomes(
        self, has_to_stop: threading.Event, stop: Path, report: Callable[[str], None]
    ) -> Iterator[Outcome]:
        """Yield what becomes of each subject as it ends; when told to stop, of those that run."""
        stop_by: float | None = None
        while self._running or (len(self._schedule) and stop_by is None):
            if has_to_stop.is_set() and stop_by is None:
                report("personalize: stopping; what runs is saved first (again: at once)")
                stop.touch()
                stop_by = self._now() + _STOP_SECONDS
            if stop_by is not None and self._now() > stop_by:
                return
            if stop_by is None:
                self._fill()
            yield from self._collect(report, is_stopping=stop_by is not None)
            self._board.say(self._now())

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _fill(self) -> None:
        while len(self._running) < self._at_once:
            turn = self._schedule.next(self._now())
            if turn is None:
                return
            order = self._orders[turn.subject.id]
            self._running[self._fanout.submit(order.to_json())] = turn

    def _collect(self, report: Callable[[str], None], *, is_stopping: bool) -> Iterator[Outcome]:
        if not self._running:
            time.sleep(_POLL_SECONDS)
            return
        done, _ = ray.wait(list(self._running), num_returns=1, timeout=_POLL_SECONDS)
        for reference in done:
            turn = self._running.pop(reference)
            outcome = self._result(reference, turn, report, is_stopping=is_stopping)
            if outcome is None:
                self._board.lose(turn.subject.id)
                continue
            if outcome.status == "stopped":
                self._board.lose(outcome.subject)
            else:
                self.ended.add(outcome.subject)
                self._board.end(outcome.subject, is_failed=outcome.is_failed)
            if not is_stopping:
                # A slot must not wait for the books.
                self._fill()
            yield replace(outcome, attempts=turn.attempt)

    def _result(
        self, reference: Any, turn: Turn, report: Callable[[str], None], *, is_stopping: bool
    ) -> Outcome | None:
        """What a task has left; None when the subject tries again."""
        order = self._orders[turn.subject.id]
        try:
            return Outcome(**json.loads(ray.get(reference)))
        except WorkerCrashedError:
            reason = "its process was killed"
        except RayError as error:
            reason = last_line(error)
        if is_stopping:
            return left_off(order)
        saved = saved_step(order.out, order.key)
        again = self._schedule.again(turn, saved_step=saved, now=self._now())
        if again is None:
            return failed(
                order.config, order.subject, order.key,
                f"the worker ended before it was done, {turn.attempt} times: {reason}",
            )  # fmt: skip
        report(
            f"personalize {turn.subject.id}: attempt {turn.attempt} lost its worker ({reason}); "
            f"goes on from step {saved} in {again.ready_at - self._now():.0f} s"
        )
        return None
