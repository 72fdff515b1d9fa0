"""Check a corpus again, byte by byte, and name what is wrong: file, and sample where it can be."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from dreambooth3d.artifacts.manifest import MANIFEST_NAME, Manifest
from dreambooth3d.artifacts.pairs import SUMS_NAME, read_index, read_manifest, shards_of
from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.shard import BLANK_NAME, ShardEntry, damaged_samples, index_name
from dreambooth3d.errors import ArtifactError
from dreambooth3d.pairs.publishing import CROISSANT_NAME, PREVIEW_NAME
from dreambooth3d.pairs.refusals import REFUSALS_NAME

_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0]+)")
_BESIDE_SHARDS = frozenset({PREVIEW_NAME, CROISSANT_NAME, REFUSALS_NAME, BLANK_NAME})
_AGAIN = "delete the folder and make the pairs again"


def problems_in(corpus: Place) -> Iterator[str]:
    """Hash every file of a corpus, compare index and manifest; yield one sentence a problem."""
    if not (corpus / MANIFEST_NAME).is_file() and (inside := _corpora_in(corpus)):
        yield (
            f"a corpus must have a {MANIFEST_NAME}, got none in {corpus}, which holds "
            f"{', '.join(inside)}; name one of them"
        )
        return
    try:
        manifest = read_manifest(corpus)
        shards = shards_of(manifest, corpus)
        sums = _read_sums(corpus)
    except ArtifactError as error:
        yield str(error)
        return
    by_tar = {shard.name: shard for shard in shards}
    told = _digests_of(shards)
    for name, digest in sums.items():
        if told.get(name, digest) != digest:
            yield (
                f"line of {name} in {corpus / SUMS_NAME} must have sha256 {told[name]}, as the "
                f"manifest says, got {digest}; {_AGAIN}"
            )
        yield from _file_problems(corpus, name, told.get(name, digest), by_tar.get(name))
    yield from _listing_problems(corpus, shards, sums)
    yield from _index_problems(corpus, shards)
    yield from _total_problems(manifest, shards)


def _corpora_in(folder: Place) -> list[str]:
    """Names of the corpora in a folder of this machine: what people name by mistake."""
    home = folder.local_path
    if home is None or not home.is_dir():
        return []
    return sorted(path.parent.name for path in home.glob(f"[!.]*/{MANIFEST_NAME}"))


def _digests_of(shards: list[ShardEntry]) -> dict[str, str]:
    """What the manifest says of every file it speaks of."""
    return {
        name: digest
        for shard in shards
        for name, digest in (
            (shard.name, shard.sha256),
            (index_name(shard.name), shard.index_sha256),
        )
    }


def _read_sums(corpus: Place) -> dict[str, str]:
    place = corpus / SUMS_NAME
    if not place.is_file():
        raise ArtifactError(f"corpus must have a {SUMS_NAME}, got none in {corpus}; {_AGAIN}")
    sums = {}
    # By line feeds alone: other ends of a line are damage.
    for line in place.read_bytes().decode("utf-8", "replace").removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ArtifactError(
                f"lines of {place} must be a sha256 and a name, got {line!r}; {_AGAIN}"
            )
        sums[match[2]] = match[1]
    return sums


def _file_problems(
    corpus: Place, name: str, digest: str, shard: ShardEntry | None
) -> Iterator[str]:
    path = corpus / name
    if not path.is_file():
        yield f"file {path} must be there, got none; {_AGAIN}"
        return
    found = path.sha256()
    if found == digest:
        return
    where = "" if shard is None else f", damaged {_damage(corpus, shard)}"
    yield f"file {path} must have sha256 {digest}, got {found}{where}; {_AGAIN}"


def _damage(corpus: Place, shard: ShardEntry) -> str:
    """Say which samples of a shard are not what they were."""
    try:
        read_index(corpus, shard)
    except ArtifactError:
        return "somewhere: its index is damaged too"
    index = (corpus / index_name(shard.name)).read_bytes()
    keys = damaged_samples((corpus / shard.name).read_bytes(), index, name=shard.name)
    return f"in {', '.join(keys)}" if keys else "behind its last sample"


def _listing_problems(
    corpus: Place, shards: list[ShardEntry], sums: Mapping[str, str]
) -> Iterator[str]:
    """A file that one list has and another has not."""
    files = {file.name for file in corpus.list()}
    expected = {MANIFEST_NAME} | {n for s in shards for n in (s.name, index_name(s.name))}
    expected |= files & _BESIDE_SHARDS
    for name in sorted(expected - set(sums)):
        yield f"file {name} must be listed in {corpus / SUMS_NAME}, got no line; {_AGAIN}"
    tars = {name for name in sums if name.endswith(".tar")}
    present = {name for name in files if name.endswith(".tar")}
    for name in sorted((tars | present) - {shard.name for shard in shards}):
        yield f"shard {corpus / name} must be in the manifest, got none of that name; remove it"


def _index_problems(corpus: Place, shards: list[ShardEntry]) -> Iterator[str]:
    keys: Counter[str] = Counter()
    for shard in shards:
        try:
            keys.update(key for key, _ in read_index(corpus, shard))
        except ArtifactError as error:
            yield str(error)
    twice = sorted(key for key, count in keys.items() if count > 1)
    if twice:
        yield f"keys of samples must be unique, got {', '.join(twice[:5])} twice; {_AGAIN}"


def _total_problems(manifest: Manifest, shards: list[ShardEntry]) -> Iterator[str]:
    total = sum(shard.num_samples for shard in shards)
    told = manifest.outputs.get("num_samples")
    if told != total:
        yield f"num_samples of the manifest must be {total}, got {told}; {_AGAIN}"
