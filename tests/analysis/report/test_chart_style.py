"""What all charts have in common: their colours, axes and SVG."""

import re
from typing import Any

import altair as alt
import pytest

from trapline.analysis.report import chart_style
from trapline.analysis.report.chart_style import HALF, HUES, LABEL, NARROW, OTHER, WIDE
from trapline.analysis.sql import Table

TABLE = Table(("name", "images"), [("owl", 3), ("<b>&", 1)])


def drawing(width: int) -> Any:
    bars = chart_style.chart(TABLE.records()).mark_bar(clip=True)
    return bars.encode(x="images:Q", y="name:N").properties(width=width, height=40)


def test_labels_have_the_hues_in_turn_and_others_are_grey() -> None:
    labels = [*(f"species {number}" for number in range(len(HUES) + 1)), "others"]
    scale = chart_style.colours("label", labels, WIDE).to_dict()["scale"]
    assert scale["domain"] == labels
    assert scale["range"] == [*HUES, HUES[0], OTHER]


@pytest.mark.parametrize("width", [WIDE, HALF, NARROW])
@pytest.mark.parametrize("length", [1, 8, 300])
def test_the_entries_of_a_legend_fit_beside_each_other(width: int, length: int) -> None:
    legend = chart_style.colours("label", ["x" * length], width).to_dict()["legend"]
    letters = min(legend["labelLimit"], 7.5 * length)
    assert legend["columns"] >= 1
    assert legend["columns"] * letters <= width
    assert legend["labelLimit"] < LABEL[width]


def test_no_label_is_no_error() -> None:
    assert chart_style.colours("label", [], NARROW).to_dict()["scale"] == {"domain": [], "range": []}


def test_small_counts_are_labelled_by_whole_numbers_alone() -> None:
    assert chart_style.counts(3).to_dict()["values"] == [0, 1, 2, 3]
    assert "values" not in chart_style.counts(5).to_dict()
    assert "minExtent" not in chart_style.counts(5).to_dict()


def test_axes_beside_each_other_are_equally_wide() -> None:
    for most in (3, 3_000_000):
        axis = chart_style.counts(most, 52).to_dict()
        assert axis["minExtent"] == axis["maxExtent"] == 52 - 18
    for width in (WIDE, HALF, NARROW):
        axis = chart_style.names(width).to_dict()
        assert axis["minExtent"] == axis["maxExtent"] == LABEL[width]
        assert axis["labelLimit"] < LABEL[width]


def test_a_chart_is_drawn_for_its_width_and_for_a_telephone() -> None:
    widths: list[int] = []

    def draw(width: int) -> Any:
        widths.append(width)
        return drawing(width)

    chart = chart_style.drawn(draw, WIDE, "Two bars.", TABLE)
    assert widths == [WIDE, NARROW]
    assert (chart.told, chart.table) == ("Two bars.", TABLE)
    wide, narrow = (float(str(re.search(r'<svg[^>]*\swidth="([\d.]+)"', svg)[1])) for svg in (chart.wide, chart.narrow))  # type: ignore[index]
    assert wide - narrow == pytest.approx(WIDE - NARROW, abs=1)


def test_names_in_svg_are_text() -> None:
    svg = chart_style.drawn(drawing, HALF, "", TABLE).wide
    assert "&lt;b&gt;&amp;" in svg
    assert "<b>" not in svg


def test_clip_paths_of_two_charts_have_different_names() -> None:
    charts = [chart_style.drawn(drawing, HALF, "", TABLE) for _ in range(2)]
    svgs = [svg for chart in charts for svg in (chart.wide, chart.narrow)]
    defined = [name for svg in svgs for name in re.findall(r'<clipPath id="([^"]+)"', svg)]
    assert len(defined) >= 4
    assert len(set(defined)) == len(defined)
    for svg in svgs:
        used = re.findall(r"url\(#([^)]+)\)", svg)
        assert used
        assert set(used) <= set(re.findall(r'<clipPath id="([^"]+)"', svg))


def test_a_drawing_cannot_load_anything_from_a_server() -> None:
    remote = alt.Chart(alt.UrlData("http://127.0.0.1:9/data.json")).mark_bar().encode(x="a:Q")
    with pytest.raises(ValueError, match="External data url not allowed"):
        chart_style.drawn(lambda _: remote, HALF, "", TABLE)


def test_names_that_svg_cannot_have_are_drawn_as_escapes() -> None:
    names = ["".join(map(chr, range(1, 0x20))), "\x7f\ufffe\uffff", "\ud800", "🦉"]

    def draw(width: int) -> Any:
        bars = chart_style.chart([{"name": name, "images": 1} for name in names]).mark_bar()
        return bars.encode(x="images:Q", y="name:N").properties(width=width, height=90)

    svg = chart_style.drawn(draw, HALF, "told", TABLE).wide
    assert "x01" in svg
    assert "🦉" in svg
