"""The last step: shards from their shelves into one folder, with all that tells what is in it."""

import base64
import bisect
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

from dreambooth3d.artifacts.jsonfile import JsonValue, json_bytes
from dreambooth3d.artifacts.key import publish
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus, write_corpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import (
    BLANK_NAME,
    REFERENCE,
    TARGET,
    ShardEntry,
    decode_pair,
    index_name,
)
from dreambooth3d.pairs.blueprint import STAGE, Blueprint
from dreambooth3d.pairs.croissant import ShardFile, croissant
from dreambooth3d.pairs.finish import read_finished
from dreambooth3d.pairs.inventory import Inventory
from dreambooth3d.pairs.parts import read_record
from dreambooth3d.pairs.plan import PlannedSource
from dreambooth3d.pairs.preview import (
    DroppedExample,
    KeptExample,
    SourceTotals,
    evenly_spaced,
    preview_page,
)
from dreambooth3d.pairs.records import Source
from dreambooth3d.pairs.refusals import REFUSALS_NAME, Refusal, first_of_each, refusal_lines

PREVIEW_NAME, CROISSANT_NAME = "preview.html", "croissant.json"
_KEPT_SHOWN, _DROPPED_SHOWN = 12, 8
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True, kw_only=True)
class SourceResult:
    """What came of one source.

    Attributes:
        source: as planned.
        shelf: where its shards are.
        shards: of the source, in order.
        num_by_licence: samples by licence.
        attributions: who must be named.
        dropped: records that were left out, by reason.
        num_subjects: whose pictures are in the corpus.
        num_refused: records that were left out, of every part.
        examples: refused records to look at.
        without_pairs: subjects of which no pair is left, and why: drops by reason.
    """

    source: PlannedSource
    shelf: Place
    shards: tuple[ShardEntry, ...]
    num_by_licence: Mapping[str, int]
    attributions: frozenset[str]
    dropped: Mapping[str, int]
    num_subjects: int
    num_refused: tuple[int, ...]
    examples: tuple[Refusal, ...]
    without_pairs: Mapping[str, Counter[str]]

    @property
    def totals(self) -> SourceTotals:
        """Samples and drops, added up."""
        return SourceTotals(
            name=self.source.label,
            num_samples=sum(shard.num_samples for shard in self.shards),
            num_subjects=self.num_subjects,
            dropped=dict(sorted(self.dropped.items())),
        )


def gather_results(
    home: Place, blueprint: Blueprint, inventory: Inventory
) -> tuple[SourceResult, ...]:
    """Add up the records of all finished shards."""
    results, first = [], 0
    for source in blueprint.sources:
        span = range(first, first + len(source.chunks))
        results.append(_result(home, blueprint, source, inventory, span))
        first = span.stop
    return tuple(results)


def _result(
    home: Place, blueprint: Blueprint, source: PlannedSource, inventory: Inventory, span: range
) -> SourceResult:
    shelf = home / blueprint.shelf_of(source)
    shards: list[ShardEntry] = []
    licences, dropped, names = Counter[str](), Counter[str](), set[str]()
    for plan in source.shards:
        finished = read_finished(shelf, plan.name)
        shards += finished.shards
        licences.update(finished.num_by_licence)
        dropped.update(finished.dropped)
        names.update(finished.attributions)
    num_refused = inventory.num_refused[span.start : span.stop]
    refused = _refused(home, blueprint, source, num_refused)
    return SourceResult(
        source=source,
        shelf=shelf,
        shards=tuple(shards),
        num_by_licence=licences,
        attributions=frozenset(names),
        dropped=dropped,
        num_subjects=inventory.num_subjects(span),
        num_refused=num_refused,
        examples=first_of_each(refused, _DROPPED_SHOWN),
        without_pairs=inventory.without_pairs[source.label],
    )


def _refused(
    home: Place, blueprint: Blueprint, source: PlannedSource, num_refused: Sequence[int]
) -> Iterator[Refusal]:
    """Yield every record that is not in the corpus, read shard by shard.

    Args:
        home: where the parts are.
        blueprint: of the corpus.
        source: one of its own.
        num_refused: of each of its parts: one that refused nothing is not read again.
    """
    parts, shelf = home / blueprint.parts_of(source), home / blueprint.shelf_of(source)
    for plan in source.shards:
        for part in plan.parts:
            if num_refused[part]:
                yield from read_record(parts, source.part_name(part)).refused
        yield from read_finished(shelf, plan.name).duplicates


def publish_corpus(home: Place, blueprint: Blueprint, results: Sequence[SourceResult]) -> Manifest:
    """Write the corpus; on this machine it appears whole, elsewhere its manifest comes last."""
    final = home / blueprint.key
    shards = [shard for result in results for shard in result.shards]
    with _appearing(final) as corpus:
        for result in results:
            for shard in result.shards:
                for name in (index_name(shard.name), shard.name):
                    (result.shelf / name).copy_to(corpus / name)
        files = _descriptions(blueprint, results, corpus)
        for name, data in files.items():
            (corpus / name).write_bytes(data)
        others = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        lines = refusal_lines(
            (result.source.label, refusal)
            for result in results
            for refusal in _refused(home, blueprint, result.source, result.num_refused)
        )
        others[REFUSALS_NAME] = (corpus / REFUSALS_NAME).write_stream(lines)
        return write_corpus(
            corpus,
            shards,
            key=blueprint.key,
            config=blueprint.shown,
            parents=[result.source.key for result in results],
            stage=STAGE,
            notes=_notes(blueprint, results),
            others=others,
        )


