"""What personalize_batch says of a table before it starts and after it ends."""

import sys
from collections.abc import Sequence
from pathlib import Path

from dreambooth3d.artifacts.catalogue import check_catalogue, read_catalogue
from dreambooth3d.artifacts.catalogue_mirror import bring_here
from dreambooth3d.artifacts.subject import Problem
from dreambooth3d.artifacts.subject_rows import SubjectTable
from dreambooth3d.errors import InputError
from dreambooth3d.personalize.outcome import Outcome, describe_training


def open_catalogue(source: str, cache: Path, *, is_skipping: bool) -> SubjectTable:
    """Read a catalogue, every picture too, before anything is trained; say all that is wrong.

    Args:
        source: a path or a URL.
        cache: where what is behind a URL is copied to.
        is_skipping: go on with the good rows.

    Raises:
        InputError: a row cannot be used, and none may be skipped; or none can be used at all.
    """
    table = check_catalogue(read_catalogue(bring_here(source, cache)))
    for problem in table.problems:
        print(f"problem: {line_of(problem)}", file=sys.stderr)
    bad = {problem.row for problem in table.problems}
    if not table.subjects:
        raise InputError(
            f"a catalogue must have at least one usable row, got {len(bad)} that cannot be used; "
            "correct the rows named above"
        )
    if table.problems and not is_skipping:
        raise InputError(
            f"every row of a catalogue must be usable, got {len(bad)} that are not and "
            f"{len(table.subjects)} that are; correct the rows named above, or train without them "
            "with --skip-invalid"
        )
    return table


def line_of(problem: Problem) -> str:
    """One printable line that names row, line of the file, and field."""
    place = [] if problem.row is None else [f"row {problem.row}"]
    place += [] if problem.line is None else [f"line {problem.line}"]
    return ", ".join([*place, f"field {problem.field}"]) + f": {problem.sentence}"


def print_summary(problems: Sequence[Problem], outcomes: Sequence[Outcome], out: Path) -> int:
    """Print the result table, then what is wrong; the exit code is 1 when anything is."""
    for outcome in outcomes:
        if not outcome.is_failed:
            print(
                f"{outcome.subject:24} {outcome.status:8} {describe_training(outcome)}  "
                f"{outcome.sha256[:12]}  "
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
