"""What the commands share: arguments, dry run, and one sentence instead of a traceback."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreambooth3d.errors import Dreambooth3dError
from pipelines.recipes import RECIPES


def parser(
    summary: str, examples: Sequence[str], *, has_settings: bool = True, has_recipe: bool = True
) -> argparse.ArgumentParser:
    """Build a parser with the arguments every stage has, and examples in its help.

    A command that only puts others together has no settings of its own; one that is no part of the
    journey has no recipe.
    """
    recipes = "\n".join(f"  {name:8} {recipe.summary}" for name, recipe in RECIPES.items())
    shown = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    found = argparse.ArgumentParser(
        description=summary,
        epilog=f"{shown}\n\nrecipes:\n{recipes}" if has_settings and has_recipe else shown,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if has_settings and has_recipe:
        found.add_argument("--recipe", default="tiny", help="settings by name (default: tiny)")
    if has_settings:
        found.add_argument(
            "--set",
            dest="settings",
            metavar="name=value",
            action="append",
            default=[],
            help="change one setting; may be given again",
        )
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
