"""What only `build_pairs.py` has: sources, a place for corpora, and the check of one."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace

from dreambooth3d.artifacts.pairs import read_manifest, shards_of
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.store import hide_keys
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.sources.registry import KINDS
from dreambooth3d.pairs.validate import problems_in


def add_pair_options(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the arguments to those every stage has."""
    command.add_argument(
        "--source",
        dest="sources",
        metavar="kind[:URL]",
        action="append",
        default=[],
        help=f"where objects come from ({', '.join(KINDS)}); may be given again",
    )
    command.add_argument(
        "--to", metavar="URL", help="folder or URL of corpora (default: OUT/pairs)"
    )
    command.add_argument(
        "--validate", metavar="DIR", help="check every byte of a corpus, a folder or a URL"
    )
    return command


def print_problems(corpus: str) -> int:
    """Print what is wrong with a corpus; the exit code is 1 if anything is."""
    place, count = Place.parse(corpus), 0
    for sentence in problems_in(place):
        print(f"error: {sentence}", file=sys.stderr)
        count += 1
    if not count:
        shards = shards_of(read_manifest(place), place)
        num_samples = sum(shard.num_samples for shard in shards)
        print(f"pairs: {num_samples} samples in {len(shards)} shards, every byte as it was written")
    return 1 if count else 0


def without_keys(config: PairsConfig) -> PairsConfig:
    """Return the settings as they may be printed: a URL can hold keys."""

    def hidden(texts: Iterable[str], mark: str) -> tuple[str, ...]:
        return tuple(hide_keys(text, text.partition(mark)[2]) for text in texts)

    return replace(
        config,
        sources=hidden(config.sources, ":"),
        source_settings=hidden(config.source_settings, "="),
    )
