"""The page needs nothing but itself, and text stays text."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from dreambooth3d.artifacts.clip import write_clip
from dreambooth3d.artifacts.report import Figure, Table, line_chart, write_report
from dreambooth3d.errors import ArtifactError, ConfigError

EVIL = "<script>alert(\"x\")</script> & 'y'"


class Page(HTMLParser):
    """Collects tags, sources and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, format="PNG")
    return buffer.getvalue()


def chart(**series: list[tuple[float, float]]) -> str:
    return line_chart(series, x_label="updates", y_label="loss", title="Loss")


def test_page_is_self_contained(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    write_clip(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), fps=4, metadata={})
    rows = (("joint", 0.74201, 30, tmp_path / "a.png"), ("alone", 0.6530, 30, None))
    path = write_report(
        tmp_path / "report",
        title="Identity",
        summary="First.\n\nSecond.",
        tables=[Table(title="Scores", columns=("method", "score", "n", "view"), rows=rows)],
        figures=[
            Figure(caption="bytes", content=png()),
            Figure(caption="path", content=tmp_path / "a.png"),
            Figure(caption="clip", content=tmp_path / "a.mp4"),
            Figure(caption="chart", content=chart(a=[(0, 1), (1, 2)])),
        ],
        data={"score": 0.74, "bad": float("nan"), "deep": {"list": [float("inf"), 1]}},
    )
    assert path == tmp_path / "report/index.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.html", "report.json"]
    page = Page(path.read_text())
    kinds = [re.split("[:;]", source)[1] for source in page.sources]
    assert kinds == ["image/png", "image/png", "image/png", "video/mp4", "image/svg+xml"]
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "0.742" in page.text
    assert str(tmp_path) not in path.read_text()
    assert "default-src 'none'" in path.read_text()


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    path = write_report(
        tmp_path,
        title=EVIL,
        summary=EVIL,
        tables=[Table(title=EVIL, columns=(EVIL,), rows=((EVIL,),))],
        figures=[Figure(caption=EVIL, content=png())],
        data={},
    )
    page = Page(path.read_text())
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 7


def test_numbers_are_written_as_json(tmp_path: Path) -> None:
    write_report(
        tmp_path,
        title="t",
        summary="s",
        tables=[Table(title="x", columns=("a", "b"), rows=((tmp_path / "p.png", 1.0),))][:0],
        figures=[],
        data={"score": 0.74, "bad": float("nan"), "deep": {"list": [float("inf"), 1]}},
    )
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["data"] == {"score": 0.74, "bad": None, "deep": {"list": [None, 1]}}


def test_pictures_in_json_are_names(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(png())
    table = Table(title="x", columns=("a", "b"), rows=((tmp_path / "p.png", float("nan")),))
    write_report(tmp_path, title="t", summary="", tables=[table], figures=[], data={})
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["tables"] == [{"title": "x", "columns": ["a", "b"], "rows": [["p.png", None]]}]


def test_same_input_gives_the_same_page(tmp_path: Path) -> None:
    pages = [
        write_report(
            tmp_path / name, title="t", summary="s", tables=[], figures=[], data={"a": 1}
        ).read_bytes()
        for name in ("a", "b")
    ]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("content", [b"plain", "text", Path("none.png")])
def test_unusable_figures_are_refused_and_nothing_is_written(
    tmp_path: Path, content: Path | bytes | str
) -> None:
    figures = [Figure(caption="c", content=content)]
    with pytest.raises(ArtifactError, match="picture of a report must be"):
        write_report(tmp_path, title="t", summary="", tables=[], figures=figures, data={})
    assert list(tmp_path.iterdir()) == []


def test_rows_must_fit_their_columns() -> None:
    with pytest.raises(ConfigError, match="row 2 of table 't' must have 2 cells, got 1"):
        Table(title="t", columns=("a", "b"), rows=(("x", 1), ("y",)))


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(svg).iter() if "text" in node.tag]


def test_chart_has_title_labels_ticks_and_legend() -> None:
    found = texts(chart(both=[(0, 0.03), (400, 0.07)], alone=[(0, 0.05), (400, 0.06)]))
    assert {"Loss", "updates", "loss", "both", "alone"} <= set(found)
    assert {"0", "100", "200", "300", "400"} <= set(found)
    assert {"0.03", "0.05", "0.07"} <= set(found)


def test_chart_escapes_its_text_and_cuts_long_names() -> None:
    name = EVIL + "x" * 50
    svg = line_chart({name: [(0, 1)]}, x_label=EVIL, y_label=EVIL, title=EVIL)
    assert "<script" not in svg
    assert texts(svg).count(EVIL) == 3
    assert all(len(text) < 60 for text in texts(svg))


@pytest.mark.parametrize(
    "points",
    [
        [(5.0, 0.0)],
        [(0.0, 3.0), (10.0, 3.0)],
        [(0.0, -1e-9), (1.0, 1e-9)],
        [(0.0, -1e12), (1e9, 1e12)],
        [(0.0, 1.0), (1.0, float("nan")), (2.0, 3.0)],
        [(float("inf"), 1.0), (2.0, 3.0), (1.0, 1.0)],
    ],
)
def test_every_point_stays_inside_the_chart(points: list[tuple[float, float]]) -> None:
    root = ElementTree.fromstring(chart(a=points))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert 2 <= len([text for text in texts(chart(a=points)) if text]) <= 30


def test_a_point_that_is_not_finite_breaks_the_line() -> None:
    svg = chart(a=[(0, 1), (1, 2), (2, float("nan")), (3, 1), (4, 2)])
    assert svg.count("<polyline") == 2 + 1


def test_chart_without_points_is_refused() -> None:
    with pytest.raises(ConfigError, match="chart 'Loss' must have a finite point"):
        chart(a=[(0, float("nan"))])
