"""Build a corpus of reference/target pairs: `python pipelines/build_pairs.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.pairs import job
from pipelines.cli import guarded, parser, print_plan
from pipelines.recipes import find_recipe
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/build_pairs.py",
    "python pipelines/build_pairs.py --set samples=5000 --set seed=1",
    "python pipelines/build_pairs.py --dry-run",
)


def main(arguments: list[str]) -> int:
    """Build the corpus into OUT/pairs."""
    given = parser(__doc__ or "", EXAMPLES).parse_args(arguments)
    config = apply_settings(find_recipe(given.recipe).pairs, given.settings)
    out = given.out / "pairs"
    if given.dry_run:
        print_plan(config, job.plan(config, out))
        return 0
    job.run(config, out)
    return 0


if __name__ == "__main__":
    guarded(main)
