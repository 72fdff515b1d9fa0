"""One adapter for each subject of a table: `python pipelines/personalize_batch.py subjects.csv`."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.artifacts.subject import read_subjects_csv
from dreambooth3d.personalize import job
from pipelines.cli import guarded, parser, print_plan
from pipelines.recipes import find_recipe
from pipelines.samples import choose_pretrained, make_samples
from pipelines.settings import apply_settings
from pipelines.summary import check_subjects, print_summary

EXAMPLES = (
    "python pipelines/personalize_batch.py subjects.csv",
    "python pipelines/personalize_batch.py subjects.csv --set steps=300 --set method=3dreambooth",
    "python pipelines/personalize_batch.py subjects.csv --adapter tiny --dry-run",
)


def main(arguments: list[str]) -> int:
    """Train into OUT/personalize; exit code 1 when a subject could not be trained."""
    command = parser(__doc__ or "", EXAMPLES)
    command.add_argument("subjects", type=Path, help="CSV: subject, class_noun, images, ...")
    command.add_argument("--adapter", help="3Dapter: a folder or `tiny` (default: newest in OUT)")
    given = command.parse_args(arguments)
    config = apply_settings(find_recipe(given.recipe).personalize, given.settings)
    table = check_subjects(read_subjects_csv(given.subjects))
    pretrained = choose_pretrained(config, given.out, given.adapter)
    out = given.out / "personalize"
    if given.dry_run:
        print_plan(config, job.plan(config, table.subjects, pretrained, out))
        return print_summary(table.problems, (), out)
    _, outcomes = job.run(config, table.subjects, pretrained, out)
    code = print_summary(table.problems, outcomes, out)
    clips = replace(find_recipe(given.recipe).generate, backbone=config.backbone, seed=config.seed)
    make_samples(clips, table.subjects, outcomes, given.out)
    return code


if __name__ == "__main__":
    guarded(main)
