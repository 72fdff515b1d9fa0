"""The benchmark's folders: subjects, and clips that say which of them they show.

::

    SUBJECTS/<id>/{references/001.png.., images/.., prompt.txt, metadata.json}
    CLIPS/<id>.mp4                     named after the subject
    CLIPS/<id>/anything.mp4            in a folder named after it
    CLIPS/anything.mp4(.json)          with "subject": "<id>" in a JSON file beside it

A clip's prompt is "prompt" of that JSON file, else of the comment in the clip, else the only line
of its subject's prompt.txt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth3d.artifacts.clip import read_clip_metadata
from dreambooth3d.artifacts.image import natural_order
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json
from dreambooth3d.artifacts.prompt import check_text, plain_text
from dreambooth3d.artifacts.subject import Subject, read_subject
from dreambooth3d.errors import ArtifactError, InputError

_CLIP_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class BenchmarkClip:
    """A clip and the subject it should show.

    Attributes:
        path: of the file.
        subject: id.
        prompt: what it should show, without brackets and trigger; None where nothing says it.
    """

    path: Path
    subject: str
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What is scored.

    Attributes:
        subjects: by id.
        clips: in the order of their subjects and names.
        without_subject: clips that name no subject of the benchmark.
        without_clip: ids of subjects that no clip shows.
    """

    subjects: Mapping[str, Subject]
    clips: tuple[BenchmarkClip, ...]
    without_subject: tuple[Path, ...]
    without_clip: tuple[str, ...]


def read_benchmark(subjects: Path, clips: Path) -> Benchmark:
    """Read both folders.

    Raises:
        InputError: a folder is absent, a subject cannot be used, or no clip names a subject.
        ArtifactError: a JSON file is damaged.
    """
    found = read_benchmark_subjects(subjects)
    if not clips.is_dir():
        there = "a file" if clips.exists() else "nothing"
        raise InputError(f"--clips must be a folder, got {there} at {clips}; check the path")
    paths = sorted((p for p in clips.rglob("*") if _is_clip(p, clips)), key=natural_order)
    if not paths:
        raise InputError(
            f"--clips must hold clips ({', '.join(_CLIP_SUFFIXES)}), got none in {clips}; "
            "make some with pipelines/generate.py or copy them there"
        )
    named = {path: _subject_of(path, clips, found) for path in paths}
    chosen = [
        BenchmarkClip(path=path, subject=name, prompt=_prompt_of(path, found[name]))
        for path, name in named.items()
        if name is not None
    ]
    unknown = tuple(path for path, name in named.items() if name is None)
    if not chosen:
        raise InputError(
            f"clips must say which subject they show, got {list_names(unknown)} and subjects "
            f"{', '.join(found)}; name a clip <subject>.mp4, put it into a folder <subject>/, or "
            'write {"subject": "<subject>"} into <clip>.mp4.json'
        )
    chosen.sort(key=lambda clip: (clip.subject, natural_order(clip.path)))
    shown = {clip.subject for clip in chosen}
    return Benchmark(
        subjects=found,
        clips=tuple(chosen),
        without_subject=unknown,
        without_clip=tuple(name for name in found if name not in shown),
    )


def read_benchmark_subjects(folder: Path) -> dict[str, Subject]:
    """Read the subjects alone, by id.

    Raises:
        InputError: the folder is absent or holds none, or one has no views.
        ArtifactError: a JSON file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"--subjects must be a folder, got nothing at {folder}; check the path")
    # The published archive has everything one level down.
    home = folder / "subjects" if (folder / "subjects").is_dir() else folder
    found: dict[str, Subject] = {}
    for place in sorted(home.iterdir(), key=natural_order):
        if not (place / "metadata.json").is_file():
            continue
        subject = read_subject(place)
        if not subject.references:
            raise InputError(
                f"subject {subject.id} must have background-free views, got no pictures in "
                f"{place / 'references'}; add them"
            )
        found[subject.id] = subject
    if not found:
        raise InputError(
            "--subjects must hold folders <id>/ with metadata.json and references/, "
            f"got none in {folder}; pass the benchmark's folder"
        )
    return found


def _is_clip(path: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in _CLIP_SUFFIXES and path.is_file() and not is_hidden


def _subject_of(path: Path, root: Path, subjects: Mapping[str, Subject]) -> str | None:
    """Ask the JSON file, then the folder, then the name; None where none knows."""
    for description in _beside(path):
        said = description.get("subject")
        if isinstance(said, str):
            # A name that is written down is meant, also when it is of no subject here.
            return said if said in subjects else None
    folders = path.relative_to(root).parts[:-1]
    for name in (*reversed(folders), path.stem):
        if name in subjects:
            return name
    return None


def _prompt_of(path: Path, subject: Subject) -> str | None:
    """Ask the JSON file, then the clip, then the subject's only prompt."""
    for description in (*_beside(path), _comment_in(path)):
        if text := _as_text(description.get("prompt"), subject):
            return text
    return _as_text(subject.prompts[0], subject) if len(subject.prompts) == 1 else None


def _beside(path: Path) -> list[dict[str, JsonValue]]:
    places = (path.with_name(path.name + ".json"), path.with_suffix(".json"))
    return [read_json(p, what="description of a clip") for p in places if p.is_file()]


def _comment_in(path: Path) -> dict[str, JsonValue]:
    """What the clip says itself; others' clips say anything, or cannot be read."""
    try:
        return read_clip_metadata(path)
    except ArtifactError:
        return {}


def _as_text(said: JsonValue, subject: Subject) -> str | None:
    if not isinstance(said, str):
        return None
    try:
        check_text("prompt", said)
    except InputError:
        return None
    return plain_text(said, class_noun=subject.class_noun, trigger=subject.trigger) or None


def list_names(paths: Sequence[Path]) -> str:
    """Name the first few files and count the others."""
    shown = ", ".join(path.name for path in paths[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"
