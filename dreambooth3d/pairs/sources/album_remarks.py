"""What people should know of their photos before any is opened."""

from collections.abc import Iterator, Sequence

from dreambooth3d.artifacts.subject import Problem
from dreambooth3d.pairs.sources.albums import Album
from dreambooth3d.pairs.sources.origin import printable


def remarks_on(albums: Sequence[Album], used: frozenset[str], num_pairs: int) -> Iterator[str]:
    """Tell what the photos give, and what in them gives nothing.

    Args:
        albums: of the source.
        used: names of the photos that are in a pair.
        num_pairs: of all albums.
    """
    pictures = {name for album in albums for name in _pictures_of(album)}
    yield f"objects {len(albums)}, pictures {len(pictures)}, pairs {num_pairs}"
    single = {name for album in albums if len(own := _pictures_of(album)) == 1 for name in own}
    if single:
        yield (
            f"objects with one picture {len(single)}, such as {printable(min(single))}: add "
            "photos, or they count as broken"
        )
    if idle := sorted(pictures - used - single):
        such = printable(idle[0])
        yield f"pictures in no pair {len(idle)}, such as {such}: raise pairs_per_subject"
    if nameless := [album.subject for album in albums if _is_nameless(album)]:
        yield (
            f"objects without name and caption {len(nameless)}, such as {nameless[0]}: name "
            "their folders, or write class_noun in metadata.json, or their pairs count as broken"
        )
    if foreign := [name for album in albums for name in album.foreign]:
        yield (
            f"pictures that are not read {len(foreign)}, such as {printable(foreign[0])}: export "
            "them as JPEG, or they count as broken"
        )
    if clean := [album.subject for album in albums if album.is_clean_only]:
        yield (
            f"objects with clean views alone {len(clean)}, such as {clean[0]}: their targets show "
            "no scene and teach little; add photos"
        )


def remarks_on_rows(problems: Sequence[Problem]) -> Iterator[str]:
    """Tell of rows of a table that give nothing."""
    if problems:
        first = problems[0]
        yield (
            f"problems of rows {len(problems)}, such as row {first.row} (line {first.line}): "
            f"{first.sentence}"
        )


def _pictures_of(album: Album) -> frozenset[str]:
    return frozenset({*album.photos, *album.references})


def _is_nameless(album: Album) -> bool:
    is_named = bool(album.class_noun or album.metadata or album.name)
    return bool(album.photos) and not is_named and not all(album.captions)
