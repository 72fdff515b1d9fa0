"""Pretrain the 3Dapter on the newest corpus: `ray job submit -- python pipelines/pretrain.py`."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.artifacts.key import latest
from dreambooth3d.pretrain import job, planning
from dreambooth3d.pretrain.config import PretrainConfig
from pipelines.cli import guarded, parser, print_plan
from pipelines.recipes import find_recipe
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/pretrain.py",
    "RAY_AUTH_MODE=token ray job submit -- python pipelines/pretrain.py --set workers=2",
    "python pipelines/pretrain.py --set reference_attention=isolated --dry-run",
)


def main(arguments: list[str]) -> int:
    """Train into OUT/pretrain."""
    command = parser(__doc__ or "", EXAMPLES, settings=PretrainConfig)
    command.add_argument("--pairs", help="corpus, a folder or URL (default: the newest in OUT)")
    given = command.parse_args(arguments)
    config = apply_settings(find_recipe(given.recipe).pretrain, given.settings)
    corpus = given.pairs or latest(
        given.out / "pairs", what="pairs", made_by="python pipelines/build_pairs.py"
    )
    if given.dry_run:
        plan = planning.plan(config, corpus, given.out / "pretrain")
        # As people call it: a URL may hold keys.
        print_plan(replace(config, checkpoints=plan["checkpoints"]), plan)
        return 0
    job.run(config, corpus, given.out / "pretrain")
    return 0


if __name__ == "__main__":
    guarded(main)
