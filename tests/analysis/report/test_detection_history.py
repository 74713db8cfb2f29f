"""Weeks in which cameras stood there, and in which of them they saw a species."""

from datetime import date
from pathlib import Path

import pytest

from tests.support.report import make_events, plant, seen, survey
from trapline.analysis.report import detection_history

WEEKS = [date(2024, 4, 29), date(2024, 5, 6), date(2024, 5, 13)]


def test_each_week_of_a_camera_is_detected_or_sampled(tmp_path: Path) -> None:
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    plant(results, "fen/c1", [seen("a.jpg", 0), seen("b.jpg", 0.1), seen("c.jpg", 14)])
    plant(results, "fen/c2", [seen("d.jpg", 6, (0, 4, 0))])
    # The second camera is there to the end of Sunday 12 May: the week after that is not sampled.
    periods = "deploymentID,deploymentStart,deploymentEnd\nfen/c1,,\nfen/c2,2024-05-01,2024-05-12\n"
    (tmp_path / "d.csv").write_text(periods)
    make_events(results, events, deployments=str(tmp_path / "d.csv"))
    found = detection_history.read(survey(results, events)[0])
    assert (found.unit, found.units, found.species) == ("week", ("fen/c1", "fen/c2"), 2)
    assert found.cells.names == ("label", "camera", "week", "events")
    assert found.cells.rows == [
        *(("owl", "fen/c1", week, count) for week, count in zip(WEEKS, (2, 0, 1), strict=True)),
        *(("owl", "fen/c2", week, 0) for week in WEEKS[:2]),
        *(("robin", "fen/c1", week, 0) for week in WEEKS),
        ("robin", "fen/c2", WEEKS[0], 0),
        ("robin", "fen/c2", WEEKS[1], 1),
    ]
    assert found.left_out.rows == []


@pytest.mark.parametrize(("days", "unit"), [(300, "week"), (900, "month")])
def test_a_long_survey_is_shown_by_months(days: int, unit: str, tmp_path: Path) -> None:
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    plant(results, "fen/c1", [seen("a.jpg", 0), seen("b.jpg", days)])
    make_events(results, events)
    found = detection_history.read(survey(results, events)[0])
    assert found.unit == unit
    assert len(found.cells.rows) == {"week": 44, "month": 30}[unit]


def test_cameras_that_are_not_shown_are_named_with_their_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, events = f"{tmp_path}/results", f"{tmp_path}/events"
    monkeypatch.setattr(detection_history, "MOST_UNITS", 2)
    for number in range(4):
        images = [seen("a.jpg", 0), *([seen("b.jpg", 1)] if number > 1 else [])]
        plant(results, f"fen/c{number}", images)
    make_events(results, events)
    found = detection_history.read(survey(results, events)[0])
    assert found.units == ("fen/c2", "fen/c3")
    assert found.left_out.rows == [("fen/c0", 1), ("fen/c1", 1)]
