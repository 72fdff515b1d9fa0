"""Train the embedded `tiny` backbone from scratch: `python pipelines/train_backbone.py`."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.backbone import job
from dreambooth3d.backbone.config import BackboneTrainConfig
from pipelines.cli import guarded, parser, print_plan
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/train_backbone.py --set minutes=27 --set vae_minutes=12",
    "python pipelines/train_backbone.py --folder runs/my-backbone --set width=192",
)


def main(arguments: list[str]) -> int:
    """Train in OUT/backbone, then write the diffusers folder; stopped runs go on."""
    command = parser(__doc__ or "", EXAMPLES)
    command.add_argument("--folder", type=Path, help="default: OUT/backbone/folder")
    given = command.parse_args(arguments)
    config = apply_settings(BackboneTrainConfig(), given.settings)
    out = given.out / "backbone"
    folder = given.folder or out / "folder"
    if given.dry_run:
        print_plan(config, {"artifact": str(folder), "work": str(out)})
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    job.run(config, out, folder=folder)
    return 0


if __name__ == "__main__":
    guarded(main)
