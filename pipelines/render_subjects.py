"""Photograph procedural subjects into folders and a subjects.csv, as a user would bring them."""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.artifacts.key import publish
from dreambooth3d.pairs.subjects import photograph
from dreambooth3d.scenes import make_subject
from pipelines.cli import guarded, parser

EXAMPLES = (
    "python pipelines/render_subjects.py 1000019 1000020 1000035 --out docs/examples",
    "python pipelines/render_subjects.py 1000050 --out /tmp/objects",
)


def main(arguments: list[str]) -> int:
    """Write OUT/<colour-class-seed>/ for each seed and OUT/subjects.csv."""
    command = parser(__doc__ or "", EXAMPLES)
    command.add_argument("seeds", type=int, nargs="+", help="subject seeds; 1000000 on are unseen")
    given = command.parse_args(arguments)
    named = {f"{s.color}-{s.class_noun}-{s.seed}": s for s in map(make_subject, given.seeds)}
    if given.dry_run:
        print("\n".join(str(given.out / name) for name in named))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "subjects.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("subject", "class_noun", "images"))
        for name, subject in named.items():
            if not (given.out / name).is_dir():
                with publish(given.out / name) as aside:
                    photograph(aside, subject.seed, id=name)
            writer.writerow((name, subject.class_noun, f"{name}/images"))
    return 0


if __name__ == "__main__":
    guarded(main)
