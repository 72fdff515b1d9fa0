"""What a model is called and whose it is: a CSV, a furniture catalogue in its zip, or file names.

| where                                                   | gives                                  |
|---------------------------------------------------------|----------------------------------------|
| `catalogue.csv`: columns file, name, licence,           | for the files it lists                 |
| attribution (the last three optional)                   |                                        |
| `PluginFurnitureCatalog.properties` in a zip (Latin-1)  | name, creator, licence, rotation       |
| the file's name                                         | a name, cleaned                        |
"""

import hashlib
import math
import posixpath
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dreambooth3d.artifacts.place import Place
from dreambooth3d.artifacts.table import read_table
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.mesh_files import Files, ModelFile
from dreambooth3d.pairs.nouns import clean_name, name_of_file, one_line

CATALOGUE = "catalogue.csv"
PROPERTIES = "PluginFurnitureCatalog.properties"

_MAX_PROPERTIES_BYTES = 16_000_000
_MAX_SLUG = 60
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NUMBERED = re.compile(r"([A-Za-z]+)#(\d{1,6})\s*[=:]\s*(.*)")
_PLAIN = re.compile(r"([A-Za-z]+)\s*[=:]\s*(.*)")
# All that a licence may be called; the texts are those of published catalogues.
_ZERO = r"cc[- ]?0(?:[- ]1\.0)?(?: universal)?(?: \(cc0 1\.0\))?(?: public domain dedication)?"
_BY = r"(?:cc[- ]by|(?:creative commons )?attribution)[- ]"
_SPDX = {
    "CC0-1.0": rf"{_ZERO}|(?:creative commons )?public domain dedication",
    "CC-BY-3.0-US": rf"{_BY}3\.0(?: united states|-us)",
    "CC-BY-3.0": rf"{_BY}3\.0(?: unported)?(?: \(cc by 3\.0\))?",
    "CC-BY-4.0": rf"{_BY}4\.0(?: international)?(?: \(cc by 4\.0\))?",
}
# A holder may be named behind the licence; further terms may not.
_WHOLE = r"(?:{name})(?: licen[sc]e)?(?P<holder>[.,]? ?(?:copyright|\(c\)|©).*)?"
_FORMS = {
    name: re.compile(_WHOLE.format(name=words), re.IGNORECASE) for name, words in _SPDX.items()
}
_TERMS = re.compile(
    r";|\b(?:nc|nd|sa|gpl|non-? ?commercial\w*|no-? ?deriv\w*|share-? ?alike|licen[sc]e\w*"
    r"|textures?|except|only|personal|research|rights)\b",
    re.IGNORECASE,
)
_NAMED_ZERO = re.compile(r"[\w ]*\bcc-?0", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one model before it is opened.

    Attributes:
        name: of the object, in lower case; empty when nothing tells.
        licence: SPDX name, or the licence's own words, or empty.
        attribution: who must be named, or empty.
        rotation: rows (9,) of the matrix that puts the model upright; empty for none.
    """

    name: str
    licence: str = ""
    attribution: str = ""
    rotation: tuple[float, ...] = ()


def subject_of(entry: Entry, model: ModelFile) -> str:
    """Name the subject: one for all models of a name, since a catalogue repeats its names."""
    folded = unicodedata.normalize("NFKC", entry.name).casefold()
    slug = re.sub(r"[^a-z0-9]+", "-", folded).strip("-")
    if slug and re.fullmatch(r"[a-z0-9 '-]+", folded):
        return slug[:_MAX_SLUG]
    # Other scripts leave nothing of the name, and no name at all leaves the file.
    digest = hashlib.sha256((folded or model.origin).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug[:40]}-{digest[:12]}".lstrip("-")


def read_catalogue(place: Place) -> dict[str, Entry]:
    """Read the CSV of a source, by file name relative to the place; empty when there is none.

    Raises:
        InputError: it is not such a table, or names a file twice.
    """
    source = place / CATALOGUE
    if not source.exists():
        return {}
    columns, rows = _table(source)
    entries: dict[str, Entry] = {}
    for line, cells in rows:
        row = dict(zip(columns, cells, strict=False))
        file = posixpath.normpath(row["file"].replace("\\", "/"))
        if file in entries:
            raise InputError(
                f"files in a catalogue must differ, got {file!r} again in line {line} of {source}; "
                "remove one"
            )
        entries[file] = Entry(
            name=clean_name(row.get("name", "")) or name_of_file(file),
            licence=spdx(row.get("licence", "")),
            attribution=one_line(row.get("attribution", "")),
        )
    return entries


def _table(source: Place) -> tuple[list[str], list[tuple[int, list[str]]]]:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / CATALOGUE
        copy.write_bytes(source.read_bytes())
        try:
            return read_table(
                copy,
                what="catalogue of meshes",
                required=("file",),
                optional=("name", "licence", "attribution"),
            )
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(source))) from error


def read_properties(files: Files) -> dict[str, Entry]:
    """Read the furniture catalogue of a zip, by member; empty when it holds none.

    Raises:
        RefusedError: it cannot be unpacked.
    """
    if PROPERTIES not in files.names():
        return {}
    text = files.read(PROPERTIES, _MAX_PROPERTIES_BYTES).decode("latin-1")
    header: dict[str, str] = {}
    numbered: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        if match := _NUMBERED.fullmatch(line.strip()):
            numbered.setdefault(int(match[2]), {})[match[1]] = _unescape(match[3])
        elif match := _PLAIN.fullmatch(line.strip()):
            header[match[1]] = _unescape(match[2])
    return {
        row["model"].lstrip("/"): _furniture(row, header)
        for _, row in sorted(numbered.items())
        if row.get("model")
    }


def entry_of(
    model: ModelFile, catalogue: Mapping[str, Entry], properties: Mapping[str, Entry]
) -> Entry:
    """Say what is known of a model; the user's own table goes before the zip's."""
    for entry in (catalogue.get(model.origin), properties.get(model.name)):
        if entry is not None:
            return entry
    return Entry(name=name_of_file(model.name))


def spdx(text: str) -> str:
    """Name a licence by its SPDX name where its words say that and no more; else keep the words."""
    words = one_line(text)
    found = ((name, form.fullmatch(words)) for name, form in _FORMS.items())
    named = (name for name, match in found if match and not _TERMS.search(match["holder"] or ""))
    return next(named, words)


def _furniture(row: Mapping[str, str], header: Mapping[str, str]) -> Entry:
    catalogue, provider = header.get("name", ""), header.get("provider", "")
    makers = [row.get("name", ""), f"by {row['creator']}" if row.get("creator") else ""]
    credit = [" ".join(word for word in makers if word), catalogue, provider]
    licence = spdx(header.get("license", ""))
    # One catalogue says "Public domain" in its licence and CC-0 in its name.
    is_zero = _NAMED_ZERO.fullmatch(catalogue) and not _TERMS.search(catalogue)
    if licence.lower() == "public domain" and is_zero:
        licence = "CC0-1.0"
    return Entry(
        name=clean_name(row.get("name", "")),
        licence=licence,
        attribution=one_line(", ".join(part for part in credit if part)),
        rotation=_rotation(row.get("modelRotation", "")),
    )


def _rotation(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split())
    except ValueError:
        numbers = (math.nan,)
    # Of one number no matrix can be made: the model is refused for it when it is read.
    return numbers if all(map(math.isfinite, numbers)) else (0.0,)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).strip()
