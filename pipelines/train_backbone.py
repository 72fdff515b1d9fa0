"""Train the embedded `tiny` backbone from scratch: `python pipelines/train_backbone.py`."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.backbone import job
from dreambooth3d.backbone.config import BackboneTrainConfig
from dreambooth3d.model.backbone import read_card
from pipelines.cli import guarded, parser, print_plan
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/train_backbone.py --set minutes=27 --set vae_minutes=12",
    "python pipelines/train_backbone.py --folder runs/my-backbone --set width=192",
    "python pipelines/train_backbone.py --start tiny --set steps=2000",
    "python pipelines/train_backbone.py --vae tiny --set minutes=10",
)


def main(arguments: list[str]) -> int:
    """Train in OUT/backbone, then write the diffusers folder; stopped runs go on."""
    command = parser(__doc__ or "", EXAMPLES, settings=BackboneTrainConfig, has_recipe=False)
    command.add_argument("--folder", type=Path, help="default: OUT/backbone/folder")
    source = command.add_mutually_exclusive_group()
    source.add_argument("--start", help="a finished backbone to train on from: a folder or `tiny`")
    source.add_argument(
        "--vae", help="keep this backbone's VAE, train the transformer from scratch"
    )
    given = command.parse_args(arguments)
    config = apply_settings(BackboneTrainConfig(), given.settings)
    out = given.out / "backbone"
    folder = given.folder or out / "folder"
    kept = given.start or given.vae
    start = read_card(kept).folder if kept else None
    if given.dry_run:
        print_plan(config, {"artifact": str(folder), "work": str(out), "start": str(start)})
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    job.run(config, out, folder=folder, start=start, is_fresh=bool(given.vae))
    return 0


if __name__ == "__main__":
    guarded(main)
