"""Line charts as SVG text: small enough to read, no plotting library, no scripts."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dreambooth3d.errors import ConfigError

Points = Sequence[tuple[float, float]]

# Okabe and Ito 2008: told apart with every kind of colour vision; dashes repeat the message.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("", "7 3", "2 3")
_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 220, 44, 58
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 6
_LEGEND_PITCH = 20
_LEGEND_LETTERS = 24
_MARKER_LIMIT = 30


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Maps values low..high to pixels start..end."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def line_chart(series: Mapping[str, Points], *, x_label: str, y_label: str, title: str) -> str:
    """Return an SVG with one line a series, ticks on both axes and a legend.

    Args:
        series: Name -> (x, y) points in order; a point that is not finite breaks the line.
        x_label: With the unit in it.
        y_label: With the unit in it.
        title: Above the chart.
    """
    lines = {name: list(_runs(points)) for name, points in series.items()}
    finite = [point for runs in lines.values() for run in runs for point in run]
    if not finite:
        raise ConfigError(
            f"chart {title!r} must have a finite point, got none; pass what was measured"
        )
    x = _axis([point[0] for point in finite], _LEFT, _WIDTH - _RIGHT, widen=False)
    y = _axis([point[1] for point in finite], _HEIGHT - _BOTTOM, _TOP, widen=True)
    height = max(_HEIGHT, _TOP + _LEGEND_PITCH * (len(lines) + 1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{html.escape(title)}" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" fill="#333">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        _text(_LEFT, 24, title, size=16, weight="bold"),
        *_grid(x, y),
        *_labels(x_label, y_label),
    ]
    for number, (name, runs) in enumerate(lines.items()):
        parts += _series(number, name, runs, x, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _runs(points: Points) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for x, y in points:
        if math.isfinite(x) and math.isfinite(y):
            run.append((float(x), float(y)))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _axis(values: Sequence[float], start: float, end: float, *, widen: bool) -> _Axis:
    """Return an axis over `values`; with `widen` it ends on ticks."""
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    if widen:
        low, high = first * step, last * step
    slack = (high - low) * 1e-9
    ticks = [number * step for number in range(first, last + 1)]
    shown = tuple(tick for tick in ticks if low - slack <= tick <= high + slack)
    return _Axis(low=low, high=high, start=start, end=end, ticks=shown)


def _grid(x: _Axis, y: _Axis) -> Iterator[str]:
    for tick in y.ticks:
        at = y(tick)
        yield _line(x.start, at, x.end, at, "#e4e4e4")
        yield _text(x.start - 8, at + 4.5, _number(tick), anchor="end")
    for tick in x.ticks:
        at = x(tick)
        yield _line(at, y.start, at, y.start + 5, "#555")
        yield _text(at, y.start + 20, _number(tick), anchor="middle")
    yield _line(x.start, y.start, x.end, y.start, "#555")
    yield _line(x.start, y.start, x.start, y.end, "#555")


def _labels(x_label: str, y_label: str) -> Iterator[str]:
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, x_label, anchor="middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield f'<g transform="translate(18 {middle:.1f}) rotate(-90)">'
    yield _text(0, 0, y_label, anchor="middle")
    yield "</g>"


def _series(number: int, name: str, runs: Sequence[Points], x: _Axis, y: _Axis) -> Iterator[str]:
    color = _COLORS[number % len(_COLORS)]
    dash = _DASHES[number // len(_COLORS) % len(_DASHES)]
    stroke = f'fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash or "none"}"'
    for run in runs:
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in run)
        yield f'<polyline points="{path}" {stroke} stroke-linejoin="round"/>'
    points = [point for run in runs for point in run]
    lone = [run[0] for run in runs if len(run) == 1]
    for px, py in points if len(points) <= _MARKER_LIMIT else lone:
        yield f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" fill="{color}"/>'
    left, at = x.end + 16, _TOP + 8 + number * _LEGEND_PITCH
    yield f'<polyline points="{left},{at} {left + 24},{at}" {stroke}/>'
    short = name if len(name) <= _LEGEND_LETTERS else name[: _LEGEND_LETTERS - 1] + "…"
    yield f"<g><title>{html.escape(name)}</title>{_text(left + 30, at + 4.5, short)}</g>"


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _number(value: float) -> str:
    text = f"{value:.6g}"
    return "0" if text == "-0" else text
