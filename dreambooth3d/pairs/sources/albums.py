"""Albums: the photos of one object, found in a listing of files or in a CSV of subjects."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path, PurePosixPath

from dreambooth3d.artifacts.catalogue import read_subjects_csv
from dreambooth3d.artifacts.image import IMAGE_SUFFIXES, natural_order
from dreambooth3d.artifacts.subject import Problem
from dreambooth3d.pairs.nouns import name_of_folder
from dreambooth3d.pairs.sources.listing import is_hidden
from dreambooth3d.pairs.sources.origin import subject_name

_IMAGES, _REFERENCES = "images", "references"
# Cameras write these and no decoder here reads them: they are refused by name, not passed over.
_FOREIGN_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"}
)


@dataclass(frozen=True, kw_only=True)
class Album:
    """The photos of one object; names are relative to the source's folder.

    Attributes:
        subject: its name; folders whose names look alike are one subject.
        photos: in order.
        captions: of each photo, the text file beside it; empty where there is none.
        references: clean views, in order; the photos themselves when there are none.
        foreign: pictures of a kind that is not read.
        metadata, prompts: ``metadata.json`` and ``prompt.txt``; empty where there is none.
        class_noun: what the CSV says it is.
        name: what its folder's name says it is, or empty.
        is_clean_only: there are only references, which then are the photos too.
    """

    subject: str
    photos: tuple[str, ...]
    captions: tuple[str, ...]
    references: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    metadata: str = ""
    prompts: str = ""
    class_noun: str = ""
    name: str = ""
    is_clean_only: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that a record of this album can depend on."""
        pictures = (*self.photos, *self.references, *self.foreign)
        names = (*pictures, *self.captions, self.metadata, self.prompts)
        return tuple(dict.fromkeys(filter(None, names)))


@dataclass
class _Gathered:
    """Pictures of one subject by the folder they are in ("", images, references)."""

    pictures: dict[str, list[str]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)


def find_albums(names: Sequence[str], *, root: str) -> tuple[Album, ...]:
    """Group pictures by the subject they are of, in natural order of the folders.

    A folder with pictures is a subject; its ``images/`` and ``references/`` belong to it, in any
    case of letters.

    Args:
        names: all files, relative, ``/`` between parts; hidden ones are passed over.
        root: name of the subject whose pictures lie in no folder.
    """
    homes: dict[str, _Gathered] = {}
    for name in filter(is_picture_name, names):
        home, kind = _home_of(name)
        found = homes.setdefault(home, _Gathered())
        is_foreign = suffix_of(name) in _FOREIGN_SUFFIXES
        (found.foreign if is_foreign else found.pictures.setdefault(kind, [])).append(name)
    exists = frozenset(names).__contains__
    ordered = sorted(homes, key=lambda home: natural_order(Path(home)))
    return tuple(
        replace(
            _album(home, homes[home], subject_name(home or root), exists),
            name=name_of_folder(home or root),
        )
        for home in ordered
    )


def read_albums(table: Path) -> tuple[tuple[Album, ...], tuple[Problem, ...]]:
    """Read a CSV of subjects; names are relative to its folder, and may lead out of it.

    Raises:
        InputError: the table as a whole cannot be used.
    """
    found = read_subjects_csv(table)
    albums = []
    for subject in found.subjects:
        photos = _relative(subject.images, table.parent)
        references = _relative(subject.references, table.parent)
        gathered = _Gathered(pictures={"": [*photos], _REFERENCES: [*references]})
        home = _home_of(photos[0])[0]
        album = _album(home, gathered, subject.id, lambda name: (table.parent / name).is_file())
        albums.append(replace(album, class_noun=subject.class_noun))
    return tuple(albums), tuple(_by_row(found.problems))


def _by_row(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Join the problems of a row: it is one record, however much is wrong with it."""
    for _, group in groupby(problems, key=lambda problem: (problem.row, problem.line)):
        first, *more = group
        yield replace(first, sentence="; ".join([first.sentence, *(p.sentence for p in more)]))


def is_picture_name(name: str) -> bool:
    """Whether a file counts as a picture, readable or not."""
    return not is_hidden(name) and suffix_of(name) in IMAGE_SUFFIXES | _FOREIGN_SUFFIXES


def suffix_of(name: str) -> str:
    """The ending of a name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def _home_of(name: str) -> tuple[str, str]:
    folder = name.rpartition("/")[0]
    home, _, last = folder.rpartition("/")
    kind = last.casefold()
    return (home, kind) if kind in (_IMAGES, _REFERENCES) else (folder, "")


def _album(home: str, found: _Gathered, subject: str, exists: Callable[[str], bool]) -> Album:
    pictures = {kind: _ordered(names) for kind, names in found.pictures.items()}
    own = (*pictures.get("", ()), *pictures.get(_IMAGES, ()))
    photos = own or pictures.get(_REFERENCES, ())

    def kept(name: str) -> str:
        return name if exists(name) else ""

    return Album(
        subject=subject,
        photos=photos,
        captions=tuple(
            kept(f"{name.removesuffix(PurePosixPath(name).suffix)}.txt") for name in photos
        ),
        references=pictures.get(_REFERENCES) or photos,
        is_clean_only=bool(photos) and not own,
        foreign=_ordered(found.foreign),
        # Beside the photos, or among them.
        metadata=kept(_below(home, "metadata.json"))
        or kept(_below(home, f"{_IMAGES}/metadata.json")),
        prompts=kept(_below(home, "prompt.txt")),
    )


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: natural_order(Path(name))))


def _relative(paths: Iterable[Path], folder: Path) -> tuple[str, ...]:
    return tuple(os.path.relpath(path, folder) for path in paths)


def _below(home: str, name: str) -> str:
    return f"{home}/{name}" if home else name
