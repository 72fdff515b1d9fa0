"""Build a corpus of reference/target pairs: `python pipelines/build_pairs.py`."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.pairs import job
from dreambooth3d.pairs.config import PairsConfig
from pipelines.cli import guarded, parser, print_plan
from pipelines.pair_options import add_pair_options, print_problems, without_keys
from pipelines.recipes import find_recipe
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/build_pairs.py",
    "python pipelines/build_pairs.py --set samples=5000 --set seed=1",
    "python pipelines/build_pairs.py --source captures:photos/ --source scenes --set size=128",
    "python pipelines/build_pairs.py --source subjects200k:s3://bucket/data --to s3://bucket/pairs",
    "python pipelines/build_pairs.py --source meshes:models/ --set source_settings=meshes.up=z",
    "python pipelines/build_pairs.py --set encode=tiny --dry-run",
    "python pipelines/build_pairs.py --validate runs/pairs/KEY",
)


def main(arguments: list[str]) -> int:
    """Build the corpus into OUT/pairs, or check one."""
    given = add_pair_options(parser(__doc__ or "", EXAMPLES, settings=PairsConfig)).parse_args(
        arguments
    )
    if given.validate:
        return print_problems(given.validate)
    config = apply_settings(find_recipe(given.recipe).pairs, given.settings)
    if given.sources:
        config = replace(config, sources=tuple(given.sources))
    out = given.to or given.out / "pairs"
    if given.dry_run:
        print_plan(without_keys(config), job.plan(config, out))
        return 0
    job.run(config, out)
    return 0


if __name__ == "__main__":
    guarded(main)
