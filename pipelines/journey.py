"""The journey as a user types it: every stage a command of its own, then a server."""

import os
import subprocess
import sys
from pathlib import Path

from dreambooth3d.artifacts.catalogue import read_subjects_csv
from dreambooth3d.artifacts.subject import Subject
from pipelines.client import Order, serving

ROOT = Path(__file__).resolve().parents[1]


def stages(recipe: str, subjects: Path, out: Path) -> list[list[str]]:
    """List the commands before the server starts."""
    options = ["--recipe", recipe, "--out", str(out)]
    return [
        ["build_pairs.py", *options],
        ["pretrain.py", *options],
        ["personalize_batch.py", str(subjects), *options],
    ]


def run_journey(recipe: str, subjects: Path, out: Path) -> None:
    """Run the stages, ask a real server for a clip of each subject, score the clips."""
    for stage in stages(recipe, subjects, out):
        _run(stage)
    table = read_subjects_csv(subjects).subjects
    orders = [
        Order(subject=s.id, prompt=_prompt_of(s), seed=index) for index, s in enumerate(table)
    ]
    with serving(out) as client:
        client.make_clips(orders, out / "served")
    _run(["evaluate.py", "--out", str(out), "--clips", str(out / "served")])


def _prompt_of(subject: Subject) -> str:
    plain = f"a video of a {subject.trigger} {subject.class_noun}"
    return subject.prompts[0] if subject.prompts else plain


def _run(arguments: list[str]) -> None:
    """Run one command as a user would; its failure ends the journey."""
    print(f"\n== python pipelines/{' '.join(arguments)}", flush=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "pipelines" / arguments[0]), *arguments[1:]],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        sys.exit(done.returncode)
