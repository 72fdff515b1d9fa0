"""Throughput of the pairs stage as ratios in one run: `make bench-pairs`.

The same operators on the same scenes, five ways: this project on one and on two workers, a plain
loop with `webdataset.ShardWriter` in one process, two such loops side by side, which is what the
machine has to give when both cores are busy, and Ray Data's own `write_webdataset`.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
import webdataset

from benchmarks.commands import ROOT, scratch_folder
from dreambooth3d.artifacts.key import publish_file
from dreambooth3d.pairs import job
from dreambooth3d.pairs.blueprint import draw_blueprint
from dreambooth3d.pairs.chain import Chain
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.records import Chunk, Sample, Source
from dreambooth3d.runtime.session import quiet_data_logs, ray_session

_SAMPLES, _WARM_SAMPLES = 8192, 512
_REPEATS = 3
_CORES = 2
Way = Callable[[PairsConfig, Path], float | None]
CLAIMS = {"scaling": 1.8, "per_core": 0.9, "of_ray_data": 1.0}


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Medians of seconds, and the ratios that are claimed.

    Attributes:
        one, two: seconds on one and on two workers.
        loop: seconds of the plain loop in one process.
        loops: seconds of two plain loops side by side, each on half of the samples.
        ray_data: seconds of `write_webdataset` on two cores.
        spread: largest relative distance of a repeat from its median.
        rounds: the seconds of every round, by name.
    """

    one: float
    two: float
    loop: float
    loops: float
    ray_data: float
    spread: float
    rounds: Mapping[str, Sequence[float]]

    def ratios(self, over: str, under: str, cores: int = 1) -> list[float]:
        """Seconds of one way over those of another on so many cores, of every round."""
        pairs = zip(self.rounds[over], self.rounds[under], strict=True)
        return [one / (cores * other) for one, other in pairs]

    @property
    def scaling(self) -> float:
        """Speed on two cores over that on one."""
        return self.one / self.two

    @property
    def per_core(self) -> float:
        """Speed of each of two cores over that of the plain loop."""
        return self.loop / (_CORES * self.two)

    @property
    def of_two_loops(self) -> float:
        """Speed over that of two plain loops at once: a figure, not a claim."""
        return self.loops / self.two

    @property
    def of_ray(self) -> float:
        """Speed over that of `write_webdataset`."""
        return self.ray_data / self.two


@cache
def measure_throughput(seed: int) -> Throughput:
    """Time all four, in turns, in one session of Ray."""
    config = PairsConfig(samples=_SAMPLES, seed=seed, duplicate_bits=-1)
    ways: dict[str, Way] = {
        "one": lambda config, out: _ours(config, out, workers=1),
        "two": lambda config, out: _ours(config, out, workers=_CORES),
        "loop": lambda config, out: _loop(config, out, range(1)),
        "loops": _two_loops,
        "ray_data": _ray_data,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with ray_session():
        quiet_data_logs()
        for repeat in range(_REPEATS + 1):
            for name, way in ways.items():
                with scratch_folder() as out:
                    # The first round, a short one, starts workers and fills caches.
                    own = config if repeat else replace(config, samples=_WARM_SAMPLES)
                    took = _timed(way, own, out)
                if repeat:
                    seconds[name].append(took)
                print(f"{name}: {own.samples / took:.0f}/s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    spread = max(abs(t / medians[name] - 1) for name, took in seconds.items() for t in took)
    return Throughput(**medians, spread=spread, rounds=seconds)


def _ours(config: PairsConfig, out: Path, *, workers: int) -> None:
    job.run(replace(config, workers=workers), out, report=lambda line: None)


def _parts_of(config: PairsConfig) -> tuple[Source, Chain]:
    blueprint = draw_blueprint(config)
    return blueprint.sources[0].source, blueprint.chain


def _samples(source: Source, chain: Chain, chunk: Chunk) -> Iterator[dict[str, Any]]:
    for record in source.read(chunk):
        made = chain(record, label="scenes", is_photo=False)
        if isinstance(made, Sample):
            yield {"__key__": made.note.key, **dict(made.members)}


def _timed(way: Way, config: PairsConfig, out: Path) -> float:
    """Seconds; those that a way has counted itself go first."""
    began = time.monotonic()
    own = way(config, out)
    return time.monotonic() - began if own is None else own


def _loop(config: PairsConfig, out: Path, share: range) -> None:
    """Write every chunk, or those whose number modulo the end of `share` is its start."""
    source, chain = _parts_of(config)
    pattern = str(out / f"scenes-{share.start}-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=config.samples_per_shard, verbose=0) as writer:
        for chunk in source.chunks()[share.start :: share.stop]:
            for sample in _samples(source, chain, chunk):
                writer.write(sample)


def _two_loops(config: PairsConfig, out: Path) -> float:
    """Seconds from when both have loaded what they need until both have ended."""
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(_CORES + 1)
    loops = [
        spawn.Process(target=_loop_at, args=(start, config, out, range(number, _CORES)))
        for number in range(_CORES)
    ]
    for loop in loops:
        loop.start()
    start.wait()
    began = time.monotonic()
    for loop in loops:
        loop.join()
    return time.monotonic() - began


def _loop_at(start: Barrier, config: PairsConfig, out: Path, share: range) -> None:
    source, chain = _parts_of(config)
    # Libraries load with the first sample.
    next(_samples(source, chain, source.chunks()[0]))
    start.wait()
    _loop(config, out, share)


def _ray_data(config: PairsConfig, out: Path) -> None:
    source, chain = _parts_of(config)
    chunks = source.chunks()

    def make(row: dict[str, Any]) -> list[dict[str, Any]]:
        return list(_samples(source, chain, chunks[row["item"]]))

    rows = ray.data.from_items(list(range(len(chunks))), override_num_blocks=len(chunks))
    # The members are encoded already.
    rows.flat_map(make).write_webdataset(str(out / "corpus"), encoder=None)


def main(arguments: list[str]) -> int:
    """Print the ratios; write them beside the machine into runs/proof/bench-pairs.json.

    The exit code is 1 when one is below what the project claims.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    found = measure_throughput(given.seed)
    ratios = {"scaling": found.scaling, "per_core": found.per_core, "of_ray_data": found.of_ray}
    for name, ratio in ratios.items():
        print(f"{name} {ratio:.3f} >= {CLAIMS[name]} {'ok' if ratio >= CLAIMS[name] else 'short'}")
    print(f"of_two_loops {found.of_two_loops:.3f}")
    told = {
        "seed": given.seed, "samples": _SAMPLES, "repeats": _REPEATS, "cores": os.cpu_count(),
        "versions": {"ray": ray.__version__, "webdataset": webdataset.__version__},
        "seconds": asdict(found), "ratios": ratios, "claims": CLAIMS,
    }  # fmt: skip
    folder = ROOT / "runs" / "proof"
    folder.mkdir(parents=True, exist_ok=True)
    with publish_file(folder / "bench-pairs.json") as aside:
        aside.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return 1 if any(ratio < CLAIMS[name] for name, ratio in ratios.items()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
