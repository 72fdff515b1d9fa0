"""What an object is called when nobody says it: the name of its file or folder, as a noun."""

import posixpath
import re
import unicodedata

from dreambooth3d.pairs import letters

_MAX_NAME = 60
# Names that tools and cameras give say nothing; the folder's name does.
_SAYS_NOTHING = frozenset(
    {"3d", "export", "file", "glb", "gltf", "mesh", "model", "obj", "object", "scene", "source"}
    | {"capture", "captures", "dcim", "dsc", "folder", "image", "images", "img", "new", "photo"}
    | {"photos", "pic", "pics", "picture", "pictures", "pxl", "references", "subject", "subjects"}
    | {"texture", "textured", "untitled"}
)
_SERIAL = re.compile(r"v?\d+|[a-z]")
_CAMEL = re.compile(r"(?<=[a-z][a-z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)")


def name_of_file(file: str) -> str:
    """Make a name of a path, as in `lamps/table_lamp-02.glb`: table lamp."""
    return name_of_folder(posixpath.splitext(file)[0])


def name_of_folder(path: str) -> str:
    """The same of a folder, whose name has no ending: `Dr. Pepper can`."""
    folder, name = posixpath.split(path)
    cleaned = clean_name(_without_serial(name))
    if cleaned or not folder:
        return cleaned
    return name_of_folder(folder)


def clean_name(text: str) -> str:
    """Bring a name into the form of a noun in a sentence; at most 60 characters."""
    words = one_line(text).replace("_", " ").split()
    # TV, iPhone and VW keep their letters; Table Lamp does not.
    lowered = [word.lower() if word[1:].islower() or len(word) == 1 else word for word in words]
    return " ".join(lowered)[:_MAX_NAME].strip(" -.,;")


def one_line(text: str) -> str:
    """Return the letters people see in their usual form, NFKC; between words one space."""
    seen = letters.one_line(unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", seen)


def _without_serial(stem: str) -> str:
    words = re.split(r"[\s_\-.]+", _CAMEL.sub(" ", one_line(stem)))
    kept = [word for word in words if word and not _SERIAL.fullmatch(word.lower())]
    if all(word.lower() in _SAYS_NOTHING for word in kept):
        return ""
    return " ".join(kept)
