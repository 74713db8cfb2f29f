"""What events add to a page."""

from pathlib import Path

from tests.support.report import UNSURE, ask, make_events, plant, seen
from trapline.analysis import dataset, deployments, event_dataset
from trapline.analysis.report import event_part
from trapline.analysis.report.event_part import EventPart

HEADER = "deploymentID,latitude,longitude,deploymentStart,deploymentEnd\n"


def part(folder: Path, *declared: str, sure: float = 0.5, apart: float = 30) -> EventPart:
    results, events, table = (f"{folder}/{name}" for name in ("results", "events", "d.csv"))
    Path(table).write_text(HEADER + "".join(f"{row}\n" for row in declared))
    make_events(results, events, deployments=table if declared else None)
    files = event_dataset.find(events, dataset.find(results))
    connection, _ = ask(results, *files.deployment_from)
    sources = [deployments.parse(source) for source in files.deployment_from]
    return event_part.read(connection, files, sources, sure, apart)


def test_it_has_a_chart_for_all_that_the_events_know(tmp_path: Path) -> None:
    plant(f"{tmp_path}/results", "fen/c1", [seen("a.jpg"), seen("b.jpg", 0.03), seen("c.jpg", captured_at=None)])
    plant(f"{tmp_path}/results", "moor/c2", [seen("d.jpg", 1, (0, 4, 0)), seen("e.jpg", 2, UNSURE)])
    found = part(tmp_path, "fen/c1,52,13,2024-05-01,2024-05-20", "moor/c2,,,2024-05-01,2024-05-11")
    assert found.declared
    assert set(found.charts) == {"by_site", "history", "map"}
    assert found.unlocated.rows == [("moor/c2",)]
    assert found.unassigned.rows == [("no_time", 1)]
    assert {row[0] for row in found.history.cells.rows} == {"owl", "robin"}
    assert (found.survey.events, found.survey.named, found.survey.independent) == (4, 3, 3)


def test_minutes_that_lie_between_events_and_the_least_probability_decide_what_counts(tmp_path: Path) -> None:
    plant(f"{tmp_path}/results", "fen/c1", [seen("a.jpg"), seen("b.jpg", 0.03), seen("c.jpg", 2, (1, 0, 0))])
    for sure, apart, independent in ((0.5, 30, 3), (0.9, 30, 2), (0.9, 60, 1)):
        survey = part(tmp_path, sure=sure, apart=apart).survey
        assert (survey.events, survey.independent) == (3, independent)


def test_what_events_do_not_know_has_no_chart(tmp_path: Path) -> None:
    plant(f"{tmp_path}/results", "fen/c1", [seen("a.jpg", 0, UNSURE)])
    found = part(tmp_path)
    assert found.charts == {}
    assert not found.declared
    assert found.unlocated.rows == [("fen/c1",)]
    assert (found.survey.events, found.survey.independent) == (1, 0)
