"""Score clips against their subjects: `python pipelines/evaluate.py --clips runs/clips`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.evaluate import job
from dreambooth3d.evaluate.config import BenchmarkConfig, EvaluateConfig
from pipelines.cli import guarded, parser, print_plan
from pipelines.samples import adapters_by_subject, adapters_in
from pipelines.settings import apply_settings
from pipelines.suite import add_suite_arguments, refuse_suite_options, run_suite

EXAMPLES = (
    "python pipelines/evaluate.py",
    "python pipelines/evaluate.py --clips my/clips --adapters my/adapters",
    "python pipelines/evaluate.py --suite custombench --subjects bench/subjects --clips my/clips",
    "python pipelines/evaluate.py --suite custombench --subjects bench --clips made --generate",
    "python pipelines/evaluate.py --suite backbone --seed 3 --rows background,class",
)


def main(arguments: list[str]) -> int:
    """Write OUT/evaluate/index.html and report.json."""
    more = {"--suite custombench": BenchmarkConfig}
    command = parser(__doc__ or "", EXAMPLES, settings=EvaluateConfig, has_recipe=False, more=more)
    command.add_argument("--clips", type=Path, help="folder of clips (default: OUT/clips)")
    command.add_argument("--adapters", type=Path, help="subject adapters (default: all in OUT)")
    add_suite_arguments(command)
    given = command.parse_args(arguments)
    if given.suite:
        return run_suite(given)
    refuse_suite_options(given)
    config = apply_settings(EvaluateConfig(), given.settings)
    clips = given.clips or given.out / "clips"
    adapters = adapters_in(given.adapters) if given.adapters else adapters_by_subject(given.out)
    if given.dry_run:
        found = [str(clip) for clip, _ in job.find_clips(clips, adapters)]
        print_plan(config, {"clips": found, "artifact": str(given.out / "evaluate")})
        return 0
    job.run(config, clips, adapters, given.out / "evaluate")
    return 0


if __name__ == "__main__":
    guarded(main)
