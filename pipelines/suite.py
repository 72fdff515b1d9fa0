"""`evaluate.py --suite NAME`: a proof of one part, or a benchmark on clips of any origin."""

import argparse
from pathlib import Path

from dreambooth3d.errors import ConfigError
from dreambooth3d.evaluate import job
from dreambooth3d.evaluate.config import BackboneSuiteConfig, BenchmarkConfig
from dreambooth3d.evaluate.custombench import read_benchmark, read_benchmark_subjects
from dreambooth3d.generate import job as generate
from pipelines.cli import print_plan
from pipelines.recipes import RECIPES, find_recipe
from pipelines.samples import adapters_by_subject, adapters_in, benchmark_orders
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
    command.add_argument(
        "--generate",
        metavar="RECIPE",
        nargs="?",
        const="tiny",
        choices=tuple(RECIPES),
        help="of custombench: first make the clips of the subjects' prompt.txt into --clips with "
        "--adapters, by Ray Data actors and this recipe's settings (default: tiny)",
    )
    command.add_argument(
        "--set-clips",
        dest="clip_settings",
        metavar="name=value",
        action="append",
        default=[],
        help="change one setting of --generate; may be given again",
    )
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
    """Score a folder of clips against a folder of subjects, after making them when asked.

    Raises:
        ConfigError: a folder is not named, or an option does not go with this suite.
        InputError: a folder cannot be used.
    """
    if given.subjects is None or given.clips is None:
        raise ConfigError(
            "--suite custombench must come with --subjects DIR and --clips DIR, got one or none; "
            "add the folder of the subjects' references and that of the clips"
        )
    if given.rows is not None or (given.adapters and not given.generate):
        raise ConfigError(
            "--suite custombench must come without --rows, and with --adapters only beside "
            "--generate, got one of them; leave it out"
        )
    seed = [] if given.seed is None else [f"seed={given.seed}"]
    config = apply_settings(BenchmarkConfig(), [*seed, *given.settings])
    out = given.out / "custombench"
    if given.generate and _make_clips(given):
        return 0
    if given.dry_run:
        found = read_benchmark(given.subjects, given.clips)
        plan = {
            "subjects": list(found.subjects),
            "clips": {str(clip.path): clip.subject for clip in found.clips},
            "prompts": {str(clip.path): clip.prompt for clip in found.clips},
            "not scored": [str(path) for path in found.without_subject],
            "cannot be used": dict(found.refused),
            "report": str(out / "report.html"),
        }
        print_plan(config, plan)
        return 0
    _, unreadable = job.run_benchmark(config, given.subjects, given.clips, out)
    return 1 if unreadable else 0


def _make_clips(given: argparse.Namespace) -> bool:
    """Make the clips that are to be scored; True when this was a dry run, which makes none."""
    adapters = adapters_in(given.adapters) if given.adapters else adapters_by_subject(given.out)
    orders = benchmark_orders(read_benchmark_subjects(given.subjects).usable, adapters)
    config = apply_settings(find_recipe(given.generate).generate, given.clip_settings)
    if given.dry_run:
        print_plan(config, generate.plan(config, orders, given.clips))
        return True
    generate.run_in_actors(config, orders, given.clips)
    return False


def prove_suite(given: argparse.Namespace) -> int:
    """Measure the rows of a suite; the exit code is 1 when one falls short.

    Raises:
        ConfigError: an option does not go with a suite, or a row is unknown.
    """
    options = (given.settings, given.out != Path("runs"), given.clips, given.adapters)
    if any(options) or given.subjects or _asks_for_clips(given):
        raise ConfigError(
            f"--suite {given.suite} must come with --seed, --rows and --dry-run alone, got "
            "another option; its settings are part of the proof, its reports are in runs/evaluate"
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
    if given.subjects is not None or _asks_for_clips(given):
        raise ConfigError(
            "--subjects, --generate and --set-clips must come with --suite custombench, got one "
            "without; add the suite"
        )


def _asks_for_clips(given: argparse.Namespace) -> bool:
    return given.generate is not None or bool(given.clip_settings)
