"""Turn a part of the plan of `captures` into records."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.artifacts.place import Place
from dreambooth3d.pairs.records import RawPair, Record, Rejected
from dreambooth3d.pairs.sources.album_notes import (
    AlbumNotes,
    read_caption,
    read_notes,
    read_prompts,
)
from dreambooth3d.pairs.sources.chunking import record, rows, unpack_name, whole, words
from dreambooth3d.pairs.sources.listing import locate, read_or_refuse
from dreambooth3d.pairs.sources.origin import printable
from dreambooth3d.vision.refusal import RefusedError

_MOST_PHOTO_BYTES = 100_000_000
# A photo serves several pairs of a chunk; another store would send it each time.
_PHOTOS_KEPT = 8


class AlbumReader:
    """Reads the entries of one chunk; photos that come again are kept for a while.

    Entries are ``pair, album, number of the target, reference, target, caption file``,
    ``alone, album, photo``, ``foreign, album, file`` and ``row, origin, sentence``.
    """

    def __init__(self, folder: Place, payload: Mapping[str, JsonValue]) -> None:
        self._folder = folder
        self._first = whole(payload["first"])
        self._entries = rows(payload["entries"])
        self._albums = record(payload["albums"])
        self._photo = lru_cache(maxsize=_PHOTOS_KEPT)(self._read_photo)
        self._notes = lru_cache(maxsize=_PHOTOS_KEPT)(self._read_notes)
        self._prompts = lru_cache(maxsize=_PHOTOS_KEPT)(self._read_prompts)

    def records(self) -> Iterator[Record]:
        """Yield a record for every entry, in order."""
        for number, entry in enumerate(self._entries, start=self._first):
            key = f"{number:08d}"
            match entry:
                case ["pair", int(album), int(target), *names]:
                    yield self._pair(key, album, target, [unpack_name(name) for name in names])
                case ["alone", int(album), photo]:
                    yield self._alone(key, album, unpack_name(photo))
                case ["foreign", int(album), name]:
                    yield self._foreign(key, album, unpack_name(name))
                case _:
                    yield Rejected(
                        key=key,
                        origin=words(entry[1]),
                        reason="bad_row",
                        sentence=words(entry[2]),
                    )

    def _pair(self, key: str, album: int, number: int, names: list[str]) -> Record:
        reference, target, caption = names
        origin = f"{printable(target)}, reference {printable(reference)}"
        told = self._told(album)
        try:
            notes = self._notes(album)
            text = read_caption(self._place(caption)) if caption else ""
            prompts = self._prompts(album)
            return RawPair(
                key=key,
                reference=self._photo(reference),
                target=self._photo(target),
                subject=words(told["subject"]),
                origin=origin,
                caption=prompts[number] if prompts else text,
                class_noun=words(told["class_noun"]) or notes.class_noun or words(told["name"]),
                meta=_meta(reference, target, notes),
                licence=notes.licence,
                attribution=notes.attribution,
                aliases=(notes.id,) if notes.id else (),
            )
        except RefusedError as error:
            return self._rejected(key, album, origin, error)

    def _alone(self, key: str, album: int, photo: str) -> Rejected:
        refused = RefusedError(
            "missing_member",
            f"subject {self._told(album)['subject']} must have two pictures to make a pair of, "
            "got one; add photos",
        )
        return self._rejected(key, album, printable(photo), refused)

    def _foreign(self, key: str, album: int, name: str) -> Rejected:
        refused = RefusedError(
            "unsupported_picture",
            f"picture must be JPEG, PNG, WebP, GIF, BMP or TIFF, got {printable(name)}; "
            "export it as JPEG",
        )
        return self._rejected(key, album, printable(name), refused)

    def _rejected(self, key: str, album: int, origin: str, refused: RefusedError) -> Rejected:
        return Rejected(
            key=key,
            origin=origin,
            reason=refused.reason,
            sentence=str(refused),
            subject=words(self._told(album)["subject"]),
        )

    def _told(self, album: int) -> dict[str, JsonValue]:
        return record(self._albums[str(album)])

    def _place(self, name: str) -> Place:
        return locate(self._folder, name)

    def _read_photo(self, name: str) -> bytes:
        return read_or_refuse(
            self._place(name), reason="unreadable_picture", most_bytes=_MOST_PHOTO_BYTES
        )

    def _read_notes(self, album: int) -> AlbumNotes:
        name = unpack_name(self._told(album)["metadata"])
        return read_notes(self._place(name)) if name else AlbumNotes()

    def _read_prompts(self, album: int) -> tuple[str, ...]:
        told = self._told(album)
        name = unpack_name(told["prompts"])
        if not name:
            return ()
        return read_prompts(
            self._place(name),
            num_photos=whole(told["num_photos"]),
            class_noun=words(told["class_noun"]) or self._notes(album).class_noun,
        )


def _meta(reference: str, target: str, notes: AlbumNotes) -> dict[str, JsonValue]:
    meta: dict[str, JsonValue] = {
        "source": "captures",
        "reference_file": printable(reference),
        "target_file": printable(target),
    }
    return meta | ({"subject_id": notes.id} if notes.id else {})
