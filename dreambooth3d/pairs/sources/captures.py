"""Source `captures`: folders of photos, each of one object, or a CSV that lists them.

A folder with pictures is a subject, at any depth; beside or instead of its own pictures it may have
``images/`` and ``references/`` (clean views, which then are the references), ``metadata.json`` and
``prompt.txt``. Targets are the photos as they are. An object that nobody names is called like its
folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from dreambooth3d.artifacts.image import IMAGE_SUFFIXES
from dreambooth3d.artifacts.jsonfile import JsonValue, canonical_json
from dreambooth3d.artifacts.key import artifact_key
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.settings import require_choices, require_range
from dreambooth3d.artifacts.subject import Problem
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.records import Chunk, Record
from dreambooth3d.pairs.sources.album_reading import AlbumReader
from dreambooth3d.pairs.sources.album_remarks import remarks_on, remarks_on_rows
from dreambooth3d.pairs.sources.albums import Album, find_albums, read_albums
from dreambooth3d.pairs.sources.chunking import pack_name, unpack_name, whole
from dreambooth3d.pairs.sources.listing import place_files
from dreambooth3d.pairs.sources.pairing import spread_pairs

_REVISION = 3

Captions = Literal["beside", "prompts"]


@dataclass(frozen=True, kw_only=True)
class CapturesSource:
    """Pairs of two photos of one object: the reference is to be cut out, the target stays.

    Attributes:
        place: a subject folder, a folder of them, or a CSV as `read_subjects_csv` reads it.
        pairs_per_subject: pairs of each subject, spread over all its photos; fewer when there are
            not so many.
        captions: `beside` takes ``1.txt`` for ``1.jpg`` where there is one; `prompts` takes line
            i of ``prompt.txt`` for photo i (otherwise its lines describe clips to be made).
        pairs_per_part: pairs that are one piece of work, about; those of a subject stay together
            where they can, for its photos are cut out once a piece.
    """

    place: Place
    pairs_per_subject: int = 8
    captions: Captions = "beside"
    pairs_per_part: int = 16

    name = "captures"
    needs_segmentation = True

    def __post_init__(self) -> None:
        require_range(self, "pairs_per_subject", "pairs_per_part", least=1)
        require_choices(self)

    def fingerprint(self) -> str:
        """A hash of the settings and of every file that counts."""
        settings = {name: value for name, value in asdict(self).items() if name != "place"}
        albums, problems = self._albums()
        # Which photo is whose, and what it is for, stands in a table, in no file's content.
        told = [canonical_json(album) for album in albums]
        told += [canonical_json(problem) for problem in problems]
        files = place_files(self._folder, [name for album in albums for name in album.files])
        return artifact_key(
            self.name, _REVISION, settings, (*told, self._folder.fingerprint(files))
        )

    def chunks(self) -> Sequence[Chunk]:
        """Ranges of the plan of all pairs.

        Raises:
            InputError: there are no pictures, or the CSV as a whole cannot be used.
        """
        albums, problems = self._albums()
        plan = [entry for index, album in enumerate(albums) for entry in self._plan(index, album)]
        plan += [_bad_row(problem) for problem in problems]
        if not plan:
            raise InputError(
                f"{self.name} must hold pictures ({', '.join(sorted(IMAGE_SUFFIXES))}), "
                f"got none at {self.place}; check the address"
            )
        chunks: list[Chunk] = []
        first = 0
        for part in _pieces(plan, self.pairs_per_part):
            payload: dict[str, JsonValue] = {
                "first": first, "entries": [*part], "albums": self._told(albums, part),
            }  # fmt: skip
            chunks.append(Chunk(index=len(chunks), payload=payload, num_records=len(part)))
            first += len(part)
        return chunks

    def remarks(self) -> Sequence[str]:
        """Tell of photos in no pair, of objects without a name, and of targets without a scene."""
        albums, problems = self._albums()
        pairs = [e for i, album in enumerate(albums) for e in self._plan(i, album)]
        names = (name for entry in pairs if entry[0] == "pair" for name in entry[3:5])
        used = frozenset(map(unpack_name, names))
        told = remarks_on(albums, used, sum(entry[0] == "pair" for entry in pairs))
        return (*told, *remarks_on_rows(problems))

    def read(self, chunk: Chunk) -> Iterator[Record]:
        """Read the photos of a range of pairs."""
        return AlbumReader(self._folder, chunk.payload).records()

    def _plan(self, index: int, album: Album) -> Iterator[list[JsonValue]]:
        """Yield an entry for every record of an album, as `AlbumReader` takes it."""
        pairs = spread_pairs(
            len(album.references),
            len(album.photos),
            self.pairs_per_subject,
            is_same=album.references == album.photos,
        )
        for reference, target in pairs:
            caption = album.captions[target] if self.captions == "beside" else ""
            names = (album.references[reference], album.photos[target], caption)
            yield ["pair", index, target, *map(pack_name, names)]
        if not pairs and album.photos:
            yield ["alone", index, pack_name(album.photos[0])]
        for name in album.foreign:
            yield ["foreign", index, pack_name(name)]

    def _told(self, albums: Sequence[Album], plan: Sequence[list[JsonValue]]) -> JsonValue:
        """Say of the albums in a part of the plan what its records need."""
        used = dict.fromkeys(whole(entry[1]) for entry in plan if entry[0] != "row")
        return {
            str(index): {
                "subject": albums[index].subject,
                "class_noun": albums[index].class_noun,
                "name": albums[index].name,
                "metadata": pack_name(albums[index].metadata),
                "prompts": pack_name(albums[index].prompts if self.captions == "prompts" else ""),
                "num_photos": len(albums[index].photos),
            }
            for index in used
        }

    def _albums(self) -> tuple[tuple[Album, ...], tuple[Problem, ...]]:
        if self._folder == self.place:
            names = [file.name for file in self.place.list()]
            return find_albums(names, root=self.place.name), ()
        table = self.place.local_path
        if table is None:
            raise InputError(
                f"CSV of subjects must lie on this machine, got {self.place}; "
                "give the folder of the photos"
            )
        return read_albums(table)

    @property
    def _folder(self) -> Place:
        return self.place.parent if self.place.path.lower().endswith(".csv") else self.place


def _pieces(plan: Sequence[list[JsonValue]], most: int) -> Iterator[list[list[JsonValue]]]:
    """Divide a plan into pieces of at most `most` entries, between albums where that is near."""
    piece: list[list[JsonValue]] = []
    for entry in plan:
        is_new_album = bool(piece) and entry[:2] != [piece[-1][0], piece[-1][1]]
        if len(piece) == most or (is_new_album and 2 * len(piece) >= most):
            yield piece
            piece = []
        piece.append(entry)
    if piece:
        yield piece


def _bad_row(problem: Problem) -> list[JsonValue]:
    return ["row", f"row {problem.row} (line {problem.line})", problem.sentence]
