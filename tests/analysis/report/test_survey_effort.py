"""How long each camera stood where: by its deployments, or by its images."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.report import ask, make_events, plant, seen, survey
from trapline.analysis import dataset, deployments, event_dataset
from trapline.analysis.report import event_part

HEADER = "deploymentID,cameraID,locationName,latitude,longitude,deploymentStart,deploymentEnd\n"


def units(folder: Path, *rows: str, source: str = "site={site}/{camera}/…") -> dict[str, tuple[Any, ...]]:
    """By name: site, days, whether start and end are declared, and coordinates.

    Camera c1 has images on four days from 1 to 31 May 2024, and one on 20 July; c2 on two days, with coordinates in EXIF.
    """
    results, events, table = (f"{folder}/{name}" for name in ("results", "events", "deployments.csv"))
    plant(results, "fen/c1", [seen(f"{day}.jpg", day) for day in (0, 10, 20, 30, 80)])
    where = {"latitude": 52.5, "longitude": 13.25}
    plant(results, "moor/c2", [seen("a.jpg", 0, **where), seen("b.jpg", 3, **where), seen("c.jpg", 3.1)])
    Path(table).write_text(HEADER + "".join(f"{row}\n" for row in rows))
    make_events(results, events, source, deployments=table if rows else None)
    connection, _ = survey(results, events)
    select = "unit, site, days, declared, latitude, longitude"
    return {name: tuple(row) for name, *row in connection.sql(f"select {select} from units").fetchall()}


def test_without_deployments_the_first_and_the_last_image_count_with_both_days(tmp_path: Path) -> None:
    assert units(tmp_path) == {
        "fen/c1": ("fen", 81, False, None, None),
        "moor/c2": ("moor", 4, False, 52.5, 13.25),
    }


def test_an_event_of_a_clock_in_another_year_is_neither_effort_nor_counted(tmp_path: Path) -> None:
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    plant(results, "fen/c1", [seen("a.jpg", -3000), seen("b.jpg", 0), seen("c.jpg", 4)])
    plant(results, "fen/c2", [seen("d.jpg", 0), seen("e.jpg", 4)])
    plant(results, "fen/c3", [seen("f.jpg", -2000)])
    make_events(results, events)
    connection, head = ask(results, "site={site}/{camera}/…")
    files = event_dataset.find(events, dataset.find(results))
    sources = [deployments.parse(source) for source in files.deployment_from]
    found = event_part.read(connection, files, sources, 0.5, 30, (head.first, head.last))
    days = connection.sql("select unit, days from units order by unit").fetchall()
    assert days == [("fen/c1", 5), ("fen/c2", 5), ("fen/c3", None)]
    assert (found.survey.days, found.survey.unknown, found.survey.events) == (10, 1, 6)
    assert found.survey.independent == 4
    weeks = {str(each["week"])[:4] for each in found.history.cells.records()}
    assert weeks == {"2024"}


def test_deployments_say_start_and_end_and_those_without_images_count(tmp_path: Path) -> None:
    rows = (
        "fen/c1,,,1.5,-2,2024-04-30T12:00:00,2024-07-29T12:00:00",
        "moor/c2,,,,,,",
        "x3,c3,Heath,3,4,2024-05-01,2024-05-10",  # a day includes its night
        "x4,c4,Heath,3,4,2024-05-01,",
    )
    assert units(tmp_path, *rows) == {
        "fen/c1": ("fen", 90, True, 1.5, -2),
        "moor/c2": ("moor", 4, False, 52.5, 13.25),
        "x3": ("Heath", 10, True, 3, 4),
        "x4": ("Heath", None, False, 3, 4),
    }


def test_a_camera_that_was_moved_is_two(tmp_path: Path) -> None:
    rows = ("may,fen/c1,,1,1,2024-05-01,2024-05-15", "july,fen/c1,,2,2,2024-07-01,2024-07-30")
    found = units(tmp_path, *rows)
    assert found == {"may": ("fen", 15, True, 1, 1), "july": ("fen", 30, True, 2, 2)}


@pytest.mark.parametrize(
    ("rows", "days", "declared"),
    [
        (["x,fen/c1,,,,2024-05-01,NA"], 81, False),
        (["x,fen/c1,,,,,2024-05-20"], 20, False),
        (["x,fen/c1,,,,2024-05-01,", "y,fen/c1,,,,2024-06-10,2024-07-30"], 40, True),
    ],
)
def test_an_end_that_is_missing_is_the_next_start_or_the_last_image(
    rows: list[str], days: float, declared: bool, tmp_path: Path
) -> None:
    assert units(tmp_path, *rows)["x"][1:3] == (days, declared)


def test_two_cameras_of_one_deployment_are_two(tmp_path: Path) -> None:
    plant(f"{tmp_path}/results", "fen/c9", [seen("a.jpg")])
    found = units(tmp_path, "fen,,,5,6,2024-05-01,2024-07-30", source="site={deployment}/{camera}/…")
    assert found == {"fen/c1": ("fen", 91, True, 5, 6), "fen/c9": ("fen", 91, True, 5, 6)}
