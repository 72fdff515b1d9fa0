"""The whole product on a laptop: corpus, 3Dapter, subject adapters, a server that answers.

Runs the same commands a user types, one after the other, and ends with a table and a page.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.artifacts.subject import read_subjects_csv
from pipelines.cli import guarded, parser
from pipelines.client import Order, serving
from pipelines.demo_report import report_demo

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("make demo", "python pipelines/demo.py --out runs/demo")


def main(arguments: list[str]) -> int:
    """Run the journey into OUT (default: runs/demo)."""
    command = parser(__doc__ or "", EXAMPLES)
    command.set_defaults(out=Path("runs/demo"), recipe="demo")
    command.add_argument("--subjects", type=Path, default=ROOT / "subjects.csv")
    given = command.parse_args(arguments)
    out, started = given.out.resolve(), time.monotonic()
    options = ["--recipe", given.recipe, "--out", str(out)]
    stages = [
        ["build_pairs.py", *options],
        ["pretrain.py", *options],
        ["personalize_batch.py", str(given.subjects), *options],
    ]
    if given.dry_run:
        print("\n".join(" ".join(stage) for stage in stages))
        return 0
    for stage in stages:
        run_stage(stage)
    subjects = read_subjects_csv(given.subjects).subjects
    orders = [Order(subject=s.id, prompt=s.prompts[0], seed=i) for i, s in enumerate(subjects)]
    print("\n== serve run serve.app:app", flush=True)
    with serving(out) as client:
        client.make_clips(orders, out / "clips")
    run_stage(["evaluate.py", "--out", str(out)])
    report_demo(out, seconds=time.monotonic() - started)
    return 0


def run_stage(arguments: list[str]) -> None:
    """Run one command as a user would; its failure ends the demo."""
    print(f"\n== python pipelines/{' '.join(arguments)}", flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / arguments[0]), *arguments[1:]], env=environment
    )
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    guarded(main)
