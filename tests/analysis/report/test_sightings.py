"""What counts as seen: independent events with their rates, or images."""

from datetime import date

import pytest

from tests.support.report import UNSURE, ask, make_events, plant, seen, survey
from trapline.analysis.report import sightings

MINUTE = 1 / 24 / 60
ROBIN = (0.0, 4.0, 0.0)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    tmp_path = tmp_path_factory.mktemp("survey")
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    visits = [seen(f"{minute}.jpg", minute * MINUTE) for minute in (0, 20, 45, 80, 24 * 60)]
    others = [seen("r.jpg", 23 * MINUTE, ROBIN), seen("u.jpg", 3, UNSURE)]
    plant(results, "fen/c1", [*visits, *others])
    plant(results, "fen/c2", [seen("b.jpg", 0), seen("c.jpg", 5)])
    plant(results, "moor/c3", [seen("d.jpg", 1, ROBIN)])
    make_events(results, events)
    return results, events


@pytest.mark.parametrize(("minutes", "owls"), [(0, 7), (25, 6), (30, 5), (35.1, 4), (24 * 60, 3)])
def test_events_of_a_species_that_follow_too_soon_are_one(minutes: float, owls: int, places: tuple[str, str]) -> None:
    connection, figures = survey(*places, minutes=minutes)
    ((counted,),) = connection.sql("select count(*) from sightings where label = 'owl'").fetchall()
    assert counted == owls
    assert (figures.events, figures.named, figures.independent) == (10, 9, owls + 2)


def test_the_table_of_species(places: tuple[str, str]) -> None:
    connection, figures = survey(*places)
    assert figures.days == 4 + 6 + 1
    owl, robin = sightings.species(connection, figures, ask(places[0])[1]).records()
    assert (owl["label"], owl["count"], owl["units"], owl["of_units"]) == ("owl", 5, 2, 3)
    assert owl["rate"] == pytest.approx(100 * 5 / 11)
    assert owl["sites"] == [{"site": "fen", "count": 5}]
    assert {hour: count for hour, count in enumerate(owl["hours"]) if count} == {12: 4, 13: 1}
    assert owl["median_probability"] > 0.9
    assert (owl["first"], owl["last"]) == (date(2024, 5, 1), date(2024, 5, 6))
    assert (robin["count"], robin["more_sites"]) == (2, 0)
    assert [site["site"] for site in robin["sites"]] == ["fen", "moor"]


def test_rates_are_by_the_camera_days_of_a_site(places: tuple[str, str]) -> None:
    connection, _ = survey(*places)
    assert sightings.rates(connection).rows == [
        ("owl", "fen", 5, 10.0, 50.0), ("robin", "fen", 1, 10.0, 10.0), ("robin", "moor", 1, 1.0, 100.0),
    ]  # fmt: skip


def test_cameras_without_coordinates_are_named(places: tuple[str, str]) -> None:
    located, unlocated = sightings.places(survey(*places)[0])
    assert (located.rows, unlocated.rows) == ([], [("fen/c1",), ("fen/c2",), ("moor/c3",)])


def test_without_events_images_count(places: tuple[str, str]) -> None:
    connection, head = ask(places[0])
    sightings.from_images(connection)
    owl, robin = sightings.species(connection, None, head).records()
    assert (owl["count"], owl["units"], owl["of_units"], owl["rate"]) == (7, 2, 3, None)
    assert robin["count"] == 2
