"""Write an adapter as a published pair, or read one as an adapter that every command takes.

ComfyUI reads the files of a pair; diffusers reads those of an adapter folder as they are.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.personalize.exchange import PairWords, export_pair, import_pair
from pipelines.cli import guarded, parser

EXAMPLES = (
    "python pipelines/exchange.py export runs/personalize/KEY/adapters/orange-train pair",
    "python pipelines/exchange.py import pair adapters/mug --trigger sks --noun mug --views photos",
    'python pipelines/generate.py --adapter adapters/mug --prompt "a [sks mug] at night"',
)


def main(arguments: list[str]) -> int:
    """Convert SOURCE into the new folder TARGET."""
    command = parser(__doc__ or "", EXAMPLES, has_out=False)
    command.add_argument("direction", choices=("export", "import"))
    command.add_argument("source", type=Path, help="an adapter folder, or the one that holds lora/")
    command.add_argument("target", type=Path, help="a folder that is not there yet")
    command.add_argument("--trigger", default="sks", help="of a pair's prompts (default: sks)")
    command.add_argument("--noun", default="", help="what the object is in a pair's prompts")
    command.add_argument("--views", type=Path, help="folder of a pair's references, on white")
    command.add_argument("--backbone", default="tiny", help="a pair's backbone (default: tiny)")
    given = command.parse_args(arguments)
    if given.direction == "export":
        found = export_pair(given.source, given.target, is_dry=given.dry_run)
    else:
        words = PairWords(subject=given.target.name, trigger=given.trigger, class_noun=given.noun)
        found = import_pair(
            given.source, given.target, words, views=given.views, backbone=given.backbone,
            is_dry=given.dry_run,
        )  # fmt: skip
    print("\n".join(map(str, found)))
    return 0


if __name__ == "__main__":
    guarded(main)
