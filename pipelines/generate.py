"""Make a clip without a server: `python pipelines/generate.py --adapter DIR --prompt "..."`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.generate import job
from dreambooth3d.generate.config import GenerateConfig
from pipelines.cli import guarded, parser, print_plan
from pipelines.recipes import find_recipe
from pipelines.samples import adapter_of
from pipelines.settings import apply_settings

EXAMPLES = (
    'python pipelines/generate.py --subject orange-train --prompt "a sks train at night"',
    'python pipelines/generate.py --adapter FOLDER --prompt "a video of a [sks train] at night"',
    'python pipelines/generate.py --prompt "a video of a red car in the snow, turning to the left"',
)


def main(arguments: list[str]) -> int:
    """Make one clip for each --prompt into OUT/clips."""
    command = parser(__doc__ or "", EXAMPLES, settings=GenerateConfig)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--adapter", type=Path, help="adapter folder (default: none)")
    which.add_argument("--subject", help="a subject that was personalized in OUT")
    command.add_argument("--prompt", action="append", required=True, help="may be given again")
    given = command.parse_args(arguments)
    config = apply_settings(find_recipe(given.recipe).generate, given.settings)
    adapter = adapter_of(given.subject, given.out) if given.subject else given.adapter
    orders = [(adapter, prompt) for prompt in given.prompt]
    if given.dry_run:
        print_plan(config, job.plan(config, orders, given.out / "clips"))
        return 0
    job.run(config, orders, given.out / "clips")
    return 0


if __name__ == "__main__":
    guarded(main)
