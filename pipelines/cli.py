"""What the commands share: arguments, dry run, and one sentence instead of a traceback."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreambooth3d.errors import Dreambooth3dError
from pipelines.recipes import RECIPES
from pipelines.settings import settings_help


def parser(
    summary: str,
    examples: Sequence[str],
    *,
    settings: type[Any] | None = None,
    has_recipe: bool = True,
    has_out: bool = True,
    more: Mapping[str, type[Any]] | None = None,
) -> argparse.ArgumentParser:
    """Build a parser with the arguments every stage has, and examples and settings in its help.

    Args:
        summary: what the command does.
        examples: whole commands.
        settings: config of `--set`; a command that only puts others together has none.
        has_recipe: whether the settings are part of a journey's recipe.
        has_out: whether it writes into the folder of all artifacts.
        more: configs of `--set` beside other options, by these.
    """
    shown = ["examples:", *(f"  {example}" for example in examples)]
    if settings and has_recipe:
        shown += ["", "recipes:", *(f"  {name:8} {r.summary}" for name, r in RECIPES.items())]
    if settings:
        beneath = ", where the recipe says nothing else" if has_recipe else ""
        shown += ["", f"settings (--set name=value{beneath}):", settings_help(settings)]
    for option, config in (more or {}).items():
        shown += ["", f"settings with {option}:", settings_help(config)]
    found = argparse.ArgumentParser(
        description=summary,
        epilog="\n".join(shown),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if settings and has_recipe:
        found.add_argument("--recipe", default="tiny", help="settings by name (default: tiny)")
    if settings:
        found.add_argument(
            "--set",
            dest="settings",
            metavar="name=value",
            action="append",
            default=[],
            help="change one setting; may be given again",
        )
    if has_out:
        found.add_argument(
            "--out",
            type=Path,
            default=Path("runs"),
            help="folder of all artifacts; each stage has its own in it (default: %(default)s)",
        )
    found.add_argument(
        "--dry-run", action="store_true", help="print the resolved plan and do nothing"
    )
    return found


def print_plan(config: object, plan: Mapping[str, Any]) -> None:
    """Print settings and plan as JSON, for people and for tools."""
    print(json.dumps({"settings": vars(config), "plan": plan}, indent=2, default=str))


def guarded(main: Callable[[list[str]], int]) -> None:
    """Run a command; errors that are meant for the reader end in one sentence and exit code 1."""
    try:
        code = main(sys.argv[1:])
    except Dreambooth3dError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except OSError as error:
        print(f"error: {error}; finished work is kept, run it again", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped; finished work is kept, the same command goes on from it", file=sys.stderr)
        code = 130
    sys.exit(code)
