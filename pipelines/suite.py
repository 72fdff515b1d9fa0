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
    command.add_argument("--seed", type=int, default=0, help="of the suite's scenes and noise")
    command.add_argument("--rows", default="", help="rows of the suite, by comma (default: all)")


def prove_suite(given: argparse.Namespace) -> int:
    """Measure the rows of a suite; the exit code is 1 when one falls short."""
    if given.settings or given.out != Path("runs"):
        raise ConfigError(
            f"--suite must come without --set and --out, got {given.settings} and {given.out}; "
            "its settings are part of the proof, its report is in runs/evaluate"
        )
    arguments = [given.suite, "--seed", str(given.seed), "--rows", given.rows]
    if given.dry_run:
        plan = {"command": ["benchmarks/prove.py", *arguments]}
        print_plan(BackboneSuiteConfig(seed=given.seed), plan)
        return 0
    # Proofs are in the checkout, not in the installed package.
    from benchmarks import prove

    return prove.main(arguments)
