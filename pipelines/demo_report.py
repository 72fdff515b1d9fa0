"""The demo's table and page, from the artifacts alone."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreambooth3d.artifacts.clip import read_clip, save_contact_sheet
from dreambooth3d.artifacts.image import list_images, read_image
from dreambooth3d.artifacts.key import latest
from dreambooth3d.artifacts.report import Figure, Table, line_chart, write_report

COLUMNS = ("subject", "steps", "loss first -> last", "identity score", "adapter hash", "clip")
_FRAMES = 6


def report_demo(out: Path, *, seconds: float) -> Path:
    """Print the table of the journey and write OUT/index.html."""
    batch = latest(out / "personalize", what="subject adapters", made_by="make demo")
    with (batch / "results.csv").open(encoding="utf-8", newline="") as file:
        results = list(csv.DictReader(file))
    scores = json.loads((out / "evaluate" / "report.json").read_text(encoding="utf-8"))
    identity = {s["subject"]: s for s in scores["data"]["scores"]}
    rows = tuple(_row(result, identity[result["subject"]]) for result in results)
    _print_table(rows)
    print(f"(clips are below {out})")
    sheet = _contact_sheet(out, batch, [result["subject"] for result in results])
    clips = [
        Figure(
            caption=f"{r['subject']}: the served clip", content=out / f"served/{r['subject']}.mp4"
        )
        for r in results
    ]
    page = write_report(
        out,
        title="dreambooth3d: the journey on this machine",
        summary=(
            f"Corpus, 3Dapter, subject adapters and served clips in {seconds / 60:.1f} minutes on "
            "the embedded tiny backbone. Identity is identity_efficientnet: EfficientNet-Lite0, "
            "best view and crop, mean over frames; beside it the mean against wrong subjects."
        ),
        tables=(
            Table(
                title="Subjects",
                columns=(*COLUMNS, "identity of wrong subjects"),
                rows=tuple((*row, identity[str(row[0])]["identity_wrong"]) for row in rows),
            ),
        ),
        figures=(
            Figure(caption="Reference views above, frames of the served clip below", content=sheet),
            *clips,
            Figure(caption="3Dapter pretraining", content=_pretrain_curve(out)),
            Figure(caption="Personalization", content=_subject_curves(batch, results)),
        ),
        data={"seconds": round(seconds, 1)},
    )
    print(f"\n{page} (pictures, clips, loss curves), {seconds / 60:.1f} minutes in all")
    return page


def _row(result: dict[str, str], score: dict[str, Any]) -> tuple[str, ...]:
    return (
        result["subject"],
        result["steps"],
        f"{float(result['first_loss']):.4f} -> {float(result['last_loss']):.4f}",
        f"{score['identity']:.3f}",
        result["sha256"][:12],
        f"served/{score['clip']}",
    )


def _print_table(rows: tuple[tuple[str, ...], ...]) -> None:
    shown = [COLUMNS, *rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(COLUMNS))]
    print()
    for row in shown:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


def _contact_sheet(out: Path, batch: Path, subjects: list[str]) -> Path:
    rows: list[tuple[str, list[Image.Image]]] = []
    for subject in subjects:
        folder = batch / "adapters" / subject / "references"
        rows.append((f"{subject}: references", [read_image(p) for p in list_images(folder)]))
        frames, _ = read_clip(out / "served" / f"{subject}.mp4")
        picked = np.linspace(0, len(frames) - 1, _FRAMES).round().astype(int)
        rows.append(("served clip", [Image.fromarray(frames[i]) for i in picked]))
    path = out / "contact_sheet.png"
    save_contact_sheet(path, rows)
    return path


def _pretrain_curve(out: Path) -> str:
    folder = latest(out / "pretrain", what="3Dapter", made_by="make demo")
    losses = json.loads((folder / "curve.json").read_text(encoding="utf-8"))["loss"]
    return line_chart(
        {"loss, mean of 10": _smooth(losses)}, x_label="update", y_label="velocity loss",
        title="3Dapter",
    )  # fmt: skip


def _subject_curves(batch: Path, results: list[dict[str, str]]) -> str:
    series = {}
    for result in results:
        path = batch / result["adapter"] / "curve.json"
        series[result["subject"]] = _smooth(json.loads(path.read_text(encoding="utf-8"))["loss"])
    return line_chart(series, x_label="update", y_label="velocity loss", title="Subjects")


def _smooth(losses: list[float], width: int = 10) -> list[tuple[float, float]]:
    means = [
        (float(end), float(np.mean(losses[end - width : end])))
        for end in range(width, len(losses) + 1)
    ]
    return means or [(float(i + 1), loss) for i, loss in enumerate(losses)]
