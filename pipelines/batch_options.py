"""Options of personalize_batch, and the command that `--resume` gives again."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dreambooth3d.artifacts.jsonfile import json_bytes, read_json
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.artifacts.store import hide_keys
from dreambooth3d.artifacts.subject import Subject
from dreambooth3d.errors import InputError
from dreambooth3d.model.backbone import load_tokenizer, resolve_backbone
from dreambooth3d.model.prompts import rare_words
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.triggers import num_alike, with_rare_triggers
from pipelines.recipes import find_recipe
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/personalize_batch.py subjects.csv",
    "python pipelines/personalize_batch.py subjects.csv --set steps=300 --set method=3dreambooth",
    "python pipelines/personalize_batch.py products.parquet --skip-invalid --max-parallel 2",
    "python pipelines/personalize_batch.py folder/of/subjects --adapter tiny --dry-run",
    "python pipelines/personalize_batch.py s3://bucket/products.jsonl --set gpus_per_subject=0.5",
    "python pipelines/personalize_batch.py --resume",
)
_COMMAND_NAME = ".command.json"


def add_options(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what only this command has."""
    command.add_argument(
        "catalogue",
        nargs="?",
        help="CSV, Parquet or JSONL with subject, class_noun, images and optionally references, "
        "trigger, prompts, steps, seed, priority; or a folder of subjects; or a URL of either",
    )
    command.add_argument("--adapter", help="3Dapter: a folder or `tiny` (default: newest in OUT)")
    command.add_argument(
        "--skip-invalid",
        action="store_true",
        help="train the good rows although others are not (without it one bad row stops all)",
    )
    command.add_argument(
        "--rare-triggers",
        action="store_true",
        help="a rare word of its own for every subject without a trigger (default: sks for all)",
    )
    command.add_argument(
        "--max-parallel", type=int, metavar="N", help="subjects at a time, as --set workers=N"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the last batch in OUT; finished subjects are never trained again",
    )
    return command


def remembered(command: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; `--resume` without a catalogue is the last command of OUT again.

    Raises:
        InputError: there is no catalogue, and no last command.
    """
    given = command.parse_args(arguments)
    given.typed = arguments
    path = given.out / "personalize" / _COMMAND_NAME
    if given.catalogue is not None:
        return given
    if not given.resume:
        raise InputError(
            "a catalogue must be named, got none; give a table or a folder, or --resume"
        )
    if not path.is_file():
        raise InputError(
            f"--resume must follow a batch in the same OUT, got none in {given.out}; "
            "name the catalogue"
        )
    found = shlex.split(str(read_json(path, what="last command").get("command", "")))
    print(f"personalize: goes on with {shlex.join(found)}", file=sys.stderr)
    again = command.parse_args([*found, *arguments])
    again.out, again.typed = given.out, found
    return again


def remember(given: argparse.Namespace, pretrained: Path | None) -> None:
    """Keep a command that is good for `--resume`, with the very 3Dapter it begins with."""
    path = given.out / "personalize" / _COMMAND_NAME
    # Not the batch before, if this one cannot be kept.
    path.unlink(missing_ok=True)
    if hide_keys(given.catalogue, given.catalogue) != given.catalogue:
        print(
            "personalize: the catalogue's URL holds keys, which are kept nowhere: to go on, type "
            "the command again instead of --resume",
            file=sys.stderr,
        )
        return
    chosen = [] if pretrained is None else ["--adapter", str(pretrained.resolve())]
    arguments = [_absolute(part, given.catalogue) for part in given.typed]
    arguments += [] if arguments[-2:] == chosen else chosen
    with publish_file(path) as aside:
        aside.write_bytes(json_bytes({"command": shlex.join(arguments)}, what="last command"))


def config_of(given: argparse.Namespace) -> PersonalizeConfig:
    """Settings of the recipe, changed as the arguments say."""
    config = apply_settings(find_recipe(given.recipe).personalize, given.settings)
    return config if given.max_parallel is None else replace(config, workers=given.max_parallel)


def subjects_of(
    given: argparse.Namespace, config: PersonalizeConfig, subjects: Sequence[Subject]
) -> tuple[Subject, ...]:
    """Give subjects triggers of their own where that is asked for; say which cannot be told apart.

    Raises:
        ConfigError: the backbone's tokenizer has too few words for it.
    """
    if given.rare_triggers:
        folder = resolve_backbone(config.backbone, has_weights=False)
        words = rare_words(load_tokenizer(folder))
        return with_rare_triggers(subjects, words)
    if alike := num_alike(subjects):
        print(
            f"personalize: {alike} subjects share trigger and class noun with another; to name "
            "them apart, give --rare-triggers or write the column `trigger`",
            file=sys.stderr,
        )
    return tuple(subjects)


def _absolute(argument: str, catalogue: str) -> str:
    """Name a local catalogue so that it is found from every working directory."""
    is_path = argument == catalogue and "://" not in argument
    return str(Path(argument).resolve()) if is_path else argument
