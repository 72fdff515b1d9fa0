"""What all parts together hold, in corpus order, in a few bytes a sample."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import InputError, UnusableError
from dreambooth3d.pairs.blueprint import Blueprint
from dreambooth3d.pairs.duplicates import near_duplicates
from dreambooth3d.pairs.finish import FinishRules, split_by
from dreambooth3d.pairs.parts import PartRecord, read_record
from dreambooth3d.pairs.plan import PlannedSource
from dreambooth3d.pairs.refusals import Refusal
from dreambooth3d.pairs.splits import HELD_OUT, folded_name
from dreambooth3d.vision.refusal import BAD_REASONS

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Inventory:
    """Samples of all parts.

    Attributes:
        starts: place of the first sample of every part, and behind the last one.
        subjects: hashes of whose picture a sample is.
        is_duplicate: whether a sample looks like one before it.
        num_refused: records that were left out, of every part.
        without_pairs: subjects of which no part has a sample, and why: drops by reason, by label
            of the source.
        blocked_by: entries of the blocklist that name a subject.
    """

    starts: tuple[int, ...]
    subjects: Hashes
    is_duplicate: NDArray[np.bool_]
    num_refused: tuple[int, ...]
    without_pairs: Mapping[str, Mapping[str, Counter[str]]]
    blocked_by: frozenset[str] = frozenset()

    def duplicates_of(self, part: int) -> list[int]:
        """Places, within part number `part`, of the samples that must go."""
        flags = self.is_duplicate[self.starts[part] : self.starts[part + 1]]
        return [int(place) for place in np.flatnonzero(flags)]

    def num_subjects(self, parts: range) -> int:
        """Count whose pictures are left in a run of parts."""
        span = slice(self.starts[parts.start], self.starts[parts.stop])
        return len(np.unique(self.subjects[span][~self.is_duplicate[span]]))


def take_inventory(home: Place, blueprint: Blueprint, *, max_bad_fraction: float) -> Inventory:
    """Read the records of all parts, and find near-duplicates.

    Raises:
        UnusableError: too many records of a source are broken, or no record of any is left.
        InputError: a subject would be trained on and held out.
    """
    counts: list[int] = []
    num_refused: list[int] = []
    columns: list[Hashes] = [np.zeros((4, 0), dtype=np.uint64)]
    dropped: Counter[str] = Counter()
    blocked_by: set[str] = set()
    without_pairs: dict[str, Mapping[str, Counter[str]]] = {}
    for source in blueprint.sources:
        fates = _Fates()
        for record in part_records(home, blueprint, source):
            counts.append(len(record.samples))
            num_refused.append(len(record.refused))
            columns.append(_columns(record, blueprint.rules))
            fates.add(record)
        fates.require_usable(source.label, max_bad_fraction)
        dropped.update(fates.dropped)
        blocked_by |= fates.blocked_by
        without_pairs[source.label] = fates.without_pairs()
        # A photo that is broken is so before anybody looks whose it is.
        blocked_by.update(map(blueprint.chain.blocklist.entry_for, without_pairs[source.label]))
    target, reference, subjects, is_held_out = np.concatenate(columns, axis=1)
    if not len(target):
        raise UnusableError(
            f"corpus must hold a pair, got none ({told(dropped) or 'the sources are empty'}); "
            "give other sources or milder settings"
        )
    on_both_sides = np.intersect1d(subjects[is_held_out > 0], subjects[is_held_out == 0])
    if len(on_both_sides):
        raise InputError(_told_twice(home, blueprint, int(on_both_sides[0])))
    bits = blueprint.duplicate_bits
    return Inventory(
        starts=(0, *np.cumsum(counts).tolist()),
        subjects=subjects,
        is_duplicate=np.zeros(len(target), dtype=np.bool_)
        if bits < 0
        else near_duplicates(target, reference, max_distance=bits),
        num_refused=tuple(num_refused),
        without_pairs=without_pairs,
        blocked_by=frozenset(blocked_by - {""}),
    )


class _Fates:
    """What became of the records of a source."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.blocked_by: set[str] = set()
        self._num_samples = 0
        self._examples: dict[str, Refusal] = {}
        self._kept: set[str] = set()
        self._lost: dict[str, Counter[str]] = {}

    def add(self, record: PartRecord) -> None:
        """Count those of one part."""
        self._num_samples += len(record.samples)
        self._kept.update(note.subject for note in record.samples)
        for refusal in record.refused:
            self.dropped[refusal.reason] += 1
            self._examples.setdefault(refusal.reason, refusal)
            if refusal.blocked_by:
                self.blocked_by.add(refusal.blocked_by)
            if refusal.subject:
                self._lost.setdefault(refusal.subject, Counter())[refusal.reason] += 1

    def without_pairs(self) -> dict[str, Counter[str]]:
        """Subjects of which nothing was kept, in the order of the source."""
        return {subject: why for subject, why in self._lost.items() if subject not in self._kept}

    def require_usable(self, label: str, max_bad_fraction: float) -> None:
        """Refuse a source of which more than a share of all records is broken.

        Raises:
            UnusableError: says how much, and of what kind.
        """
        bad = Counter({reason: n for reason, n in self.dropped.items() if reason in BAD_REASONS})
        num_records = self._num_samples + self.dropped.total()
        if bad.total() > max_bad_fraction * num_records:
            worst = self._examples[bad.most_common(1)[0][0]]
            # In hundredths, which the decimals of a share may just miss.
            enough = math.ceil(100 * bad.total() / num_records) / 100
            way = "" if enough == 1 else f", or --set max_bad_fraction={enough} to go on without"
            raise UnusableError(
                f"source {label} must have at most {max_bad_fraction:.0%} broken records, "
                f"got {bad.total()} of {num_records} ({told(bad)}), such as {worst.origin}: "
                f"{worst.sentence}; correct the source{way}"
            )


def told(dropped: Counter[str]) -> str:
    """Tell drops by reason, the most frequent first."""
    found = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count}" for reason, count in found)


def part_records(home: Place, blueprint: Blueprint, source: PlannedSource) -> Iterator[PartRecord]:
    """Yield the records of a source's parts, in order."""
    parts = home / blueprint.parts_of(source)
    return (read_record(parts, name) for name in source.part_names())


def _told_twice(home: Place, blueprint: Blueprint, subject: int) -> str:
    """Say which subject would be trained on and held out, and where it comes from."""
    found: dict[str, str] = {}
    for source in blueprint.sources:
        for record in part_records(home, blueprint, source):
            for note in record.samples:
                if _hash(note.subject) == subject:
                    found[source.label] = note.subject
    names = " and ".join(map(repr, dict.fromkeys(found.values())))
    return (
        f"subject must be in one split, got {names} trained on and held "
        f"out, from {' and '.join(found)}; put it on the blocklist, or leave one source out"
    )


def _columns(record: PartRecord, rules: FinishRules) -> Hashes:
    """Target hash, reference hash, subject and whether it is held out, of every sample, (4, N)."""
    rows: Sequence[tuple[int, int, int, bool]] = [
        (
            note.target_hash,
            note.reference_hash,
            _hash(note.subject),
            split_by(note, rules) == HELD_OUT,
        )
        for note in record.samples
    ]
    return np.array(rows, dtype=np.uint64).reshape(-1, 4).T


def _hash(subject: str) -> int:
    # Who is one subject to the split must be one here.
    return int.from_bytes(hashlib.sha256(folded_name(subject).encode()).digest()[:8], "big")