@contextmanager
def _appearing(final: Place) -> Iterator[Place]:
    if final.local_path is None:
        yield final
        return
    with publish(final.local_path) as aside:
        yield Place.parse(str(aside))


def _descriptions(
    blueprint: Blueprint, results: Sequence[SourceResult], corpus: Place
) -> dict[str, bytes]:
    """Files beside the shards, by name."""
    licences, attributions = _licences(results), _attributions(results)
    page = preview_page(
        title=f"Pairs {blueprint.key}",
        sources=[result.totals for result in results],
        kept=[example for result in results for example in _kept(result, corpus)],
        dropped=[
            dropped_example(result.source.label, example)
            for result in results
            for example in result.examples
        ],
        licences=licences,
        attributions=attributions,
        splits=_splits(results),
    )
    card = croissant(
        name=f"pairs-{blueprint.key}",
        description=_description(results),
        shards=[
            ShardFile(name=shard.name, sha256=shard.sha256, num_bytes=shard.num_bytes)
            for result in results
            for shard in result.shards
        ],
        licences=list(licences),
        key=blueprint.key,
        has_latents=blueprint.encoding is not None,
        creators=attributions,
    )
    files = {PREVIEW_NAME: page.encode(), CROISSANT_NAME: json_bytes(card, what=CROISSANT_NAME)}
    if blueprint.encoding is not None:
        # The same on every shelf; a source without a chunk has none.
        shelf = next(result.shelf for result in results if result.shards)
        files[BLANK_NAME] = (shelf / BLANK_NAME).read_bytes()
    return files


def _description(results: Sequence[SourceResult]) -> str:
    totals = [result.totals for result in results]
    told = ", ".join(
        f"{item.num_samples} of {item.num_subjects} subjects from {item.name}" for item in totals
    )
    return f"Pairs of an object on white and the same object in a scene, with captions: {told}."


def _notes(blueprint: Blueprint, results: Sequence[SourceResult]) -> dict[str, JsonValue]:
    """What the manifest says besides its shards."""
    notes: dict[str, JsonValue] = {
        "dropped": {**sum((Counter(r.totals.dropped) for r in results), Counter())},
        "sources": {
            result.source.label: {
                "kind": result.source.source.name,
                "key": result.source.key,
                "settings": _settings(result.source.source),
                "num_samples": result.totals.num_samples,
                "num_subjects": result.num_subjects,
                "dropped": {**result.totals.dropped},
                "without_pairs": [*result.without_pairs],
            }
            for result in results
        },
        "splits": {**_splits(results)},
        "licences": {name or "unknown": n for name, n in _licences(results).items()},
        "attributions": [*_attributions(results)],
    }
    if blueprint.encoding is not None:
        notes["latents"] = {**blueprint.encoding.versioned(), "blank": BLANK_NAME}
    return notes


def _settings(source: Source) -> dict[str, JsonValue]:
    """Settings of a source, without places: they are of a machine."""
    own = {item.name: getattr(source, item.name) for item in fields(cast(Any, source))}
    return {name: value for name, value in own.items() if isinstance(value, _PLAIN)}


def _kept(result: SourceResult, corpus: Place) -> Iterator[KeptExample]:
    """A few samples of a source, spread over all of it."""
    label = result.source.label
    # Only its key is asked for, by nobody here.
    opened = PairCorpus(corpus, Manifest(stage=STAGE, key=result.source.key), result.shards)
    ends = list(itertools.accumulate(shard.num_samples for shard in result.shards))
    has_splits = len({shard.split for shard in result.shards}) > 1
    for place in evenly_spaced(len(opened), _KEPT_SHOWN):
        key, members = opened.read_members(place)
        pair = decode_pair(key, members)
        similarity = pair.meta.get("similarity")
        yield KeptExample(
            source=label,
            key=key,
            subject=str(pair.meta["subject"]),
            caption=pair.caption,
            reference=members[REFERENCE],
            target=members[TARGET],
            similarity=similarity if isinstance(similarity, float) else None,
            split=result.shards[bisect.bisect_right(ends, place)].split if has_splits else "",
            attribution=str(pair.meta["attribution"]),
        )


def dropped_example(source: str, example: Refusal) -> DroppedExample:
    """What a preview shows of a refused record."""
    return DroppedExample(
        source=source,
        reason=example.reason,
        origin=example.origin,
        sentence=example.sentence,
        picture=base64.b64decode(example.picture) if example.picture else None,
    )


def _licences(results: Sequence[SourceResult]) -> dict[str, int]:
    found = sum((Counter(result.num_by_licence) for result in results), Counter[str]())
    return dict(sorted(found.items()))


def _attributions(results: Sequence[SourceResult]) -> list[str]:
    return sorted({name for result in results for name in result.attributions})


def _splits(results: Sequence[SourceResult]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for result in results:
        for shard in result.shards:
            found[shard.split] += shard.num_samples
    return dict(sorted(found.items()))
