"""What personalize_batch says of a table before it starts and after it ends."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dreambooth3d.artifacts.subject import Problem, SubjectTable, check_images
from dreambooth3d.errors import InputError
from dreambooth3d.personalize.outcome import Outcome


def check_subjects(table: SubjectTable) -> SubjectTable:
    """Decode every picture once; a subject with a bad one joins the problems, the others go on.

    Raises:
        InputError: no row can be used; names every problem.
    """
    good, problems = [], list(table.problems)
    for subject in table.subjects:
        row, line = table.places[subject.id]
        found = [replace(problem, row=row, line=line) for problem in check_images(subject)]
        problems += found
        if not found:
            good.append(subject)
    for problem in problems:
        print(f"problem: {line_of(problem)}", file=sys.stderr)
    if not good:
        raise InputError(
            f"a table must have at least one usable subject, got {len(problems)} problems and "
            "none; correct the rows named above"
        )
    return replace(table, subjects=tuple(good), problems=tuple(problems))


def line_of(problem: Problem) -> str:
    """One printable line that names row and field."""
    place = [] if problem.row is None else [f"row {problem.row}"]
    return ", ".join([*place, f"field {problem.field}"]) + f": {problem.sentence}"


def print_summary(problems: Sequence[Problem], outcomes: Sequence[Outcome], out: Path) -> int:
    """Print the result table, then what is wrong; the exit code is 1 when anything is."""
    for outcome in outcomes:
        if not outcome.is_failed:
            first, last = outcome.first_loss or 0.0, outcome.last_loss or 0.0
            print(
                f"{outcome.subject:24} {outcome.status:8} {outcome.steps:5} steps  "
                f"loss {first:.4f} -> {last:.4f}  {outcome.sha256[:12]}  "
                f"{out}/subjects/{outcome.key}"
            )
    failed = [outcome for outcome in outcomes if outcome.is_failed]
    for outcome in failed:
        print(f"failed: subject {outcome.subject}: {outcome.error}", file=sys.stderr)
    for problem in problems:
        print(f"problem: {line_of(problem)}", file=sys.stderr)
    num_bad = len(failed) + len(problems)
    if num_bad:
        print(f"{len(outcomes) - len(failed)} ready, {num_bad} problems", file=sys.stderr)
    return 1 if num_bad else 0
