"""A map's plane, its grid of degrees and its scale bar."""

import math

import pytest

from trapline.analysis.report import map_projection

BERLIN = (52.5, 13.4)


def test_distances_are_true() -> None:
    # One degree of latitude, and of longitude where it is half as long.
    north = map_projection.project([(59.5, 10), (60.5, 10)], 2).points
    assert north[1][1] - north[0][1] == pytest.approx(111.2, abs=0.1)
    east = map_projection.project([(60, 10), (60, 11)], 2).points
    assert east[1][0] - east[0][0] == pytest.approx(111.2 / 2, abs=0.1)


@pytest.mark.parametrize("places", [[BERLIN], [BERLIN, (52.6, 13.4)], [BERLIN, (52.5, 14.4)], [(-33, 151), (68, -150)]])
@pytest.mark.parametrize("ratio", [1.0, 2.5])
def test_all_places_lie_inside_and_the_map_has_its_ratio(places: list[tuple[float, float]], ratio: float) -> None:
    drawn = map_projection.project(places, ratio)
    width, height = drawn.east[1] - drawn.east[0], drawn.north[1] - drawn.north[0]
    assert width / height == pytest.approx(ratio)
    assert all(abs(east) < width / 2 and abs(north) < height / 2 for east, north in drawn.points)
    assert 0.1 * width < drawn.bar <= width / 4
    assert str(f"{drawn.bar:e}")[0] in "125"
    for lines, span in ((drawn.meridians, width), (drawn.parallels, height)):
        assert all(abs(line.at) <= span / 2 * 1.0001 for line in lines)
        assert len({line.label for line in lines}) == len(lines)
    assert drawn.parallels
    assert drawn.meridians


def test_lines_are_labelled_by_hemisphere() -> None:
    drawn = map_projection.project([(-1.5, -1.5), (1.5, 1.5)], 1)
    assert [line.label for line in drawn.parallels] == ["1° S", "0°", "1° N"]
    assert [line.label for line in drawn.meridians] == ["1° W", "0°", "1° E"]


def test_places_on_both_sides_of_the_date_line_are_neighbours() -> None:
    drawn = map_projection.project([(-17, 179.5), (-17, -179.5)], 1)
    assert drawn.points[1][0] - drawn.points[0][0] == pytest.approx(111.2 * math.cos(math.radians(17)), abs=0.1)
    assert {"179.5° E", "180.0° W", "179.5° W"} & {line.label for line in drawn.meridians}
