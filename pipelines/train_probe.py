"""Train the probe that reads generated clips: `python pipelines/train_probe.py`."""

import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dreambooth3d.evaluate.config import ProbeConfig
from dreambooth3d.evaluate.probe_training import train_probe
from pipelines.cli import guarded, parser, print_plan
from pipelines.settings import apply_settings

EXAMPLES = (
    "python pipelines/train_probe.py --set minutes=10",
    "python pipelines/train_probe.py --weights dreambooth3d/evaluate/weights/probe.safetensors",
)


def main(arguments: list[str]) -> int:
    """Train in OUT/probe, then write the weights and their accuracies; stopped runs go on."""
    command = parser(__doc__ or "", EXAMPLES, settings=ProbeConfig, has_recipe=False)
    command.add_argument("--weights", type=Path, help="default: OUT/probe/probe.safetensors")
    given = command.parse_args(arguments)
    config = apply_settings(ProbeConfig(), given.settings)
    out = given.out / "probe"
    weights = given.weights or out / "probe.safetensors"
    if given.dry_run:
        print_plan(config, {"artifact": str(weights), "work": str(out)})
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    train_probe(config, out, weights=weights)
    return 0


if __name__ == "__main__":
    guarded(main)
