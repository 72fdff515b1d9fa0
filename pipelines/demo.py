"""The whole product on a laptop: corpus, 3Dapter, subject adapters, a server that answers."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cli import guarded, parser
from pipelines.demo_report import report_demo
from pipelines.journey import ROOT, run_journey, stages

EXAMPLES = ("make demo", "python pipelines/demo.py --out runs/demo --subjects my/subjects.csv")


def main(arguments: list[str]) -> int:
    """Run the journey into OUT (default: runs/demo); ends with a table and OUT/index.html."""
    command = parser(__doc__ or "", EXAMPLES)
    command.set_defaults(out=Path("runs/demo"))
    command.add_argument("--recipe", default="demo", help="settings by name (default: demo)")
    command.add_argument(
        "--subjects", type=Path, default=ROOT / "subjects.csv", help="table of subjects"
    )
    given = command.parse_args(arguments)
    out, started = given.out.resolve(), time.monotonic()
    if given.dry_run:
        print("\n".join(" ".join(s) for s in stages(given.recipe, given.subjects, out)))
        return 0
    run_journey(given.recipe, given.subjects, out)
    report_demo(out, seconds=time.monotonic() - started)
    return 0


if __name__ == "__main__":
    guarded(main)
