"""On which side of a split the shards of a corpus are: as the manifest beside them says.

Samples of today's corpora say it themselves; for older ones the manifest is all there is.
"""

from collections.abc import Iterable

from dreambooth3d.artifacts.jsonfile import parse_json
from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.artifacts.pairs import shards_of
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.sources.listing import read_or_refuse

_MOST_BYTES = 1 << 28
_OURS = frozenset({"stage", "outputs"})


def read_splits(folder: Place, tars: Iterable[str]) -> dict[str, str]:
    """Return the split of every tar that a manifest of pairs names, by its relative name.

    Tars of a corpus that was never split are left out: their `train` is no choice of anybody. A
    `manifest.json` of another tool is passed over.

    Args:
        folder: of the source.
        tars: names relative to it.

    Raises:
        ArtifactError: a manifest is damaged: held-out samples would be taken for others.
        InputError: a manifest cannot be read.
    """
    names = frozenset(tars)
    return {
        f"{below}{shard}": split
        for below in _homes(names)
        for shard, split in _splits_of(folder / f"{below}{MANIFEST_NAME}").items()
        if f"{below}{shard}" in names
    }


def unlisted_tars(folder: Place, tars: Iterable[str]) -> list[str]:
    """Return the tars beside a manifest of split pairs that it does not name, as `read_splits`."""
    names = frozenset(tars)
    unlisted: list[str] = []
    for below in _homes(names):
        listed = _splits_of(folder / f"{below}{MANIFEST_NAME}")
        own = {name for name in names if name.rpartition("/")[0] == below.removesuffix("/")}
        if listed:
            unlisted += sorted(own - {f"{below}{shard}" for shard in listed})
    return unlisted


def _homes(names: Iterable[str]) -> list[str]:
    """Folders of tars, with their final ``/``, or nothing."""
    return sorted({name[: name.rfind("/") + 1] for name in names})


def _splits_of(place: Place) -> dict[str, str]:
    if not place.is_file():
        return {}
    data = read_or_refuse(place, reason="bad_member", most_bytes=_MOST_BYTES)
    try:
        found = parse_json(data, what="manifest", name=str(place))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"manifest must be valid JSON, got a damaged file {place} ({error}); copy it again"
        ) from error
    if _OURS.isdisjoint(found):
        return {}
    manifest = Manifest.from_json(found, name=str(place))
    if manifest.config.get("held_out_share") == 0:
        return {}
    return {shard.name: shard.split for shard in shards_of(manifest, place)}
