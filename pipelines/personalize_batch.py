"""One adapter for each subject of a catalogue: CSV, Parquet, JSONL, a folder of subjects or a URL.

Every row is checked first, and all that is wrong is said at once. An interrupted batch goes on
where it ended when the same command is given again.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.personalize import job
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import invalid
from pipelines import batch_options as options
from pipelines.cli import guarded, parser, print_plan
from pipelines.recipes import find_recipe
from pipelines.samples import choose_pretrained, make_samples
from pipelines.summary import open_catalogue, print_summary


def main(arguments: list[str]) -> int:
    """Train into OUT/personalize; exit code 1 when a subject could not be trained."""
    command = parser(__doc__ or "", options.EXAMPLES, settings=PersonalizeConfig)
    given = options.remembered(options.add_options(command), arguments)
    config, out = options.config_of(given), given.out / "personalize"
    table = open_catalogue(given.catalogue, out / ".inputs", is_skipping=given.skip_invalid)
    subjects = options.subjects_of(given, config, table.subjects)
    pretrained = choose_pretrained(config, given.out, given.adapter)
    if given.dry_run:
        print_plan(config, job.plan(config, subjects, pretrained, out))
        return print_summary(table.problems, (), out)
    options.remember(given, pretrained)
    left_out = invalid(config, table.problems)
    _, outcomes = job.run(config, subjects, pretrained, out, left_out=left_out)
    code = print_summary(table.problems, outcomes, out)
    clips = replace(find_recipe(given.recipe).generate, backbone=config.backbone, seed=config.seed)
    make_samples(clips, subjects, outcomes, given.out)
    return code


if __name__ == "__main__":
    guarded(main)
