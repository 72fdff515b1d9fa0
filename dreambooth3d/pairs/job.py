"""The pairs stage on Ray Data: sources -> parts -> shards, the same bytes on any number of workers.

Two passes: a chunk becomes a part, and when all parts are known, and with them near-duplicates
across the corpus, neighbouring parts become a shard. What an earlier run, or another corpus with
the same source, has finished is kept: a part is known by the key of its source.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from dreambooth3d.artifacts.jsonfile import canonical_json
from dreambooth3d.artifacts.key import exclusive, latest_key, point_latest
from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.artifacts.pairs import read_manifest
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import BLANK_NAME
from dreambooth3d.errors import InputError, RunError, UnusableError
from dreambooth3d.pairs.blueprint import Blueprint, draw_blueprint
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pairs.encoding import Encoder, Encoding
from dreambooth3d.pairs.finish import finish_shard, is_finished
from dreambooth3d.pairs.inventory import Inventory, take_inventory, told
from dreambooth3d.pairs.parts import make_part, read_part, read_record, write_part
from dreambooth3d.pairs.progress import Progress, Report
from dreambooth3d.pairs.publishing import (
    PREVIEW_NAME,
    SourceResult,
    gather_results,
    publish_corpus,
)
from dreambooth3d.pairs.records import Chunk, Source
from dreambooth3d.pairs.scheduling import guided_tasks
from dreambooth3d.pairs.unusable import publish_refusals, remove_refusals
from dreambooth3d.runtime.session import (
    keep_cores_busy,
    last_line,
    num_cores,
    quiet_data_logs,
    ray_session,
)

Row = Mapping[str, Any]
Work = Callable[[Row], dict[str, Any]]
# Some ten seconds of the fastest source, between two lines of progress; the pieces of a slow one
# are that long anyway.
_PIXELS_A_TASK = 2048 * 64**2
# Finishing a shard is shorter than the wait for the next task.
_SHARDS_A_TASK = {"least": 8, "most": 32}
_SHOWN_LOST = 10
# What a record of a slow source costs, in records of the fastest one.
_SLOW = 64


def plan(config: PairsConfig, out: Path | str) -> dict[str, Any]:
    """Say what `run` would do, without doing it."""
    home = Place.parse(str(out))
    _require_home(config, home)
    blueprint = draw_blueprint(config)
    final = home / blueprint.key
    num_records = sum(source.num_records for source in blueprint.sources)
    return {
        "inputs": {
            source.label: [f"about {source.num_records} records", *source.source.remarks()]
            for source in blueprint.sources
        },
        "artifact": final.url,
        "is done": (final / MANIFEST_NAME).is_file(),
        "shards": sum(len(source.shards) for source in blueprint.sources),
        "pairs": num_records,
        "size": f"about {num_records * config.size**2 * 2.2 / 1e6:.1f} MB",
        "latents": "none" if blueprint.encoding is None else blueprint.encoding.versioned(),
        "workers": config.workers or "every core",
    }


def run(config: PairsConfig, out: Path | str, *, report: Report = print) -> Manifest:
    """Build the corpus into `out/<key>`; what an earlier run finished is kept.

    Args:
        config: of the corpus.
        out: a folder or a URL; all workers must reach it.
        report: told how far it is.

    Raises:
        InputError: a source cannot be used, or too much of it is broken.
        RunError: a worker failed; the same command goes on from what is finished.
    """
    home = Place.parse(str(out))
    _require_home(config, home)
    blueprint = draw_blueprint(config)
    final = home / blueprint.key
    if (final / MANIFEST_NAME).is_file():
        # Nothing is written, so a finished corpus may be read-only.
        report(f"pairs {blueprint.key}: already built, nothing to do")
        return _pointed_at(home, blueprint.key, report)
    with _alone(home, blueprint.key):
        if (final / MANIFEST_NAME).is_file():
            report(f"pairs {blueprint.key}: already built, nothing to do")
        else:
            manifest = _build(config, blueprint, home, report)
            outputs = manifest.outputs
            report(
                f"pairs {blueprint.key}: {outputs['num_samples']} pairs at {final}; "
                f"look at them in {PREVIEW_NAME}"
            )
    return _pointed_at(home, blueprint.key, report)


def _require_home(config: PairsConfig, home: Place) -> None:
    """Refuse a place for corpora that workers cannot reach, or that a source would read again.

    Raises:
        InputError: says which.
    """
    if home.store.startswith("memory:"):
        raise InputError(
            f"corpora must be where all workers reach them, got {home}, which is of one process; "
            "use a folder or an object store"
        )
    for text in config.sources:
        url = text.partition(":")[2]
        if url and home.is_within(source := Place.parse(url)):
            raise InputError(
                f"corpora must lie outside of what they are made from, got {home} in {source}: "
                "the next run would read its own corpus; name another place with --to"
            )


def _pointed_at(home: Place, key: str, report: Report) -> Manifest:
    """Make a corpus the latest, and read what it is."""
    if home.local_path is not None and latest_key(home.local_path) != key:
        try:
            point_latest(home.local_path, key)
        except OSError as error:
            # A finished corpus is one, wherever it lies.
            report(f"pairs {key}: not made the latest in {home}, which cannot be written ({error})")
    return read_manifest(home / key)


def _build(config: PairsConfig, blueprint: Blueprint, home: Place, report: Report) -> Manifest:
    for source in blueprint.sources:
        for remark in source.source.remarks():
            report(f"pairs: {source.label}: {remark}")
    with ray_session():
        quiet_data_logs()
        keep_cores_busy()
        _make_parts(config, blueprint, home, report)
        inventory = _inventory(config, blueprint, home, report)
        for remark in blueprint.chain.blocklist.remarks(inventory.blocked_by):
            report(f"pairs: {remark}")
        _finish_parts(config, blueprint, home, inventory, report)
    results = gather_results(home, blueprint, inventory)
    _tell_without_pairs(results, report)
    manifest = publish_corpus(home, blueprint, results)
    remove_refusals(home / f"{blueprint.key}.refused")
    return manifest


def _tell_without_pairs(results: Sequence[SourceResult], report: Report) -> None:
    """Name objects that are not in the corpus at all: their owner would look for them."""
    for result in results:
        label, lost = result.source.label, [*result.without_pairs.items()]
        for subject, reasons in lost[:_SHOWN_LOST]:
            report(f"pairs: {label}: no pair of {subject} ({told(reasons)})")
        if len(lost) > _SHOWN_LOST:
            more = len(lost) - _SHOWN_LOST
            report(f"pairs: {label}: nor of {more} more, see without_pairs in manifest.json")


def _inventory(config: PairsConfig, blueprint: Blueprint, home: Place, report: Report) -> Inventory:
    try:
        return take_inventory(home, blueprint, max_bad_fraction=config.max_bad_fraction)
    except UnusableError:
        shown = home / f"{blueprint.key}.refused"
        publish_refusals(shown, blueprint, home)
        report(f"pairs: what was left out, and why: {shown / PREVIEW_NAME}")
        raise


def _make_parts(config: PairsConfig, blueprint: Blueprint, home: Place, report: Report) -> None:
    rows = [
        {"source": number, "chunk": asdict(chunk)}
        for number, source in enumerate(blueprint.sources)
        for chunk in source.chunks
    ]
    if not rows:
        # What the sources lack is said when the parts are counted.
        return
    sizes = [
        chunk.num_records * (_SLOW if _is_slow(source.source) else 1)
        for source in blueprint.sources
        for chunk in source.chunks
    ]
    make = partial(_make_or_keep, home=home, blueprint=blueprint.without_chunks())
    most = round(_PIXELS_A_TASK / config.size**2)
    done = _in_tasks(config, rows, sizes, most=most, work=make)
    num_records = sum(source.num_records for source in blueprint.sources)
    # Nothing else is said until the first task ends.
    report(f"pairs: {num_records} records in {len(rows)} parts")
    _follow(done, Progress("records", "parts", num_records, report))


def _is_slow(source: Source) -> bool:
    """Whether its objects are cut out or rendered large: seconds a record, not milliseconds."""
    return source.needs_segmentation or source.name == "meshes"


def _make_or_keep(row: Row, *, home: Place, blueprint: Blueprint) -> dict[str, Any]:
    """Make the part of one chunk, unless it is there; runs on a worker."""
    source, chunk = blueprint.sources[row["source"]], Chunk(**row["chunk"])
    name, parts = source.part_name(chunk.index), home / blueprint.parts_of(source)
    record = read_part(parts, name)
    is_kept = record is not None
    if record is None:
        made = make_part(source.source, chunk, blueprint.chain, label=source.label, name=name)
        write_part(parts, made)
        record = made.record
    return _result(chunk.num_records, record.shard.dropped, is_kept=is_kept)


def _finish_parts(
    config: PairsConfig, blueprint: Blueprint, home: Place, inventory: Inventory, report: Report
) -> None:
    rows = list(_shard_rows(blueprint, inventory))
    light = blueprint.without_chunks()
    if blueprint.encoding is None:
        finish = partial(_finish_or_keep, home=home, blueprint=light)
        done = _in_tasks(config, rows, [1] * len(rows), work=finish, **_SHARDS_A_TASK)
    else:
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        size = min(num_gpus or config.workers or num_cores(), len(rows))
        done = _dataset([_task([row]) for row in rows]).flat_map(
            _Finisher,
            fn_constructor_kwargs={
                "home": home,
                "blueprint": light,
                "encoding": blueprint.encoding,
            },
            compute=ray.data.ActorPoolStrategy(size=size),
            num_gpus=1 if num_gpus else 0,
        )
    _follow(done, Progress("finished", "finished shards", len(inventory.subjects), report))


def _shard_rows(blueprint: Blueprint, inventory: Inventory) -> Iterator[dict[str, Any]]:
    """Yield what a worker must know of every shard: its parts, and which samples must go."""
    first = 0
    for number, source in enumerate(blueprint.sources):
        for shard in source.shards:
            parts = {
                source.part_name(part): inventory.duplicates_of(first + part)
                for part in shard.parts
            }
            yield {"source": number, "name": shard.name, "parts": parts}
        first += len(source.chunks)


class _Finisher:
    """An actor that finishes shards with the one copy of the encoders it holds."""

    def __init__(self, home: Place, blueprint: Blueprint, encoding: Encoding) -> None:
        self._home, self._blueprint = home, blueprint
        self._encoder = Encoder(encoding)

    def __call__(self, task: Row) -> list[dict[str, Any]]:
        finish = partial(
            _finish_or_keep, home=self._home, blueprint=self._blueprint, encoder=self._encoder
        )
        return _each(task, work=finish)


def _finish_or_keep(
    row: Row, *, home: Place, blueprint: Blueprint, encoder: Encoder | None = None
) -> dict[str, Any]:
    """Finish one shard, unless it is finished; runs on a worker."""
    source, name = blueprint.sources[row["source"]], row["name"]
    parts, shelf = home / blueprint.parts_of(source), home / blueprint.shelf_of(source)
    places: dict[str, list[int]] = row["parts"]
    records = [read_record(parts, part) for part in places]
    duplicates = frozenset(
        record.samples[place].key
        for record, gone in zip(records, places.values(), strict=True)
        for place in gone
    )
    is_kept = is_finished(shelf, name)
    if not is_kept:
        finish_shard(name, parts, records, duplicates, blueprint.rules, shelf, encode=encoder)
    if encoder is not None:
        _require_blank(shelf / BLANK_NAME, encoder.blank())
    dropped = {"near_duplicate": len(duplicates)} if duplicates else {}
    num_samples = sum(len(record.samples) for record in records)
    return _result(num_samples, dropped, is_kept=is_kept)


def _require_blank(place: Place, blank: bytes) -> None:
    """Write the view of nothing, unless it is there as it should be."""
    if not place.is_file() or place.read_bytes() != blank:
        place.write_bytes(blank)


def _result(num_records: int, dropped: Mapping[str, int], *, is_kept: bool) -> dict[str, Any]:
    # As text: columns of different reasons would be different types to Arrow.
    return {"num_records": num_records, "dropped": json.dumps(dropped), "is_kept": is_kept}


def _dataset(rows: list[dict[str, Any]]) -> ray.data.Dataset:
    """One block a row, so that a row is a task."""
    return ray.data.from_items(rows, override_num_blocks=len(rows))


def _in_tasks(
    config: PairsConfig,
    rows: Sequence[Row],
    sizes: Sequence[int],
    *,
    work: Work,
    most: int,
    least: int = 0,
) -> ray.data.Dataset:
    """Do the work of every row, several rows a task; sizes as in `guided_tasks`."""
    workers = config.workers or num_cores()
    runs = guided_tasks(sizes, workers, most=most, least=least)
    tasks = [_task([rows[place] for place in run]) for run in runs]
    return _dataset(tasks).flat_map(
        partial(_each, work=work),
        compute=ray.data.TaskPoolStrategy(size=min(workers, len(tasks))),
    )


def _task(rows: Sequence[Row]) -> dict[str, str]:
    # As text: rows of different sources would be different types to Arrow.
    return {"rows": canonical_json(rows)}


def _each(task: Row, *, work: Work) -> list[dict[str, Any]]:
    return [work(row) for row in json.loads(task["rows"])]


def _follow(done: ray.data.Dataset, progress: Progress) -> None:
    """Run a pass to its end; a worker's failure is one sentence."""
    try:
        for row in done.iter_rows():
            progress.add(row)
    except RayError as error:
        raise RunError(
            f"every shard must be written, got: {last_line(error)}; "
            "run the same command again, finished shards are kept"
        ) from error
    progress.close()


def _alone(home: Place, key: str) -> AbstractContextManager[None]:
    """Let one process at a time build a corpus; a store needs no lock, for its bytes are equal."""
    return nullcontext() if home.local_path is None else exclusive(home.local_path, key)
