"""A corpus as data set tools know it: Croissant 1.0 of MLCommons, one JSON-LD document.

A shard is a file, all members of one extension are a file set, and each file set is read as records
of a key and a content: the key is what a member's name begins with, and joins the record sets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.errors import ConfigError

_FORMAT = "http://mlcommons.org/croissant/1.0"
# The context of the specification, section "Croissant namespace"; readers compare it as a whole.
_CONTEXT: dict[str, JsonValue] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SPDX = re.compile(r"(?!LicenseRef-)[A-Za-z0-9][A-Za-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A shard beside the document.

    Attributes:
        name: file name.
        sha256: of the whole file, hex.
        num_bytes: size of the file.
    """

    name: str
    sha256: str
    num_bytes: int

    def __post_init__(self) -> None:
        if not self.name.endswith(".tar") or "/" in self.name:
            raise ConfigError(f"shard must be named <name>.tar, got {self.name!r}; rename it")
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(
                f"sha256 of shard {self.name} must be 64 hex digits, got {self.sha256!r}; hash it"
            )


@dataclass(frozen=True, kw_only=True)
class _Member:
    """What samples have under one extension."""

    name: str
    extension: str
    media_type: str
    content: str
    data_type: str
    description: str


_MEMBERS = (
    _Member(
        name="references",
        extension="reference.png",
        media_type="image/png",
        content="picture",
        data_type="sc:ImageObject",
        description="The object on white.",
    ),
    _Member(
        name="targets",
        extension="target.jpg",
        media_type="image/jpeg",
        content="picture",
        data_type="sc:ImageObject",
        description="The same object in a scene.",
    ),
    _Member(
        name="captions",
        extension="txt",
        media_type="text/plain",
        content="text",
        data_type="sc:Text",
        description="What the target shows, UTF-8.",
    ),
    _Member(
        name="metas",
        extension="json",
        media_type="application/json",
        content="json",
        data_type="sc:Text",
        description="Where a sample comes from: source, subject, licence, attribution; JSON.",
    ),
)
_LATENTS = _Member(
    name="latents",
    extension="latents.safetensors",
    media_type="application/octet-stream",
    content="tensors",
    data_type="sc:Text",
    description="The pair as a backbone encodes it, safetensors.",
)


def croissant(
    *,
    name: str,
    description: str,
    shards: Sequence[ShardFile],
    licences: Sequence[str] = (),
    key: str = "",
    has_latents: bool = False,
    creators: Sequence[str] = (),
    keywords: Sequence[str] = (),
    url: str = "",
    date_published: str = "",
) -> dict[str, JsonValue]:
    """Describe a corpus of pair shards.

    Args:
        name: of the corpus.
        description: for people who look for data.
        shards: all of them, in order; the document lies beside them.
        licences: SPDX names, or other text, of the pictures inside.
        key: the artifact key of the corpus; becomes part of its version.
        has_latents: whether samples have encoded latents.
        creators: who must be named.
        keywords: to be found by.
        url: a page about it, where there is one.
        date_published: ISO date; left out when empty, since no clock is asked.
    """
    if not shards:
        raise ConfigError("a described corpus must have a shard, got none; make pairs first")
    members = (*_MEMBERS, _LATENTS) if has_latents else _MEMBERS
    names = [shard.name for shard in shards]
    said: dict[str, JsonValue] = {
        "license": [_licence(text) for text in sorted(set(filter(None, licences)))],
        "creator": [{"@type": "sc:Organization", "name": who} for who in sorted(set(creators))],
        "keywords": list(keywords),
        "url": url,
        "datePublished": date_published,
    }
    return {
        **_head(name, description, key),
        **{term: value for term, value in said.items() if value},
        "distribution": [*map(_file_object, shards), *[_file_set(m, names) for m in members]],
        "recordSet": [_record_set(member) for member in members],
    }


def _head(name: str, description: str, key: str) -> dict[str, JsonValue]:
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _FORMAT,
        "name": name,
        "description": description,
        "version": f"1.0.0+{key}" if key else "1.0.0",
        "isLiveDataset": False,
    }


def _licence(text: str) -> str:
    return f"https://spdx.org/licenses/{text}.html" if _SPDX.fullmatch(text) else text


def _file_object(shard: ShardFile) -> JsonValue:
    return {
        "@type": "cr:FileObject",
        "@id": shard.name,
        "name": shard.name,
        "contentUrl": shard.name,
        "contentSize": f"{shard.num_bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _file_set(member: _Member, shards: Sequence[str]) -> JsonValue:
    return {
        "@type": "cr:FileSet",
        "@id": f"{member.name}-files",
        "name": f"{member.name}-files",
        "description": member.description,
        "containedIn": [{"@id": shard} for shard in shards],
        "encodingFormat": member.media_type,
        "includes": f"*.{member.extension}",
    }


def _record_set(member: _Member) -> JsonValue:
    key = f"{member.name}/key"
    found = re.escape(member.extension)
    return {
        "@type": "cr:RecordSet",
        "@id": member.name,
        "name": member.name,
        "description": member.description,
        "key": {"@id": key},
        "field": [
            {
                "@type": "cr:Field",
                "@id": key,
                "name": "key",
                "description": "Of the sample; the same in every record set.",
                "dataType": "sc:Text",
                "source": {
                    "fileSet": {"@id": f"{member.name}-files"},
                    "extract": {"fileProperty": "filename"},
                    "transform": {"regex": rf"^(.+?)\.{found}$"},
                },
            },
            {
                "@type": "cr:Field",
                "@id": f"{member.name}/{member.content}",
                "name": member.content,
                "description": member.description,
                "dataType": member.data_type,
                "source": {
                    "fileSet": {"@id": f"{member.name}-files"},
                    "extract": {"fileProperty": "content"},
                },
            },
        ],
    }
