"""A subject: the photos of one object, and how it is named in prompts.

On disk, in the layout of the benchmark::

    <id>/images/001.jpeg ..      captures, in order
    <id>/references/001.png ..   background-free views on white
    <id>/prompt.txt              one prompt a line, "a video of a [sks mug] on a desk"
    <id>/metadata.json           id, class_noun, trigger, sha256 of every picture, free notes

A folder with ``references/`` alone is a subject too: the views then serve as captures as well.
Many subjects come as a table, see `artifacts.catalogue`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dreambooth3d.artifacts.image import flatten, list_images, read_image
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json, write_json
from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.artifacts.prompt import PromptParts as PromptParts
from dreambooth3d.artifacts.prompt import check_text
from dreambooth3d.artifacts.prompt import parse_prompt as parse_prompt
from dreambooth3d.errors import ImageError, InputError

DEFAULT_TRIGGER = "sks"

_ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_SEED = 2**63 - 1
# Longer words do not fit a prompt of the backbone, and name nothing.
_MOST_LETTERS = 100


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing a user has to correct.

    Attributes:
        row: Data row of the catalogue, the first is 1; None when it is not about a row.
        line: Line in the file, the header is usually 1; None when it is not about a row.
        field: Column, or field of `Subject`.
        sentence: What must hold, what was found, what to do.
    """

    row: int | None = None
    line: int | None = None
    field: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One object to personalise.

    Attributes:
        id: Becomes a folder name: letters, digits, ``_ . -``, at most 64.
        class_noun: What it is, "rubber duck".
        images: Captures, in order.
        references: Background-free views on white, in order; may be empty.
        trigger: The word that stands for this one object.
        prompts: Clips to make; each may mark "[trigger class_noun]" in brackets.
        steps: Updates to train; None for the stage's default.
        seed: 0 to 2**63 - 1; None for the stage's default.
        priority: Subjects with a higher one are trained first; no part of what is learned.
    """

    id: str
    class_noun: str
    images: tuple[Path, ...]
    references: tuple[Path, ...]
    trigger: str = DEFAULT_TRIGGER
    prompts: tuple[str, ...] = ()
    steps: int | None = None
    seed: int | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        check_id(self.id)
        check_words("class_noun", self.class_noun)
        check_words("trigger", self.trigger)
        if not self.images:
            raise InputError(f"images of {self.id} must not be empty, got none; add photos")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps must be a whole number above 0, got {self.steps}; correct it")
        if self.seed is not None and not 0 <= self.seed <= _MAX_SEED:
            raise InputError(f"seed must be 0 to {_MAX_SEED}, got {self.seed}; correct it")
        for prompt in self.prompts:
            parse_prompt(prompt, class_noun=self.class_noun, trigger=self.trigger)


def is_id(value: str) -> bool:
    """Whether `value` can name a folder, and so a subject."""
    return _ID_FORM.fullmatch(value) is not None


def check_id(value: str) -> None:
    """Raise an `InputError` unless `value` can name a folder."""
    if not is_id(value):
        raise InputError(
            "subject must be 1 to 64 letters, digits, '_', '.' and '-', starting with a letter or "
            f"digit (it names a folder), got {value!r}; rename it"
        )


def check_words(field: str, value: str) -> None:
    """Raise an `InputError` unless `value` can stand inside prompt brackets."""
    if not value.strip() or set("[]|\n") & set(value):
        raise InputError(
            f"{field} must be words without brackets, got {value!r}; write it as in 'rubber duck'"
        )
    if len(value) > _MOST_LETTERS:
        raise InputError(
            f"{field} must have at most {_MOST_LETTERS} letters, got {len(value)}; "
            "say only what the object is"
        )
    check_text(field, value)


def check_images(subject: Subject) -> tuple[Problem, ...]:
    """Decode every picture of `subject` once and report each bad one by name."""
    problems: list[Problem] = []
    for column, paths in (("images", subject.images), ("references", subject.references)):
        for path in paths:
            if column == "references" and path in subject.images:
                continue
            try:
                read_image(path)
            except ImageError as error:
                problems.append(Problem(field=column, sentence=f"{subject.id}: {error}"))
    return tuple(problems)


def find_views(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return (images, references) of a folder of pictures or of a whole subject folder.

    `folder` may hold the pictures itself, or ``images/``, or only ``references/``. References are
    those of the sibling ``references/``; a folder of that name serves as both.
    """
    for home in (folder, folder / "images", folder / "references"):
        if images := list_images(home):
            return images, list_images(home.parent / "references")
    return (), ()


def read_subject(folder: Path) -> Subject:
    """Read one subject in the layout of the benchmark.

    ``prompt.txt`` may be absent. Without a trigger in ``metadata.json`` the first bracket of the
    prompts tells it, else it is "sks".
    """
    metadata = read_json(folder / "metadata.json", what="subject metadata")
    class_noun = metadata.get("class_noun")
    if not isinstance(class_noun, str):
        raise InputError(
            f"class_noun must be words, got {class_noun!r} in {folder / 'metadata.json'}; add it"
        )
    images, references = find_views(folder)
    if not images:
        raise InputError(
            f"subject must have pictures in images/ or references/, got none in {folder}; add them"
        )
    prompts = _read_prompts(folder / "prompt.txt")
    trigger = metadata.get("trigger") or _trigger_in(prompts, class_noun)
    return Subject(
        id=str(metadata.get("id") or folder.name),
        class_noun=class_noun,
        images=images,
        references=references,
        trigger=str(trigger),
        prompts=prompts,
    )


def write_subject(
    folder: Path,
    *,
    id: str,
    class_noun: str,
    images: Sequence[Image.Image],
    references: Sequence[Image.Image],
    trigger: str = DEFAULT_TRIGGER,
    prompts: Sequence[str] = (),
    notes: dict[str, JsonValue] | None = None,
) -> Subject:
    """Write one subject in the layout of the benchmark, pictures as PNG, and return it as read.

    Args:
        folder: A fresh folder; wrap in `publish` so that it appears in one step.
        id: Subject id.
        class_noun: What it is.
        images: Captures, in order.
        references: Background-free views; transparency is laid on white.
        trigger: The word that stands for it.
        prompts: One line each.
        notes: More fields for ``metadata.json``, such as licence and source.
    """
    hashes: dict[str, JsonValue] = {}
    for name, views in (("images", images), ("references", references)):
        for number, view in enumerate(views, start=1):
            path = folder / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            flatten(view).save(path, format="PNG")
            hashes[f"{name}/{path.name}"] = content_hash(path)
    (folder / "prompt.txt").write_text("".join(f"{line}\n" for line in prompts), encoding="utf-8")
    known: dict[str, JsonValue] = {
        "id": id,
        "class_noun": class_noun,
        "trigger": trigger,
        "sha256": hashes,
    }
    write_json(folder / "metadata.json", (notes or {}) | known)
    return read_subject(folder)


def _read_prompts(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"prompts must be UTF-8, got {path} ({error}); save it as UTF-8"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def _trigger_in(prompts: Sequence[str], class_noun: str) -> str:
    spans = (parse_prompt(prompt, class_noun=class_noun).span for prompt in prompts)
    for span in filter(None, spans):
        return " ".join(span.split()[: -len(class_noun.split())])
    return DEFAULT_TRIGGER
