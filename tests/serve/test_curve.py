import xml.etree.ElementTree as ElementTree

from benchmarks.serve_curve import Point, gain, page, plot

POINTS = [
    Point(frames=f, batch=b, adapters=a, seconds=f / b**0.5)
    for f in (1, 9)
    for b in (1, 4)
    for a in (1, 2)
    if a <= b
]


def test_the_table_has_every_place_and_its_gain_over_one_clip_alone() -> None:
    assert [gain(POINTS, point) for point in POINTS] == [1, 2, 2, 1, 2, 2]
    rows = page(POINTS, steps=4, repeats=3).splitlines()[-6:]
    assert rows[2] == "| 1 | 4 | 2 | 500.0 | 2.00 |"
    assert rows[3] == "| 9 | 1 | 1 | 9000.0 | 1.00 |"


def test_the_plot_has_a_line_for_frames_and_adapters() -> None:
    drawn = ElementTree.fromstring(plot(POINTS))
    text = " ".join(drawn.itertext())
    for name in ("1 frames, one adapter", "9 frames, one adapter", "9 frames, up to 2"):
        assert name in text
