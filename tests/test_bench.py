"""Every figure of the README is one that a command has measured."""

import re

from benchmarks.bench import BEGIN, END, FIGURES, ROOT, read_history, table, told

_README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_the_newest_figures_of_the_history() -> None:
    history = read_history()
    shown = _README.split(BEGIN)[1].split(END)[0].strip()
    assert shown == table(history).strip()
    assert set(history) <= {figure.name for figure in FIGURES}


def test_no_figure_of_speed_stands_outside_the_table() -> None:
    outside = _README.split(BEGIN)[0] + _README.split(END)[1]
    assert re.findall(r"\b\d+(?:\.\d+)?x\b", outside) == []


def test_a_figure_is_told_with_its_unit() -> None:
    assert told({"value": 2.04, "unit": "x"}) == "2.04x"
    assert told({"value": 1234.5, "unit": "/hour"}) == "1234 /hour"
    assert told({"value": 12.3, "unit": "s"}) == "12.3s"
