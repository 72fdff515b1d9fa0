"""The pairs stage on Ray Data: one row a shard, any number of workers, the same bytes."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from dreambooth3d.artifacts.key import (
    artifact_key,
    content_hash,
    exclusive,
    link_or_copy,
    point_latest,
    publish,
    publish_file,
)
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import write_corpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.artifacts.shard import ShardEntry, index_name
from dreambooth3d.errors import RunError
from dreambooth3d.pairs.build import build_shard, shard_path
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.runtime.session import last_line, num_cores, quiet_data_logs, ray_session

STAGE, REVISION = "pairs", 2


def key_of(config: PairsConfig) -> str:
    """Artifact key of the corpus these settings make."""
    return artifact_key(STAGE, REVISION, versioned_fields(config), ())


def plan(config: PairsConfig, out: Path) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    return {
        "inputs": "none: the embedded procedural world",
        "artifact": str(out / key_of(config)),
        "is done": (out / key_of(config)).is_dir(),
        "shards": config.num_shards,
        "pairs": config.samples,
        "size": f"about {config.samples * config.size**2 * 2.2 / 1e6:.1f} MB",
        "workers": config.workers or "every core",
    }


def run(config: PairsConfig, out: Path, *, report: Callable[[str], None] = print) -> Manifest:
    """Build the corpus into `out/<key>`; shards that an earlier run finished are kept."""
    key = key_of(config)
    final = out / key
    with exclusive(out, key):
        if final.is_dir():
            report(f"pairs {key}: already built, nothing to do")
        else:
            entries = _build_shards(config, out / f".building-{key}", report)
            _publish(config, key, final, out / f".building-{key}", entries)
            report(f"pairs {key}: {config.samples} pairs in {config.num_shards} shards at {final}")
    point_latest(out, key)
    return Manifest.load(final)


def _build_shards(
    config: PairsConfig, work: Path, report: Callable[[str], None]
) -> list[ShardEntry]:
    work.mkdir(parents=True, exist_ok=True)
    missing = [j for j in range(config.num_shards) if not _is_whole(work, j)]
    if len(missing) < config.num_shards:
        report(f"pairs: {config.num_shards - len(missing)} shards kept from an earlier run")
    if missing:
        with ray_session():
            _run_on_ray(config, work.resolve(), missing, report)
    return [_read_entry(_record(work, j)) for j in range(config.num_shards)]


def _is_whole(work: Path, shard: int) -> bool:
    """Whether an earlier run finished a shard and its bytes are still those it wrote."""
    path, record = shard_path(work, shard), _record(work, shard)
    if not (record.is_file() and path.is_file()):
        return False
    return content_hash(path) == _read_entry(record).sha256


def _run_on_ray(
    config: PairsConfig, work: Path, shards: list[int], report: Callable[[str], None]
) -> None:
    quiet_data_logs()
    rows = ray.data.from_items([{"shard": j} for j in shards], override_num_blocks=len(shards))
    tasks = rows.map(
        partial(_build_row, config=config, work=work),
        compute=ray.data.TaskPoolStrategy(size=min(config.workers or num_cores(), len(shards))),
    )
    started, done = time.monotonic(), 0
    for row in _rows(tasks):
        done += int(row["num_samples"])
        rate = done / (time.monotonic() - started)
        total = sum(_shard_size(config, j) for j in shards)
        report(
            f"pairs: {done}/{total} pairs, {rate:.0f}/s, dropped {int(row['num_dropped'])}, "
            f"eta {(total - done) / rate:.0f} s"
        )


def _rows(tasks: ray.data.Dataset) -> Iterator[dict[str, Any]]:
    """Iterate, with a worker's failure as one sentence."""
    try:
        yield from tasks.iter_rows()
    except RayError as error:
        raise RunError(
            f"every shard must be written, got: {last_line(error)}; "
            "run the same command again, finished shards are kept"
        ) from error


def _build_row(row: dict[str, Any], *, config: PairsConfig, work: Path) -> dict[str, Any]:
    """Write one shard, then its record: a shard without a record is built again."""
    shard = int(row["shard"])
    entry = build_shard(config, work, shard)
    with publish_file(_record(work, shard)) as aside:
        aside.write_text(json.dumps(asdict(entry)), encoding="utf-8")
    return {
        "shard": shard,
        "num_samples": entry.num_samples,
        "num_dropped": sum(entry.dropped.values()),
    }


def _publish(
    config: PairsConfig, key: str, final: Path, work: Path, entries: list[ShardEntry]
) -> None:
    with publish(final) as aside:
        for entry in entries:
            for name in (entry.name, index_name(entry.name)):
                link_or_copy(work / name, aside / name)
        write_corpus(Place.parse(str(aside)), entries, key=key, config=versioned_fields(config))
    shutil.rmtree(work, ignore_errors=True)


def _record(work: Path, shard: int) -> Path:
    return shard_path(work, shard).with_suffix(".json")


def _read_entry(record: Path) -> ShardEntry:
    return ShardEntry(**json.loads(record.read_text(encoding="utf-8")))


def _shard_size(config: PairsConfig, shard: int) -> int:
    return min(config.samples_per_shard, config.samples - shard * config.samples_per_shard)
