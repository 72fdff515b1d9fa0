"""The reference suite's numbers, and a page that shows what right and wrong references do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dreambooth3d.artifacts.adapter import AdapterCard
from dreambooth3d.artifacts.clip import save_contact_sheet
from dreambooth3d.artifacts.report import Figure, Table, write_report
from dreambooth3d.evaluate.config import ReferenceSuiteConfig

Given: TypeAlias = Literal["right", "wrong"]

_SHEET_ROWS = 12
_SUMMARY = (
    "Subjects that nothing was trained on. Right and wrong share target, prompt and noise: nothing "
    "differs but whose view is given. Losses are means over the noise band; identity is "
    "identity_efficientnet against the right subject's views."
)


@dataclass(frozen=True, kw_only=True)
class ReferenceScore:
    """Right against wrong reference.

    Attributes:
        loss_right, loss_wrong: mean velocity loss in the noise band.
        share: subjects whose loss is lower with their own reference, 0..1.
        identity_right, identity_wrong: of pictures made with the right and with a wrong reference,
            both against the right subject's views.
    """

    loss_right: float
    loss_wrong: float
    share: float
    identity_right: float
    identity_wrong: float

    @property
    def gain(self) -> float:
        """How far the right reference lowers the loss, as a share of the loss with a wrong one."""
        return 1 - self.loss_right / self.loss_wrong

    @property
    def identity_gap(self) -> float:
        """Identity that the right reference adds."""
        return self.identity_right - self.identity_wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One held-out subject: a target, its prompt, a view of it, and the views it is judged by."""

    seed: int
    target: NDArray[np.uint8]
    caption: str
    view: NDArray[np.uint8]
    judged_by: tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseRow:
    """What was measured of one case; pictures are (H, W, 3)."""

    case: Case
    loss_right: float
    loss_wrong: float
    picture_right: NDArray[np.uint8]
    picture_wrong: NDArray[np.uint8]
    identity_right: float
    identity_wrong: float


def write_reference_report(
    out: Path,
    config: ReferenceSuiteConfig,
    score: ReferenceScore,
    rows: Sequence[CaseRow],
    card: AdapterCard,
) -> Path:
    """Write the page, its numbers and a contact sheet; return the page."""
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "contact_sheet.png"
    wrong_views = [rows[(place + 1) % len(rows)].case.view for place in range(len(rows))]
    save_contact_sheet(
        sheet,
        [
            (row.case.caption, [Image.fromarray(picture) for picture in pictures])
            for row, view in list(zip(rows, wrong_views, strict=True))[:_SHEET_ROWS]
            for pictures in [
                (row.case.target, row.case.view, row.picture_right, view, row.picture_wrong)
            ]
        ],
    )
    return write_report(
        out,
        title="What references do",
        summary=_SUMMARY,
        tables=(_totals(score), _cases(rows)),
        figures=(
            Figure(
                caption="Target; right view, the picture made with it; wrong view, its picture",
                content=sheet,
            ),
        ),
        data={
            "config": asdict(config),
            "adapter": card.key,
            "weights_sha256": card.weights_sha256,
            "backbone_revision": card.backbone_revision,
            "score": asdict(score) | {"gain": score.gain, "identity_gap": score.identity_gap},
        },
    )


def _totals(score: ReferenceScore) -> Table:
    return Table(
        title="Right beside wrong",
        columns=("what", "right", "wrong", "difference"),
        rows=(
            ("velocity loss", score.loss_right, score.loss_wrong, score.gain),
            ("identity", score.identity_right, score.identity_wrong, score.identity_gap),
            ("subjects with a lower loss", score.share, 1 - score.share, None),
        ),
    )


def _cases(rows: Sequence[CaseRow]) -> Table:
    return Table(
        title="Subjects",
        columns=("caption", "loss, right", "loss, wrong", "identity, right", "identity, wrong"),
        rows=tuple(
            (
                row.case.caption,
                row.loss_right,
                row.loss_wrong,
                row.identity_right,
                row.identity_wrong,
            )
            for row in rows
        ),
    )
