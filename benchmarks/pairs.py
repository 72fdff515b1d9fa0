"""The rows of the proof of the pairs stage."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.bench_pairs import CLAIMS, measure_throughput
from benchmarks.commands import ROOT, environment, pipeline_command, scratch_folder
from benchmarks.malformed import NUM_RECORDS, write_malformed, write_unusable
from benchmarks.pair_kills import (
    NUM_MOMENTS,
    redone_share,
    same_after_driver_kills,
    same_after_node_kills,
    same_after_worker_kills,
)
from benchmarks.pair_runs import PairRun, digests, records
from benchmarks.rows import Row

_FEW, _MANY = 5_000, 50_000
_kept = ExitStack()


@cache
def _run(seed: int) -> PairRun:
    """The corpus of a seed; its photographs stay until the proof ends."""
    home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="dreambooth3d-")))
    run = PairRun(home=home, seed=seed)
    run.photograph()
    return run


@cache
def _expected(seed: int) -> dict[str, str]:
    """What one worker makes."""
    with scratch_folder() as out:
        _run(seed).build(out, workers=1)
        return digests(out)


@cache
def _work_seconds(seed: int) -> float:
    """How long two workers are at work on it: without the start of Python and Ray."""
    run = _run(seed)
    with scratch_folder() as out:
        whole = run.build(out)
        small = replace(run, samples=run.shard).build(out)
    return whole - small


def same_bytes(seed: int) -> float:
    """Of two runs with two workers, those whose files are all those of one worker."""
    same = 0
    for _ in range(2):
        with scratch_folder() as out:
            _run(seed).build(out)
            same += digests(out) == _expected(seed)
    return float(same)


def killed_worker(seed: int) -> float:
    """Corpora, of ten, with the right bytes after `kill -9` of a worker."""
    return same_after_worker_kills(_run(seed), _expected(seed), _work_seconds(seed))


def killed_driver(seed: int) -> float:
    """Corpora, of ten, with the right bytes after `kill -9` of the command and a second run."""
    return same_after_driver_kills(_run(seed), _expected(seed), _work_seconds(seed))


def killed_node(seed: int) -> float:
    """Corpora, of ten, with the right bytes after the second of two nodes was lost."""
    return same_after_node_kills(_run(seed), _expected(seed), _work_seconds(seed))


def redone(seed: int) -> float:
    """Share of the work that is done again after a kill at 80 %."""
    return redone_share(_run(seed))


def no_op_seconds(seed: int) -> float:
    """Seconds of the command on a finished corpus, the median of three."""
    run = replace(_run(seed), samples=256)
    with scratch_folder() as out:
        run.build(out)
        return sorted(run.build(out) for _ in range(3))[1]


def added_source(seed: int) -> float:
    """Shards and parts of a corpus that are not kept as they are when a source is added."""
    run = replace(_run(seed), samples=512)
    with scratch_folder() as out:
        run.build(out, sources=(run.photos,))
        shards, parts = digests(out), records(out)
        run.build(out)
        both, after = digests(out), records(out)
    tars = {
        name: digest for name, digest in shards.items() if name.endswith((".tar", ".index.json"))
    }
    lost = sum(both.get(name) != digest for name, digest in tars.items())
    remade = sum(after.get(name) != written for name, written in parts.items())
    return float(lost + remade + (len(tars) == 0) + (len(both) <= len(shards)))


def memory_growth(seed: int) -> float:
    """Growth of the peak above idle, driver and workers together, with ten times the samples."""
    few, many = (_peak(samples, seed) for samples in (_FEW, _MANY))
    return many / few - 1


def _peak(samples: int, seed: int) -> float:
    with scratch_folder() as out:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.pair_memory", str(samples), str(out), str(seed)],
            cwd=ROOT, env=environment(), stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"memory of {samples} samples: {found}", file=sys.stderr, flush=True)
    return float(found["peak"] - found["idle"])


def malformed(seed: int) -> float:
    """Malformed and good inputs, of 300, that are counted as what they are."""
    with scratch_folder() as home:
        expected = write_malformed(home / "in", seed)
        code, lines = _build(home, tuple(expected), "max_bad_fraction=1.0")
        if code:
            raise ChildProcessError(lines[-1])
        (manifest,) = home.glob("out/pairs/*/manifest.json")
        outputs = json.loads(manifest.read_text(encoding="utf-8"))["outputs"]
        listed = (manifest.parent / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    wrong = abs(len(listed) - sum(outputs["dropped"].values()))
    for source, counts in expected.items():
        told = outputs["sources"][source.partition(":")[0]]
        found = Counter({"kept": told["num_samples"], **told["dropped"]})
        wrong += ((counts - found) + (found - counts)).total()
        print(f"{source.split('/')[-1]}: {dict(found)}", file=sys.stderr, flush=True)
    return float(NUM_RECORDS - wrong)


def unusable(seed: int) -> float:
    """Sources, of eight, that do not end in one clear line and exit code 1."""
    unclear = 0
    with scratch_folder() as home:
        for source, said in write_unusable(home / "bad", seed).items():
            code, lines = _build(home, (source,), "max_bad_fraction=0.25")
            errors = [line for line in lines if "rror" in line]
            is_clear = code == 1 and len(errors) == 1 and said in errors[0]
            unclear += not is_clear
            print(f"{source.split('/')[-1]}: {lines[-1]}", file=sys.stderr, flush=True)
    return float(unclear)


def _build(home: Path, sources: tuple[str, ...], setting: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        pipeline_command(
            "build_pairs.py", "--out", str(home / "out"), "--set", setting,
            "--set", "duplicate_bits=-1", "--set", "quality=none", "--set", "identity=none",
            "--set", "size=32", "--set", "pairs_per_subject=1", "--set", "segmentation=plain",
            *(part for source in sources for part in ("--source", source)),
        ),
        cwd=ROOT, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr.strip().splitlines() or [""]


ROWS = (
    Row(name="same_bytes", measure=same_bytes, rule="==", bar=2),
    Row(name="killed_worker", measure=killed_worker, rule="==", bar=NUM_MOMENTS),
    Row(name="killed_driver", measure=killed_driver, rule="==", bar=NUM_MOMENTS),
    Row(name="killed_node", measure=killed_node, rule="==", bar=NUM_MOMENTS),
    Row(name="redone", measure=redone, rule="<=", bar=0.25),
    Row(name="no_op_seconds", measure=no_op_seconds, rule="<=", bar=5),
    Row(name="added_source", measure=added_source, rule="==", bar=0),
    Row(name="malformed", measure=malformed, rule="==", bar=NUM_RECORDS),
    Row(name="unusable", measure=unusable, rule="==", bar=0),
    Row(
        name="scaling",
        measure=lambda s: measure_throughput(s).scaling,
        rule=">=",
        bar=CLAIMS["scaling"],
    ),
    Row(
        name="per_core",
        measure=lambda s: measure_throughput(s).per_core,
        rule=">=",
        bar=CLAIMS["per_core"],
    ),
    Row(
        name="of_ray_data",
        measure=lambda s: measure_throughput(s).of_ray,
        rule=">=",
        bar=CLAIMS["of_ray_data"],
    ),
    Row(name="memory_growth", measure=memory_growth, rule="<=", bar=0.10),
)
