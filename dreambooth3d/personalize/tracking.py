"""A batch in MLflow: a parent run, below it a run and a registered model for every subject."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.jsonfile import read_json
from dreambooth3d.personalize.batch import batch_key
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.keys import CURVE_NAME, home_of, versioned
from dreambooth3d.personalize.orders import Order
from dreambooth3d.personalize.outcome import Outcome
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording

EXPERIMENT = "dreambooth3d-personalize"
# A run of the same key that was ended too early, or failed, is gone on with.
_UNIQUE = ("artifact_key",)


class BatchRecord:
    """Writes what is not there yet, subject by subject, from the one process that drives a batch.

    Args:
        config: of the batch.
        orders: of all its subjects, by id.
        out: folder of the stage; an embedded store is beside it.
        report: told when the store cannot be written: the batch goes on without.
    """

    def __init__(
        self,
        config: PersonalizeConfig,
        orders: Mapping[str, Order],
        out: Path,
        report: Callable[[str], None],
    ) -> None:
        self._config, self._orders, self._out, self._report = config, orders, out, report
        self._tracker: Tracker | None = None
        self._parent: str | None = None
        self._is_failed = self._is_off = False

    def add(self, outcome: Outcome) -> None:
        """Record one subject, unless it is recorded already."""
        self._is_failed |= outcome.is_failed
        if self._is_off:
            return
        self._is_off = True
        with recording(self._report):
            self._add(outcome)
            self._is_off = False

    def finish(self) -> None:
        """Close the batch's run."""
        if self._tracker is None or self._parent is None or self._is_off:
            return
        with recording(self._report):
            self._tracker.finish(self._parent, is_failed=self._is_failed)

    def _add(self, outcome: Outcome) -> None:
        if self._tracker is None:
            self._tracker = Tracker(self._out.parent, EXPERIMENT)
        if not outcome.is_failed and self._tracker.find({"artifact_key": outcome.key}) is not None:
            return
        if self._parent is None:
            orders = list(self._orders.values())
            tags = {
                "batch_key": batch_key(self._config, orders),
                "3dapter": "none" if len(orders[0].parents) == 1 else orders[0].parents[1],
            }
            self._parent = self._tracker.start(
                f"batch of {len(orders)}", tags, unique=("batch_key",)
            )
        record = _run_record(self._orders[outcome.subject], outcome)
        self._tracker.record(record, parent=self._parent, unique=_UNIQUE)


def _run_record(order: Order, outcome: Outcome) -> RunRecord:
    home = home_of(order.out, outcome.key)
    is_done = not outcome.is_failed
    curve: dict[str, Any] = read_json(home / CURVE_NAME, what="loss curve") if is_done else {}
    judgements = curve.get("judgements", [])
    metrics = {"seconds": outcome.seconds, "cost_seconds": outcome.cost_seconds}
    if outcome.identity_after is not None:
        metrics["identity"] = outcome.identity_after
    identities = {j["step"]: j["identity"] for j in judgements if j["identity"] is not None}
    return RunRecord(
        name=outcome.subject,
        params={"backbone": order.config.backbone, **versioned(order.config)},
        tags={
            "artifact_key": outcome.key,
            "subject": outcome.subject,
            "sha256": outcome.sha256,
            "error": outcome.error,
            "attempts": str(outcome.attempts),
            "parents": " ".join(order.parents),
        },
        curves={
            "loss": curve.get("loss", []),
            "held_out_loss": {j["step"]: j["loss"] for j in judgements},
            "held_out_identity": identities,
        },
        metrics=metrics,
        folder=home if is_done else None,
        model=f"dreambooth3d-{outcome.subject}" if is_done else None,
        score=outcome.identity_after,
        is_failed=outcome.is_failed,
    )
