"""The backbone suite as a page: tables of real beside generated, and a contact sheet."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.clip import save_contact_sheet
from dreambooth3d.artifacts.report import Figure, Table, write_report
from dreambooth3d.evaluate.config import BackboneSuiteConfig
from dreambooth3d.evaluate.probe import Reading
from dreambooth3d.evaluate.suite_scores import BackboneScore

_SHEET_FRAMES = 6
_SUMMARY = (
    "What the probe reads from generated clips, beside what it reads from real renders of the same "
    "scenes. All subjects are held out; those of the second pair of columns have a class, colour "
    "and pattern that training never shows together."
)


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """One prompt and what is read from its real and its generated clip."""

    prompt: str
    real: Reading
    generated: Reading


def write_suite_report(
    out: Path,
    config: BackboneSuiteConfig,
    score: BackboneScore,
    rows: Sequence[ClipRow],
    real_NFHWC: NDArray[np.uint8],
    generated_NFHWC: NDArray[np.uint8],
    revision: str,
) -> Path:
    """Write the page, its numbers and the contact sheet of the first clips; return the page."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "contact_sheet.png"
    save_contact_sheet(sheet, _sheet_rows(config, rows, real_NFHWC, generated_NFHWC))
    return write_report(
        out,
        title="The backbone without adapters",
        summary=_SUMMARY,
        tables=(_follow_table(score), _motion_table(score), _clip_table(rows)),
        figures=(Figure(caption="Real above, generated below, as read", content=sheet),),
        data={
            "config": asdict(config),
            "backbone_revision": revision,
            "score": asdict(score)
            | {"turn_silhouette": score.turn_silhouette, "moves": score.moves},
        },
    )


def describe_reading(reading: Reading) -> str:
    """A reading as a line of text."""
    line = f"{reading.color} {reading.class_noun} {reading.background}"
    return line if reading.motion is None else f"{line}, {reading.motion}"


def _sheet_rows(
    config: BackboneSuiteConfig,
    rows: Sequence[ClipRow],
    real_NFHWC: NDArray[np.uint8],
    generated_NFHWC: NDArray[np.uint8],
) -> list[tuple[str, list[Image.Image]]]:
    found = []
    shown = min(config.sheet_clips, len(rows))
    for row, real, made in list(zip(rows, real_NFHWC, generated_NFHWC, strict=True))[:shown]:
        found.append((f"real: {describe_reading(row.real)}", _frames(real)))
        found.append((f"generated: {describe_reading(row.generated)}", _frames(made)))
    return found


def _frames(clip_FHWC: NDArray[np.uint8]) -> list[Image.Image]:
    places = np.linspace(0, len(clip_FHWC) - 1, min(_SHEET_FRAMES, len(clip_FHWC)))
    return [Image.fromarray(clip_FHWC[int(place)]) for place in places.round()]


def _follow_table(score: BackboneScore) -> Table:
    parts = (score.real, score.generated, score.unseen_real, score.unseen_generated)
    return Table(
        title="Read as the prompt says",
        columns=("what", "real", "generated", "unseen, real", "unseen, generated"),
        rows=tuple(
            (what, *(getattr(part, name) for part in parts))
            for what, name in (
                ("background", "background"),
                ("main colour", "color"),
                ("class", "class_noun"),
                ("motion", "motion"),
            )
        ),
    )


def _motion_table(score: BackboneScore) -> Table:
    real, made = score.turn_real, score.turn_generated
    return Table(
        title="Turning, moving, and the VAE",
        columns=("what", "real", "generated", "relative difference"),
        rows=(
            ("turntables: class kept", real.class_agreement, made.class_agreement, None),
            ("turntables: colour kept", real.color_agreement, made.color_agreement, None),
            ("turntables: both kept", real.agreement, made.agreement, None),
            ("turntables: turn as asked", real.motion, made.motion, None),
            (
                "turntables: mask IoU of neighbouring frames",
                real.silhouette_iou,
                made.silhouette_iou,
                score.turn_silhouette,
            ),
            (
                "frame-to-frame difference, grey levels",
                score.change_real,
                score.change_generated,
                score.moves,
            ),
            ("VAE PSNR on real clips, dB", score.vae_psnr, None, None),
        ),
    )


def _clip_table(rows: Sequence[ClipRow]) -> Table:
    return Table(
        title="Clips",
        columns=("prompt", "real, as read", "generated, as read"),
        rows=tuple(
            (row.prompt, describe_reading(row.real), describe_reading(row.generated))
            for row in rows
        ),
    )
