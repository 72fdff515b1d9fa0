"""Which scene seeds are whose: no two trainings share one, none reaches the held-out ones."""

from typing import Literal, TypeAlias

Purpose: TypeAlias = Literal[
    "backbone clips", "backbone images", "backbone references", "probe clips", "probe images"
]

FIRST_HELD_OUT_SEED = 1_000_000
"""Subjects from this seed on are kept for evaluation: no corpus, adapter or backbone sees them."""

WORLD_REVISION = 3
"""Raised when the same seed shows something else: what was rendered before is rendered again."""

SEED_RANGES: dict[Purpose, range] = {
    "backbone clips": range(0, 300_000),
    "backbone images": range(300_000, 700_000),
    "backbone references": range(700_000, 800_000),
    "probe clips": range(800_000, 850_000),
    "probe images": range(850_000, FIRST_HELD_OUT_SEED),
}
