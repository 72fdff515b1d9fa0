"""The benchmark's folders: subjects, and clips that say which of them they show.

::

    SUBJECTS/<id>/{references/001.png.., images/.., prompt.txt, metadata.json}
    CLIPS/<id>.mp4                     named after the subject
    CLIPS/<id>/anything.mp4            in a folder named after it
    CLIPS/anything.mp4(.json)          with "subject": "<id>" in a JSON file beside it

A clip's prompt is "prompt" of that JSON file, else of the comment in the clip, else the only line
of its subject's prompt.txt.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreambooth3d.artifacts.clip import read_clip_metadata
from dreambooth3d.artifacts.image import flatten, natural_order, read_image
from dreambooth3d.artifacts.jsonfile import JsonValue, read_json
from dreambooth3d.artifacts.prompt import check_text, plain_text
from dreambooth3d.artifacts.subject import Subject, read_subject
from dreambooth3d.errors import ArtifactError, InputError

_CLIP_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv")
_SHOWN = 3
_LEAST_SIDE = 16


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
        refused: names of folders and clips that cannot be used, with the reason.
    """

    subjects: Mapping[str, Subject]
    clips: tuple[BenchmarkClip, ...]
    without_subject: tuple[Path, ...]
    without_clip: tuple[str, ...]
    refused: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSubjects:
    """What is in a folder of subjects.

    Attributes:
        usable: by id.
        refused: names of folders that cannot be used, with the reason.
    """

    usable: Mapping[str, Subject]
    refused: Mapping[str, str]


def read_benchmark(subjects: Path, clips: Path) -> Benchmark:
    """Read both folders; what cannot be used costs itself alone.

    Raises:
        InputError: a folder is absent, no subject can be used, or no clip names one.
    """
    of_subjects = read_benchmark_subjects(subjects)
    found, refused = of_subjects.usable, dict(of_subjects.refused)
    if not clips.is_dir():
        there = "a file" if clips.exists() else "nothing"
        raise InputError(f"--clips must be a folder, got {there} at {clips}; check the path")
    paths = sorted((p for p in clips.rglob("*") if _is_clip(p, clips)), key=natural_order)
    if not paths:
        raise InputError(
            f"--clips must hold clips ({', '.join(_CLIP_SUFFIXES)}), got none in {clips}; "
            "make some with pipelines/generate.py or copy them there"
        )
    chosen, unknown = list[BenchmarkClip](), list[Path]()
    for path in paths:
        try:
            clip = _read_clip(path, clips, of_subjects)
        except (ArtifactError, InputError) as error:
            refused[path.relative_to(clips).as_posix()] = str(error)
            continue
        if clip is None:
            unknown.append(path)
        else:
            chosen.append(clip)
    if not chosen:
        raise InputError(
            f"clips must say which subject they show, got {list_names(paths)}{_first(refused)} and "
            f"subjects {', '.join(found)}; name a clip <subject>.mp4, put it into a folder "
            '<subject>/, or write {"subject": "<subject>"} into <clip>.mp4.json'
        )
    chosen.sort(key=lambda clip: (clip.subject, natural_order(clip.path)))
    shown = {clip.subject for clip in chosen}
    return Benchmark(
        subjects=found,
        clips=tuple(chosen),
        without_subject=tuple(unknown),
        without_clip=tuple(name for name in found if name not in shown),
        refused=refused,
    )


def read_benchmark_subjects(folder: Path) -> BenchmarkSubjects:
    """Read the subjects alone.

    Raises:
        InputError: the folder is absent, or none in it can be used.
    """
    if not folder.is_dir():
        raise InputError(f"--subjects must be a folder, got nothing at {folder}; check the path")
    # The published archive has everything one level down.
    home = folder / "subjects" if (folder / "subjects").is_dir() else folder
    found, refused = dict[str, Subject](), dict[str, str]()
    for place in sorted(home.iterdir(), key=natural_order):
        if not (place / "metadata.json").is_file() and not (place / "references").is_dir():
            continue
        try:
            subject = _read_usable(place)
            if subject.id in found:
                raise InputError(f"id {subject.id} must be of one subject, got it again; change it")
        except (ArtifactError, InputError) as error:
            refused[place.name] = str(error)
        else:
            found[subject.id] = subject
    if not found:
        raise InputError(
            "--subjects must hold folders <id>/ with metadata.json and references/, "
            f"got none that can be used in {folder}{_first(refused)}; pass the benchmark's folder"
        )
    return BenchmarkSubjects(usable=found, refused=refused)


def _read_usable(place: Path) -> Subject:
    """Read a subject with views that can be decoded.

    Raises:
        InputError: there are none, or one cannot.
        ArtifactError: its JSON file is missing or damaged.
    """
    subject = read_subject(place)
    if not subject.references:
        raise InputError(
            f"subject {subject.id} must have background-free views, got no pictures in "
            f"{place / 'references'}; add them"
        )
    for view in subject.references:
        _check_view(view)
    return subject


def _check_view(path: Path) -> None:
    """Read a view of a subject.

    Raises:
        InputError: it cannot be read, is tiny, or shows nothing.
    """
    picture = flatten(read_image(path))
    if min(picture.size) < _LEAST_SIDE:
        raise InputError(
            f"views must have at least {_LEAST_SIDE} pixels a side, got {picture.width}x"
            f"{picture.height} in {path}; use a larger one"
        )
    pixels_HWC = np.asarray(picture)
    if (pixels_HWC == pixels_HWC[0, 0]).all():
        raise InputError(f"views must show an object, got one colour in {path}; use another one")


def _first(refused: Mapping[str, str]) -> str:
    return next((f" ({name}: {reason})" for name, reason in refused.items()), "")


def _read_clip(path: Path, root: Path, subjects: BenchmarkSubjects) -> BenchmarkClip | None:
    """Return a clip with its subject; None where nothing names one.

    Raises:
        InputError: its subject is there, but cannot be used.
        ArtifactError: the JSON file beside it is damaged.
    """
    name = _subject_of(path, root, {*subjects.usable, *subjects.refused})
    if name is None:
        return None
    if name not in subjects.usable:
        raise InputError(f"its subject {name} cannot be used")
    return BenchmarkClip(path=path, subject=name, prompt=_prompt_of(path, subjects.usable[name]))


def _is_clip(path: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in _CLIP_SUFFIXES and path.is_file() and not is_hidden


def _subject_of(path: Path, root: Path, subjects: Collection[str]) -> str | None:
    """Ask the JSON file, then the folder, then the name; None where none knows."""
    for description in descriptions(path):
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
    for description in (*descriptions(path), _comment_in(path)):
        if text := _as_text(description.get("prompt"), subject):
            return text
    return _as_text(subject.prompts[0], subject) if len(subject.prompts) == 1 else None


def descriptions(path: Path) -> list[dict[str, JsonValue]]:
    """What `<clip>.mp4.json` and `<clip>.json` beside a clip say.

    Raises:
        ArtifactError: one is damaged.
    """
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
