"""Draw the pictures of a backbone's model card: samples and the curve of its training."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.backbone.components import load_components
from dreambooth3d.backbone.job import CURVE_NAME
from dreambooth3d.backbone.pictures import save_curve, save_samples
from dreambooth3d.model.backbone import read_card
from pipelines.cli import guarded, parser

EXAMPLES = (
    "python pipelines/draw_backbone.py tiny --out docs/pictures",
    "python pipelines/draw_backbone.py runs/backbone/folder",
)


def main(arguments: list[str]) -> int:
    """Write OUT/<name>_samples.png and, where the folder has a curve, OUT/<name>_curve.svg."""
    command = parser(__doc__ or "", EXAMPLES)
    command.add_argument("backbone", help="`tiny` or a folder that train_backbone.py made")
    given = command.parse_args(arguments)
    card = read_card(given.backbone)
    samples = given.out / f"{card.folder.name}_samples.png"
    curve = given.out / f"{card.folder.name}_curve.svg"
    if given.dry_run:
        print(f"{samples}\n{curve}")
        return 0
    parts = load_components(card.folder)
    save_samples(samples, parts, parts.transformer, size=card.height, num_frames=card.num_frames)
    if (card.folder / CURVE_NAME).is_file():
        save_curve(curve, card.folder / CURVE_NAME)
    return 0


if __name__ == "__main__":
    guarded(main)
