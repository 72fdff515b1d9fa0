"""The table of a batch: one row a subject, as Parquet, as CSV and as a page."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.personalize.outcome import Outcome
from dreambooth3d.personalize.results_page import write_page

_NUMBERS = frozenset(
    {"first_loss", "last_loss", "seconds", "cost_seconds", "identity_before", "identity_after"}
)
_COUNTS = frozenset({"steps", "best_step", "attempts"})


def write_results(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Write ``results.parquet``, ``results.csv`` and ``index.html``, each in one step.

    Args:
        folder: of the batch; pictures are read from its adapters.
        outcomes: of all subjects, those without an adapter too.
    """
    rows = [_row(outcome) for outcome in outcomes]
    names = [f.name for f in fields(Outcome)]
    schema = pa.schema([(name, _type_of(name)) for name in names])
    with publish_file(folder / "results.parquet") as aside:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), aside)
    with (
        publish_file(folder / "results.csv") as aside,
        aside.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(rows)
    write_page(folder, outcomes)


def _row(outcome: Outcome) -> dict[str, Any]:
    # Which run has trained an adapter is no property of the adapter.
    return asdict(outcome) | {"status": outcome.status if outcome.is_failed else "ready"}


def _type_of(name: str) -> pa.DataType:
    if name in _COUNTS:
        return pa.int64()
    return pa.float64() if name in _NUMBERS else pa.string()
