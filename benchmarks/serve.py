"""The rows of the proof of serving."""

from benchmarks.rows import Row
from benchmarks.serve_cancel import steps_after_cancel
from benchmarks.serve_chaos import NUM_JOBS, num_ended_once
from benchmarks.serve_database import postgresql
from benchmarks.serve_engine import batching_gain, worst_difference
from benchmarks.serve_load import (
    failed_in_redeploy,
    official_client_steps,
    overhead_seconds,
    status_p99_seconds,
)
from benchmarks.serve_page import steps_in_browser
from benchmarks.serve_requests import num_wrongly_answered
from benchmarks.serve_schemathesis import undocumented_answers


def nothing_lost(seed: int) -> float:
    """Jobs, of 200, with one final state after 20 kills of replicas, two restarts, a lost head."""
    return float(num_ended_once("", seed))


def nothing_lost_postgresql(seed: int) -> float:
    """The same over a PostgreSQL server of its own."""
    with postgresql() as url:
        return float(num_ended_once(url, seed))


ROWS = (
    Row(name="contract", measure=official_client_steps, rule="==", bar=9),
    Row(name="schemathesis", measure=undocumented_answers, rule="==", bar=0),
    Row(name="nothing_lost", measure=nothing_lost, rule="==", bar=NUM_JOBS),
    Row(name="nothing_lost_postgresql", measure=nothing_lost_postgresql, rule="==", bar=NUM_JOBS),
    Row(name="cancel", measure=steps_after_cancel, rule="<=", bar=1),
    Row(name="batch_invariance", measure=worst_difference, rule="<=", bar=1e-4),
    Row(name="batching_pays", measure=batching_gain, rule=">=", bar=2),
    Row(name="overhead", measure=overhead_seconds, rule="<=", bar=0.05),
    Row(name="load", measure=status_p99_seconds, rule="<=", bar=0.25),
    Row(name="drain", measure=failed_in_redeploy, rule="==", bar=0),
    Row(name="bad_input", measure=num_wrongly_answered, rule="==", bar=0),
    Row(name="page", measure=steps_in_browser, rule="==", bar=7),
)
