"""`evaluate.py --suite NAME`: a proof of one part, the same as `make prove-NAME`."""

import argparse
from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluate.config import BackboneSuiteConfig
from pipelines.cli import print_plan

SUITES = ("backbone",)


def add_suite_arguments(command: argparse.ArgumentParser) -> None:
    """Add what chooses a suite and its rows."""
    command.add_argument("--suite", choices=SUITES, help="prove this part; nothing else is scored")
    command.add_argument("--seed", type=int, help="of the suite's scenes and noise (default: 0)")
    command.add_argument("--rows", help="rows of the suite, by comma (default: all)")


def prove_suite(given: argparse.Namespace) -> int:
    """Measure the rows of a suite; the exit code is 1 when one falls short.

    Raises:
        ConfigError: an option does not go with a suite, or a row is unknown.
    """
    if given.settings or given.out != Path("runs") or given.clips or given.adapters:
        raise ConfigError(
            "--suite must come without --set, --out, --clips and --adapters, got one of them; its "
            "settings are part of the proof, its reports are in runs/evaluate"
        )
    # Proofs are in the checkout, not in the installed package.
    from benchmarks import prove

    seed, rows = given.seed or 0, given.rows or ""
    known = [row.name for row in prove.STAGES[given.suite]]
    if unknown := sorted({name for name in rows.split(",") if name} - set(known)):
        raise ConfigError(
            f"--rows must be among {', '.join(known)}, got {', '.join(unknown)}; correct the names"
        )
    arguments = [given.suite, "--seed", str(seed), "--rows", rows]
    if given.dry_run:
        plan = {"command": ["benchmarks/prove.py", *arguments], "rows": rows or known}
        print_plan(BackboneSuiteConfig(seed=seed), plan)
        return 0
    return prove.main(arguments)


def refuse_suite_options(given: argparse.Namespace) -> None:
    """Refuse a suite's options where no suite is named: they would do nothing.

    Raises:
        ConfigError: one was given.
    """
    if given.seed is not None or given.rows is not None:
        raise ConfigError(
            "--seed and --rows must come with --suite, got them without; add --suite backbone"
        )
