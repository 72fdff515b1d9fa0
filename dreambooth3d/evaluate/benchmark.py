"""Score a folder of clips against a folder of subjects; scores of a clip are made once."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreambooth3d.artifacts.clip import save_contact_sheet
from dreambooth3d.artifacts.image import flatten, read_image
from dreambooth3d.artifacts.key import artifact_key, content_hash, publish
from dreambooth3d.artifacts.settings import versioned_fields
from dreambooth3d.errors import ArtifactError
from dreambooth3d.evaluate.benchmark_report import ScoredClip, write_benchmark_report
from dreambooth3d.evaluate.clip_scores import SHEET, is_whole, read_numbers, write_numbers
from dreambooth3d.evaluate.clip_scoring import ClipPictures, Subjects, score_clip
from dreambooth3d.evaluate.config import BenchmarkConfig
from dreambooth3d.evaluate.custombench import Benchmark, BenchmarkClip, list_names
from dreambooth3d.evaluate.geometry import Shape, find_geometer
from dreambooth3d.evaluate.instruments import Instruments, find_instruments
from dreambooth3d.evaluate.intervals import Interval
from dreambooth3d.evaluate.scoring_progress import ScoringProgress
from dreambooth3d.evaluate.skipping import Skipped
from dreambooth3d.evaluate.subject_ruler import SubjectRuler, build_ruler
from dreambooth3d.evaluate.vbench import VbenchClip, measure_clips

# Raised by hand when a number is measured in another way.
REVISION = 4
_SHEET_TILE = 128
# Subjects below which intervals are too narrow: of ten they cover 91 %, of five 85 %.
_FEW = 10
# What decides the report alone, not a clip's scores.
_OF_REPORT = (
    "resamples", "seed", "judge_url", "lpips_weights", "hub", "judge_model",
    "reconstructor", "geometry_frames", "vggt_weights", "vbench_python",
)  # fmt: skip


def score_benchmark(
    config: BenchmarkConfig,
    benchmark: Benchmark,
    clips: Path,
    out: Path,
    *,
    report: Callable[[str], None],
) -> tuple[list[ScoredClip], dict[str, Interval], tuple[str, ...]]:
    """Score every clip and write the report into `out`; what was scored before is taken from there.

    Returns:
        The scored clips, the means, and the names of clips and subjects that cannot be used.

    Raises:
        ArtifactError: no clip, or an earlier score, can be read.
        RunError: the judge does not answer.
    """
    instruments = find_instruments(config)
    for each in instruments.skipped:
        report(f"evaluate: {each.name} is skipped: {each.reason}")
    desk = _Desk(config, benchmark, instruments, out, report)
    scored, of_scored, unreadable = _score_clips(desk, benchmark, clips, report)
    scored, of_shapes = _with_shapes(desk, of_scored, scored)
    scored, skipped, more = _with_vbench(instruments, of_scored, scored, out, report)
    notes = [
        *([f"not scored, for they cannot be read: {', '.join(unreadable)}"] if unreadable else ()),
        *_notes(benchmark),
        *_doubts(scored),
        *_of_prompts(instruments, of_scored),
        *of_shapes,
        *more,
    ]
    for note in notes:
        report(f"evaluate: {note}")
    means = write_benchmark_report(out, config, scored, skipped, notes)
    over = _told(means["identity"].num_values, "subject")
    report(f"evaluate: identity {means['identity']} over {over}")
    report(f"evaluate: {out / 'report.html'}")
    return scored, means, (*benchmark.refused, *unreadable)


def _score_clips(
    desk: "_Desk", benchmark: Benchmark, clips: Path, report: Callable[[str], None]
) -> tuple[list[ScoredClip], list[BenchmarkClip], tuple[str, ...]]:
    """Score every clip that can be read; return them, their clips, and the others' names.

    Raises:
        ArtifactError: none can be read.
    """
    scored, of_scored = list[ScoredClip](), list[BenchmarkClip]()
    progress = ScoringProgress(len(benchmark.clips), report)
    unreadable: dict[str, ArtifactError] = {}
    for clip in benchmark.clips:
        name = clip.path.relative_to(clips).as_posix()
        folder = desk.folder_of(clip)
        is_known = is_whole(folder)
        progress.start(name, is_known=is_known)
        if not is_known:
            # What is damaged would be kept otherwise.
            shutil.rmtree(folder, ignore_errors=True)
            try:
                desk.score(clip, folder, progress.frame)
            except ArtifactError as error:
                # It costs its own scores, not those of the others.
                unreadable[name] = error
                progress.leave_out(error)
                continue
        numbers = read_numbers(folder)
        progress.finish(numbers.numbers["identity"])
        found = ScoredClip(name=name, subject=clip.subject, numbers=numbers, sheet=folder / SHEET)
        scored.append(found)
        of_scored.append(clip)
    if not scored:
        raise next(iter(unreadable.values()))
    return scored, of_scored, tuple(unreadable)


def _with_shapes(
    desk: "_Desk", clips: Sequence[BenchmarkClip], scored: Sequence[ScoredClip]
) -> tuple[list[ScoredClip], list[str]]:
    """Add the numbers of shapes; notes say which clips have none."""
    found, notes = list[ScoredClip](), list[str]()
    for clip, own in zip(clips, scored, strict=True):
        shape = desk.shape(clip)
        if isinstance(shape, Skipped):
            notes.append(f"{own.name} has no {shape.name}: {shape.reason}")
        found.append(own.with_shape(shape) if isinstance(shape, Shape) else own)
    with_shape = sum(each.cloud is not None for each in found)
    if 0 < with_shape < len(found):
        notes.append(
            f"Chamfer means are over {with_shape} of {len(found)} clips: one without a shape may "
            "be worse than any of them"
        )
    return found, notes


def _told(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


class _Desk:
    """Rulers of the subjects, made when they are needed, and the folders of scores."""

    def __init__(
        self,
        config: BenchmarkConfig,
        benchmark: Benchmark,
        instruments: Instruments,
        out: Path,
        report: Callable[[str], None],
    ) -> None:
        self._config, self._benchmark, self._instruments = config, benchmark, instruments
        self._scores = out / "scores"
        self._rulers: dict[str, SubjectRuler] = {}
        self._hashes: dict[str, list[str]] = {}
        self._geometer = find_geometer(config, instruments, out, report)

    def folder_of(self, clip: BenchmarkClip) -> Path:
        """Where scores are: named after all that decides them."""
        names = (clip.subject, *self._wrong(clip.subject))
        left_out = _OF_REPORT if self._instruments.judge else (*_OF_REPORT, "judge_frames")
        versioned: dict[str, object] = {
            name: value
            for name, value in versioned_fields(self._config).items()
            if name not in left_out
        }
        versioned |= {
            "instruments": list(self._instruments.names),
            "prompt": clip.prompt,
            "subjects": {name: self._hash(name) for name in names},
        }
        key = artifact_key("evaluate", REVISION, versioned, [content_hash(clip.path)])
        return self._scores / key

    def score(
        self, clip: BenchmarkClip, folder: Path, on_frame: Callable[[int, int], None]
    ) -> None:
        """Measure and publish in one step."""
        references = [read_image(p) for p in self._benchmark.subjects[clip.subject].references]
        subjects = Subjects(
            own=self._ruler(clip.subject),
            others={name: self._ruler(name) for name in self._wrong(clip.subject)},
            references=references,
        )
        numbers, pictures = score_clip(
            clip.path, subjects, self._instruments, self._config, on_frame, prompt=clip.prompt
        )
        with publish(folder) as aside:
            write_numbers(aside, numbers)
            rows = [("references", [flatten(view) for view in references]), *_rows(pictures)]
            save_contact_sheet(aside / SHEET, rows, tile=_SHEET_TILE)

    def shape(self, clip: BenchmarkClip) -> Shape | Skipped | None:
        """Measure its shape, where that was asked for and is possible."""
        if self._geometer is None:
            return None
        subject = self._benchmark.subjects[clip.subject]
        return self._geometer.measure(clip.path, subject, self._ruler(clip.subject).look)

    def _wrong(self, subject: str) -> list[str]:
        """The next subjects in order, from the start again after the last."""
        names = list(self._benchmark.subjects)
        place = names.index(subject)
        others = [*names[place + 1 :], *names[:place]]
        return others[: self._config.wrong_subjects]

    def _ruler(self, subject: str) -> SubjectRuler:
        if subject not in self._rulers:
            views = [read_image(p) for p in self._benchmark.subjects[subject].references]
            self._rulers[subject] = build_ruler(views)
        return self._rulers[subject]

    def _hash(self, subject: str) -> list[str]:
        if subject not in self._hashes:
            paths = self._benchmark.subjects[subject].references
            self._hashes[subject] = [content_hash(path) for path in paths]
        return self._hashes[subject]


def _rows(pictures: ClipPictures) -> list[tuple[str, list[Any]]]:
    rows: list[tuple[str, list[Any]]] = []
    if pictures.frames:
        rows = [("frames", pictures.frames), ("what was found", pictures.cutouts)]
    return rows


def _doubts(scored: Sequence[ScoredClip]) -> list[str]:
    """What a reader of the means should know."""
    notes = []
    for clip in scored:
        own = clip.numbers.numbers["identity"]
        name = max(clip.numbers.wrong, key=clip.numbers.wrong.__getitem__, default=None)
        if name is not None and clip.numbers.wrong[name] > own:
            notes.append(
                f"{clip.name} looks more like {name} ({clip.numbers.wrong[name]:.3f}) than like "
                f"its subject {clip.subject} ({own:.3f})"
            )
    if (count := len({clip.subject for clip in scored})) < _FEW:
        over = _told(count, "subject")
        notes.append(f"the means are over {over}: so few make intervals that say little")
    return notes


def _with_vbench(
    instruments: Instruments,
    clips: Sequence[BenchmarkClip],
    scored: Sequence[ScoredClip],
    out: Path,
    report: Callable[[str], None],
) -> tuple[list[ScoredClip], tuple[Skipped, ...], tuple[str, ...]]:
    """Add the numbers of VBench, where it is; what is skipped, and what is to be said."""
    if instruments.vbench is None:
        return list(scored), instruments.skipped, ()
    wanted = [
        VbenchClip(path=clip.path, prompt=clip.prompt, num_frames=found.numbers.num_frames)
        for clip, found in zip(clips, scored, strict=True)
    ]
    scores = measure_clips(instruments.vbench, wanted, out / "vbench", report)
    more = [
        replace(found, numbers=found.numbers.with_more(scores.of_clips[clip.path]))
        for clip, found in zip(clips, scored, strict=True)
    ]
    return more, (*instruments.skipped, *scores.skipped), scores.notes


def _of_prompts(instruments: Instruments, clips: Sequence[BenchmarkClip]) -> list[str]:
    """What a reader of the text alignment should know."""
    if instruments.aligner is None and instruments.vbench is None:
        return []
    notes, without = [], [clip.path for clip in clips if not clip.prompt]
    if without:
        notes.append(
            f"no text alignment of {len(without)} clips, for no JSON beside them, no comment in "
            "them and no only line of their subject's prompt.txt says a prompt: "
            f"{list_names(without)}"
        )
    aligner = instruments.aligner
    cut = [c.path for c in clips if aligner and c.prompt and aligner.cuts(c.prompt)]
    if cut:
        notes.append(f"clip_t read the beginning of prompts longer than CLIP's: {list_names(cut)}")
    return notes


def _notes(benchmark: Benchmark) -> list[str]:
    notes = [f"{name} cannot be used: {reason}" for name, reason in benchmark.refused.items()]
    if benchmark.without_subject:
        names = ", ".join(path.name for path in benchmark.without_subject)
        notes.append(f"not scored, for they name no subject: {names}")
    if benchmark.without_clip:
        notes.append(f"no clip shows: {', '.join(benchmark.without_clip)}")
    return notes
