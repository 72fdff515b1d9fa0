"""Run a stage's proof: `python benchmarks/prove.py journey --seed 3 --rows parity,zero_init`.

Prints one line a row (`name measured bar ok|short`), writes runs/proof/STAGE.json after each, exits
1 when a row falls short or could not be measured.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.backbone import ROWS as BACKBONE
from benchmarks.evaluate import ROWS as EVALUATE
from benchmarks.journey import ROWS as JOURNEY
from benchmarks.pairs import ROWS as PAIRS
from benchmarks.personalize import ROWS as PERSONALIZE
from benchmarks.pretrain import ROWS as PRETRAIN
from benchmarks.rows import Row, RowSkippedError
from benchmarks.serve import ROWS as SERVE
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.errors import Dreambooth3dError

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, tuple[Row, ...]] = {
    "backbone": BACKBONE,
    "evaluate": EVALUATE,
    "journey": JOURNEY,
    "pairs": PAIRS,
    "personalize": PERSONALIZE,
    "pretrain": PRETRAIN,
    "serve": SERVE,
}


def main(arguments: list[str]) -> int:
    """Measure the rows and judge them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=sorted(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="", help="comma-separated names (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "proof")
    given = parser.parse_args(arguments)
    rows = STAGES[given.stage]
    wanted = [name for name in given.rows.split(",") if name]
    unknown = sorted(set(wanted) - {row.name for row in rows})
    if unknown:
        parser.error(f"rows must be among {[r.name for r in rows]}, got {unknown}")
    if given.seed < 0:
        parser.error(f"seed must be at least 0, got {given.seed}")
    given.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, str | float | None]] = []
    for row in rows:
        if wanted and row.name not in wanted:
            continue
        results.append(_judge(row, given.seed))
        proof = {
            "stage": given.stage,
            "seed": given.seed,
            "asked for": wanted or "all",
            "rows": results,
        }
        with publish_file(given.out / f"{given.stage}.json") as aside:
            aside.write_text(json.dumps(proof, indent=2) + "\n", encoding="utf-8")
    return 1 if any(result["verdict"] in ("short", "failed") for result in results) else 0


def _judge(row: Row, seed: int) -> dict[str, str | float | None]:
    started = time.monotonic()
    note, measured = "", None
    try:
        measured = row.measure(seed)
        verdict = "ok" if row.holds(measured) else "short"
    except RowSkippedError as reason:
        verdict, note = "skipped", str(reason)
    except (Dreambooth3dError, ChildProcessError) as error:
        verdict, note = "failed", str(error)
    shown = "-" if measured is None else f"{measured:.6g}"
    print(f"{row.name} {shown} {row.bar_text} {verdict}{note and ': ' + note}", flush=True)
    return {
        "name": row.name,
        "measured": measured,
        "bar": row.bar_text,
        "verdict": verdict,
        "note": note,
        "seconds": round(time.monotonic() - started, 1),
    }


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped; rows that were measured are in runs/proof", file=sys.stderr)
        sys.exit(130)
