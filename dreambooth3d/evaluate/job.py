"""Score a folder of clips against the subjects they show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.clip import read_clip, save_contact_sheet
from dreambooth3d.artifacts.image import list_images, read_image
from dreambooth3d.artifacts.jsonfile import read_json
from dreambooth3d.artifacts.report import Figure, Table, write_report
from dreambooth3d.errors import InputError
from dreambooth3d.evaluate.benchmark import score_benchmark
from dreambooth3d.evaluate.benchmark_report import ScoredClip
from dreambooth3d.evaluate.config import BenchmarkConfig, EvaluateConfig
from dreambooth3d.evaluate.custombench import read_benchmark
from dreambooth3d.evaluate.identity import identity_table
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording

EXPERIMENT = "dreambooth3d-evaluate"
_SHEET_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """Identity of one clip: against its own subject, and the best of the wrong ones."""

    clip: str
    subject: str
    identity: float
    identity_wrong: float | None


def find_clips(clips: Path, adapters: Mapping[str, Path]) -> list[tuple[Path, str]]:
    """List every clip that says which subject it shows, where that subject has an adapter.

    Raises:
        InputError: no clip in the folder shows a subject that has an adapter there.
    """
    found = []
    for sidecar in sorted(clips.glob("*.mp4.json")):
        subject = read_json(sidecar, what="description of a clip").get("subject")
        clip = sidecar.with_suffix("")
        if subject in adapters and clip.is_file():
            found.append((clip, str(subject)))
    if not found:
        raise InputError(
            f"clips to evaluate must show one of {', '.join(sorted(adapters)) or 'no subjects'}, "
            f"got none in {clips}; "
            "make clips first with pipelines/generate.py or the server"
        )
    return found


def run(
    config: EvaluateConfig,
    clips: Path,
    adapters: Mapping[str, Path],
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> tuple[ClipScore, ...]:
    """Score clips, write `report.json`, `index.html` and a contact sheet into `out`."""
    found = find_clips(clips, adapters)
    names = sorted({subject for _, subject in found})
    views = [
        [read_image(path) for path in list_images(adapters[name] / "references")] for name in names
    ]
    frames = [read_clip(clip)[0] for clip, _ in found]
    report(f"evaluate: {len(found)} clips against {len(names)} subjects")
    table = identity_table(frames, views, config)
    scores = []
    for row, (clip, subject) in zip(table, found, strict=True):
        own = names.index(subject)
        wrong = np.delete(row, own)
        scores.append(
            ClipScore(
                clip=clip.name,
                subject=subject,
                identity=float(row[own]),
                identity_wrong=float(wrong.mean()) if len(wrong) else None,
            )
        )
        report(f"evaluate: {clip.name} identity {scores[-1].identity:.3f}")
    sheet = _sheet(out, found, frames, dict(zip(names, views, strict=True)))
    _write(config, out, scores, sheet)
    report(f"evaluate: {out / 'index.html'}")
    return tuple(scores)


def run_benchmark(
    config: BenchmarkConfig,
    subjects: Path,
    clips: Path,
    out: Path,
    *,
    report: Callable[[str], None] = print,
) -> tuple[tuple[ScoredClip, ...], tuple[str, ...]]:
    """Score clips against the benchmark's subjects; write `report.html`, `report.json`, MLflow.

    Returns:
        The scored clips, and the names of clips and subjects that cannot be used.

    Raises:
        InputError: a folder cannot be used, see `read_benchmark`.
        ArtifactError: no clip can be read.
    """
    benchmark = read_benchmark(subjects, clips)
    report(f"evaluate: {len(benchmark.clips)} clips, {len(benchmark.subjects)} subjects")
    scored, means, unreadable = score_benchmark(config, benchmark, clips, out, report=report)
    with recording(report):
        Tracker(out.parent, EXPERIMENT).record(
            RunRecord(
                name=clips.name,
                params=asdict(config) | {"clips": clips.name, "num_clips": len(scored)},
                metrics={name: mean.mean for name, mean in means.items()},
                curves={"identity_of_clip": [c.numbers.numbers["identity"] for c in scored]},
            )
        )
    return tuple(scored), unreadable


def _sheet(
    out: Path,
    found: Sequence[tuple[Path, str]],
    frames: Sequence[Any],
    views: dict[str, list[Image.Image]],
) -> Path:
    """References above, generated frames below, for every clip."""
    rows: list[tuple[str, list[Image.Image]]] = []
    for (clip, subject), pictures in zip(found, frames, strict=True):
        picked = np.linspace(0, len(pictures) - 1, min(_SHEET_FRAMES, len(pictures))).round()
        rows.append((f"{subject}: references", views[subject]))
        rows.append((clip.stem, [Image.fromarray(pictures[int(i)]) for i in picked]))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "contact_sheet.png"
    save_contact_sheet(path, rows)
    return path


def _write(config: EvaluateConfig, out: Path, scores: Sequence[ClipScore], sheet: Path) -> None:
    write_report(
        out,
        title="Identity of generated clips",
        summary="identity_efficientnet: EfficientNet-Lite0 (ImageNet), best view and crop, mean "
        "over frames. Unrelated objects score above 0: compare with the mean score against the "
        "wrong subjects beside it.",
        tables=(
            Table(
                title="Clips",
                columns=("clip", "subject", "identity", "wrong subjects"),
                rows=tuple((s.clip, s.subject, s.identity, s.identity_wrong) for s in scores),
            ),
        ),
        figures=(Figure(caption="References above, generated frames below", content=sheet),),
        data={"config": asdict(config), "scores": [asdict(s) for s in scores]},
    )
