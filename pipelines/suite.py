"""`evaluate.py --suite NAME`: a proof of one part, or a benchmark on clips of any origin."""

import argparse
from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluate import job
from dreambooth3d.evaluate.config import BackboneSuiteConfig, BenchmarkConfig
from dreambooth3d.evaluate.custombench import read_benchmark
from pipelines.cli import print_plan
from pipelines.settings import apply_settings

_BENCHMARK = "custombench"
SUITES = ("backbone", _BENCHMARK)


def add_suite_arguments(command: argparse.ArgumentParser) -> None:
    """Add what chooses a suite and its rows."""
    command.add_argument(
        "--suite",
        choices=SUITES,
        help="backbone: prove this part; custombench: score --clips against --subjects",
    )
    command.add_argument("--subjects", type=Path, help="of custombench: folders <id>/references/")
    command.add_argument("--seed", type=int, help="of the suite's scenes and noise (default: 0)")
    command.add_argument("--rows", help="rows of the suite, by comma (default: all)")


def run_suite(given: argparse.Namespace) -> int:
    """Run the suite that is named.

    Raises:
        ConfigError: an option does not go with it.
        InputError: its folders cannot be used.
    """
    return score_clips(given) if given.suite == _BENCHMARK else prove_suite(given)


def score_clips(given: argparse.Namespace) -> int:
    """Score a folder of clips against a folder of subjects.

    Raises:
        ConfigError: a folder is not named, or an option does not go with this suite.
        InputError: a folder cannot be used.
    """
    if given.subjects is None or given.clips is None:
        raise ConfigError(
            "--suite custombench must come with --subjects DIR and --clips DIR, got one or none; "
            "add the folder of the subjects' references and that of the clips"
        )
    if given.adapters or given.rows is not None:
        raise ConfigError(
            "--suite custombench must come without --adapters and --rows, got one of them; "
            "leave it out"
        )
    seed = [] if given.seed is None else [f"seed={given.seed}"]
    config = apply_settings(BenchmarkConfig(), [*seed, *given.settings])
    out = given.out / "custombench"
    if given.dry_run:
        found = read_benchmark(given.subjects, given.clips)
        plan = {
            "subjects": list(found.subjects),
            "clips": {str(clip.path): clip.subject for clip in found.clips},
            "not scored": [str(path) for path in found.without_subject],
            "report": str(out / "report.html"),
        }
        print_plan(config, plan)
        return 0
    job.run_benchmark(config, given.subjects, given.clips, out)
    return 0


def prove_suite(given: argparse.Namespace) -> int:
    """Measure the rows of a suite; the exit code is 1 when one falls short.

    Raises:
        ConfigError: an option does not go with a suite, or a row is unknown.
    """
    options = (given.settings, given.out != Path("runs"), given.clips, given.adapters)
    if any(options) or given.subjects:
        raise ConfigError(
            "--suite must come without --set, --out, --clips, --adapters and --subjects, got one "
            "of them; its settings are part of the proof, its reports are in runs/evaluate"
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
    if given.subjects is not None:
        raise ConfigError(
            "--subjects must come with --suite custombench, got it without; add the suite"
        )
