"""Faults of a pretraining: each ends in one clear sentence, and nothing is lost."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.commands import ROOT, environment, must
from benchmarks.pretrain_runs import LOG, command
from dreambooth3d.artifacts.adapter import find_adapter, load_adapter, save_adapter

_STEPS = 6
_DISK_BYTES = 64_000_000
_FREE_BYTES = 1_000_000


def corrupt_shard(out: Path, pairs: Path, seed: int) -> str:
    """One byte of a shard is another."""
    corpus = Path(shutil.copytree(pairs, out / "corpus"))
    shard = sorted(corpus.glob("*.tar"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    problem = _refused(command(out, corpus, seed, steps=_STEPS), shard.name)
    if problem:
        return problem
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    must(command(out, corpus, seed, steps=_STEPS), log=LOG)
    return ""


def other_manifest(out: Path, pairs: Path, seed: int) -> str:
    """The manifest speaks of a shard that is not there."""
    corpus = Path(shutil.copytree(pairs, out / "corpus"))
    shard = sorted(corpus.glob("*.tar"))[-1]
    shard.unlink()
    return _refused(command(out, corpus, seed, steps=_STEPS), shard.name)


def full_disk(out: Path, pairs: Path, seed: int) -> str:
    """The disk of the artifacts fills up at the first checkpoint."""
    disk = out / "disk"
    disk.mkdir()
    size = f"size={_DISK_BYTES}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)]).returncode:
        return "a small disk cannot be mounted here: run it as root"
    try:
        (disk / "ballast").write_bytes(bytes(_DISK_BYTES - _FREE_BYTES))
        problem = _refused(command(disk, pairs, seed, steps=_STEPS), "No space left")
        if problem:
            return problem
        (disk / "ballast").unlink()
        must(command(disk, pairs, seed, steps=_STEPS), log=LOG)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    return ""


def no_mlflow(out: Path, pairs: Path, seed: int) -> str:
    """The tracking server does not answer: training goes on, metrics are sent by the next run."""
    order = command(out, pairs, seed, steps=_STEPS)
    absent = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    code, said = _run(order, absent)
    if code or not any("MLflow" in line for line in said):
        return f"ended with {code}, said {said[-1:]}"
    store = f"sqlite:///{out}/mlflow.db"
    code, said = _run(order, {"MLFLOW_TRACKING_URI": store})
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    runs = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    if code or len(runs) != 1 or "loss" not in runs[0].data.metrics:
        return f"the next run ended with {code} and left {len(runs)} runs"
    return ""


def other_backbone(out: Path, pairs: Path, seed: int) -> str:
    """The adapter to start from was made for another backbone."""
    save_adapter(out / "other", load_adapter(find_adapter("tiny")))
    card = json.loads((out / "other" / "adapter.json").read_text(encoding="utf-8"))
    card["backbone_revision"] = "0123456789abcdef"
    (out / "other" / "adapter.json").write_text(json.dumps(card), encoding="utf-8")
    start = (f"start={out / 'other'}", f"rank={card['rank']}")
    return _refused(command(out, pairs, seed, *start, steps=_STEPS), "backbone")


FAULTS: Mapping[str, Callable[[Path, Path, int], str]] = {
    "corrupt shard": corrupt_shard,
    "another manifest": other_manifest,
    "full disk": full_disk,
    "no MLflow": no_mlflow,
    "another backbone": other_backbone,
}


def _refused(order: list[str], said: str) -> str:
    """What is unclear about how a command ended that had to fail; empty when nothing is."""
    code, lines = _run(order, {})
    errors = [line for line in lines if line.startswith("error: ")]
    if code != 1 or len(errors) != 1 or any("Traceback" in line for line in lines):
        return f"ended with {code}, said {lines[-2:]}"
    if said not in errors[0]:
        return f"{said} is not in {errors[0]}"
    return ""


def _run(order: list[str], more: Mapping[str, str]) -> tuple[int, list[str]]:
    done = subprocess.run(
        order, cwd=ROOT, env=environment() | dict(more), capture_output=True, text=True
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()
