"""What is shown of a corpus that could not be made: every record that was left out, and why."""

from collections import Counter
from collections.abc import Iterator

from dreambooth3d.artifacts.place import Place
from dreambooth3d.pairs.blueprint import Blueprint
from dreambooth3d.pairs.inventory import part_records
from dreambooth3d.pairs.parts import PartRecord
from dreambooth3d.pairs.plan import PlannedSource
from dreambooth3d.pairs.preview import SourceTotals, preview_page
from dreambooth3d.pairs.publishing import PREVIEW_NAME, dropped_example
from dreambooth3d.pairs.refusals import REFUSALS_NAME, Refusal, first_of_each, refusal_lines

_SHOWN = 8


def publish_refusals(folder: Place, blueprint: Blueprint, home: Place) -> None:
    """Write `dropped.jsonl` and `preview.html`; all parts must be there.

    Args:
        folder: where to.
        blueprint: of the corpus.
        home: where its parts are.
    """
    sources = blueprint.sources
    lines = (
        (source.label, refusal)
        for source in sources
        for refusal in _refused(part_records(home, blueprint, source))
    )
    (folder / REFUSALS_NAME).write_stream(refusal_lines(lines))
    examples = [
        dropped_example(source.label, refusal)
        for source in sources
        for refusal in first_of_each(_refused(part_records(home, blueprint, source)), _SHOWN)
    ]
    page = preview_page(
        title=f"Pairs {blueprint.key}: not made",
        sources=[_totals(home, blueprint, source) for source in sources],
        kept=[],
        dropped=examples,
        licences={},
    )
    (folder / PREVIEW_NAME).write_bytes(page.encode())


def remove_refusals(folder: Place) -> None:
    """Remove what `publish_refusals` wrote, when the corpus could be made after all."""
    for name in (REFUSALS_NAME, PREVIEW_NAME):
        if (folder / name).is_file():
            (folder / name).delete()
    home = folder.local_path
    # What somebody else put there stays.
    if home is not None and home.is_dir() and not any(home.iterdir()):
        home.rmdir()


def _totals(home: Place, blueprint: Blueprint, source: PlannedSource) -> SourceTotals:
    subjects: set[str] = set()
    dropped: Counter[str] = Counter()
    num_samples = 0
    for record in part_records(home, blueprint, source):
        num_samples += len(record.samples)
        subjects.update(note.subject for note in record.samples)
        dropped.update(record.shard.dropped)
    return SourceTotals(
        name=source.label,
        num_samples=num_samples,
        num_subjects=len(subjects),
        dropped=dict(sorted(dropped.items())),
    )


def _refused(records: Iterator[PartRecord]) -> Iterator[Refusal]:
    return (refusal for record in records for refusal in record.refused)
