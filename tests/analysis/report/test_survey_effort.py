"""How long each camera stood where: by a deployments table, or by its images."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.report import make_events, plant, seen, survey
from trapline.errors import UsageError

HEADER = "deploymentID,cameraID,locationName,latitude,longitude,deploymentStart,deploymentEnd\n"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Camera c1 has images from 1 to 31 May 2024, and one on 21 July; c2 on two days, with coordinates in EXIF."""
    tmp_path = tmp_path_factory.mktemp("survey")
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    plant(results, "fen/c1", [seen(f"{day}.jpg", day) for day in (0, 10, 20, 30, 81)])
    where = {"latitude": 52.5, "longitude": 13.25}
    plant(results, "moor/c2", [seen("a.jpg", 0, **where), seen("b.jpg", 3, **where), seen("c.jpg", 3.1)])
    make_events(results, events)
    return results, events


def table(tmp_path: Path, *rows: str) -> str:
    path = tmp_path / "deployments.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return str(path)


def units(connection: Any) -> list[tuple[Any, ...]]:
    select = "unit, site, days::double, declared, latitude, longitude"
    return [tuple(row) for row in connection.sql(f"select {select} from units order by unit").fetchall()]


def test_without_a_table_the_first_and_the_last_image_count_with_both_days(places: tuple[str, str]) -> None:
    connection, figures = survey(*places)
    assert units(connection) == [
        ("fen/c1", "fen", 82, False, None, None),
        ("moor/c2", "moor", 4, False, 52.5, 13.25),
    ]
    assert (figures.units, figures.declared, figures.days, figures.located, figures.outside) == (2, 0, 86, 1, 0)


def test_a_table_says_start_and_end_and_cameras_that_saw_nothing_were_there_too(
    places: tuple[str, str], tmp_path: Path
) -> None:
    rows = (
        "fen/c1,,,1.5,-2,2024-04-30T12:00:00+02:00,2024-07-29T12:00:00+02:00",
        "x3,c3,Heath,3,4,2024-05-01,2024-05-10",  # a day ends at midnight
    )
    connection, figures = survey(*places, table(tmp_path, *rows))
    assert units(connection) == [
        ("fen/c1", "fen", 90, True, 1.5, -2),
        ("moor/c2", "moor", 4, False, 52.5, 13.25),
        ("x3", "Heath", 10, True, 3, 4),
    ]
    assert (figures.units, figures.declared, figures.days, figures.outside) == (3, 2, 104, 0)


def test_a_camera_that_was_moved_is_two_and_what_lies_between_is_counted_and_belongs_to_neither(
    places: tuple[str, str], tmp_path: Path
) -> None:
    rows = ("may,fen/c1,,1,1,2024-05-01,2024-05-15", "july,fen/c1,,2,2,2024-07-01,2024-07-30")
    connection, figures = survey(*places, table(tmp_path, *rows))
    assert units(connection)[:2] == [("july", "fen", 30, True, 2, 2), ("may", "fen", 15, True, 1, 1)]
    assigned = connection.sql("select unit, count(*) from event_units where unit <> 'moor/c2' group by 1 order by 1")
    assert assigned.fetchall() == [("july", 1), ("may", 2)]
    assert figures.outside == 2


@pytest.mark.parametrize(
    ("rows", "days"),
    [
        (["fen/c1,,,,,2024-05-01,NA"], 82),
        (["fen/c1,,,,,,2024-05-20"], 20),
        (["a,fen/c1,,,,2024-05-01,", "b,fen/c1,,,,2024-06-10,2024-07-30"], 40),
    ],
)
def test_an_end_that_is_missing_is_the_next_start_or_the_last_image(
    rows: list[str], days: float, places: tuple[str, str], tmp_path: Path
) -> None:
    connection, _ = survey(*places, table(tmp_path, *rows))
    assert units(connection)[0][2:4] == (days, len(rows) > 1)


def test_where_nothing_says_how_long_it_stood_there_the_days_are_unknown(
    places: tuple[str, str], tmp_path: Path
) -> None:
    connection, figures = survey(*places, table(tmp_path, "x3,c3,Heath,3,4,2024-05-01,"))
    assert ("x3", "Heath", None, False, 3, 4) in units(connection)
    assert (figures.unknown, figures.days) == (1, 86)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (["a,,,,,first of May,"], "deployment a: deploymentStart first of May is no time"),
        (["a,,,91,0,,"], "deployment a: latitude 91 is no angle"),
        (['a,,,"52,5",0,,'], "deployment a: latitude 52,5 is no angle"),
        (["a,,,,,2024-05-03,2024-05-01"], "deployment a: deploymentEnd 2024-05-02 00:00:00 lies before"),
        (["a,,,,,,", "a,,,,,,"], "has several rows of deployment a"),
        (
            ["a,fen/c1,,,,2024-05-01,2024-06-01", "b,fen/c1,,,,2024-05-20,2024-07-01"],
            "deployments a and b are both of fen/c1 and overlap in time",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    rows: list[str], says: str, places: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"deployments\.csv: ") as caught:
        survey(*places, table(tmp_path, *rows))
    assert says in str(caught.value)


def test_two_cameras_of_one_deployment_are_two(tmp_path: Path) -> None:
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    plant(results, "fen/c1", [seen("a.jpg")])
    plant(results, "fen/c2", [seen("b.jpg")])
    make_events(results, events, "site={deployment}/{camera}/…")
    connection, figures = survey(results, events, table(tmp_path, "fen,,,5,6,2024-05-01,2024-05-10"))
    assert units(connection) == [("fen/c1", "fen", 10, True, 5, 6), ("fen/c2", "fen", 10, True, 5, 6)]
    assert figures.days == 20
