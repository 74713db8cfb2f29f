"""The recipes of docs/recipes.md are run as they stand there, on an archive whose answers are known."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support import r_session
from tests.support.checkout import ROOT
from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.flat_tables import build

PAGE = (ROOT / "docs" / "recipes.md").read_text()
QUESTIONS = [
    "Which species is where?",
    "When is each species active?",
    "Which pictures are the most doubtful?",
    "What failed, and on which camera?",
    "Which species are new at a site?",
]
LAYOUTS = ["partitioned", "plain"]


def blocks(heading: str) -> dict[str, str]:
    """The code under a heading, by what follows its fence."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^```([^\n]+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def seen(key: str, species: str, when: datetime | None = None, sure: bool = True, energy: float = 5) -> Planted:
    """An image with this species as its first class, more or less sure of it; `energy` is nearly the larger logit."""
    large, small = (energy, energy - 5) if sure else (energy, energy - 0.1)
    third = energy - 0.2 if not sure else energy - 5
    logits = {"owl": (large, small, third), "robin": (small, large, third)}[species]
    return Planted(key, logits, (1, 0), facts={"captured_at": when, "camera_model": "HP2X"})


def failed(key: str, reason: str, model: str | None = None) -> Planted:
    return Planted(key, status="failed", error=f"{reason}: it is: so", facts={"camera_model": model})


MAY, JUNE = datetime(2024, 5, 17, 3, 12), datetime(2024, 6, 1, 3, 0)
FEN = [
    seen("1", "owl", MAY),
    seen("2", "owl", JUNE),
    seen("3", "robin", JUNE),
    replace(seen("3", "owl", MAY), facts={"captured_at": MAY, "media_type": "video", "frame_seconds": 1.0}),
    seen("4", "robin", MAY, sure=False, energy=2),  # not sure enough to have been seen in May
    failed("5", "empty"),
    failed("6", "corrupt", "HP2X"),
]
MARSH = [seen("1", "owl", datetime(2024, 7, 1, 23)), seen("2", "robin", None), failed("3", "corrupt", "HP2X")]


@pytest.fixture(params=LAYOUTS)
def archive(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Results of two sites, whose names are one number, in the current folder; and how they are laid out."""
    monkeypatch.chdir(tmp_path)
    of = columns(["owl", "robin", "heron"], 2)
    prefix = "site=" if request.param == "partitioned" else ""
    for site, images in (("007", FEN), ("7", MARSH)):
        name = f"{prefix}{site}/7.tar"
        write_result(str(tmp_path / "results"), f"s3://in/{name}", name, images, of)
    (tmp_path / "results" / "_trapline").mkdir()
    (tmp_path / "results" / "_trapline" / "ledger.cache").write_bytes(b"no data")
    return str(request.param)


def expected(layout: str) -> dict[str, list[tuple[Any, ...]]]:
    site = "site=" if layout == "partitioned" else ""
    uri = f"s3://in/{site}"
    return {
        QUESTIONS[0]: [("007", "owl", 2), ("007", "robin", 1), ("7", "owl", 1), ("7", "robin", 1)],
        QUESTIONS[1]: [("owl", 3, 2), ("owl", 23, 1), ("robin", 3, 1)],
        QUESTIONS[2]: [
            (f"{uri}007/7.tar#4", "robin"),
            (f"{uri}007/7.tar#1", "owl"),
            (f"{uri}007/7.tar#2", "owl"),
            (f"{uri}007/7.tar#3", "robin"),
            (f"{uri}7/7.tar#1", "owl"),
            (f"{uri}7/7.tar#2", "robin"),
        ],
        QUESTIONS[3]: [("corrupt", "HP2X", 2), ("empty", None, 1)],
        QUESTIONS[4]: [
            ("007", "robin", JUNE),
            ("7", "owl", datetime(2024, 7, 1, 23)),
        ],
    }


def in_duckdb(layout: str, question: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.execute(blocks("Open the results")[f"sql {layout}"])
        return connection.execute(blocks(question)["sql"]).fetchall()


def in_polars(layout: str, question: str) -> list[tuple[Any, ...]]:
    names: dict[str, Any] = {}
    exec(blocks("Open the results")[f"python {layout}"], names)
    exec(blocks(question)["python"], names)
    rows: list[tuple[Any, ...]] = names["answer"].rows()
    return rows


@pytest.mark.parametrize("question", QUESTIONS)
def test_duckdb_and_polars_give_the_one_right_answer(archive: str, question: str) -> None:
    answer = in_duckdb(archive, question)
    width = len(expected(archive)[question][0])
    assert [row[:width] for row in answer] == expected(archive)[question]
    assert in_polars(archive, question) == answer


def in_r(opening: str, questions: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """The answers to some questions, in one session; a time is text, as R prints it."""
    code = [opening, "answers <- list()"]
    for question in questions:
        code.append(blocks(question)["r"])
        code.append(
            'answer <- mutate(answer, across(where(~ inherits(., "POSIXct")), ~ format(., "%Y-%m-%d %H:%M:%S")))'
        )
        code.append("answers <- c(answers, list(answer))")
    code.append('cat(jsonlite::toJSON(answers, dataframe = "values", na = "null"))')
    return [list(map(tuple, rows)) for rows in r_session.answer("\n".join(code))]


def as_r_prints(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple(str(value) if isinstance(value, datetime) else value for value in row) for row in rows]


def agrees(found: list[list[tuple[Any, ...]]], wanted: list[list[tuple[Any, ...]]]) -> None:
    width = [len(rows[0]) for rows in wanted]
    assert [[row[:w] for row in rows] for rows, w in zip(found, width, strict=True)] == list(map(as_r_prints, wanted))


@pytest.mark.slow
def test_r_gives_it_too(archive: str) -> None:
    r_session.require("arrow", "dplyr", "lubridate", "jsonlite")
    found = in_r(blocks("Open the results")[f"r {archive}"], QUESTIONS)
    agrees(found, [expected(archive)[question] for question in QUESTIONS])


@pytest.mark.slow
def test_r_without_arrow_gives_it_of_rows_that_came_through_csv(archive: str) -> None:
    r_session.require("dplyr", "lubridate", "jsonlite")
    build.build(dataset.find("results"), "tables")
    recipe = blocks("Tables")
    duckdb.execute(recipe["sql csv"])
    wanted = [expected(archive)[question] for question in QUESTIONS]
    prefix = "site=" if archive == "partitioned" else ""
    wanted[0] = [(f"{prefix}{site}", *row) for site, *row in wanted[0]]
    wanted[4] = [(f"{prefix}{site}", *row) for site, *row in wanted[4]]
    agrees(in_r(recipe["r csv"], QUESTIONS), wanted)


def test_each_question_is_answered_in_three_languages() -> None:
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert headings == ["Open the results", *QUESTIONS, "Tables"]
    assert all(list(blocks(question)) == ["sql", "python", "r"] for question in QUESTIONS)


def test_tables_are_opened_as_the_page_says(archive: str) -> None:
    build.build(dataset.find("results"), "tables")
    site = "site=" if archive == "partitioned" else ""
    with duckdb.connect() as connection:
        assert connection.execute(blocks("Tables")["sql tables"]).fetchall() == [
            (f"{site}007", "owl", 2),
            (f"{site}007", "robin", 1),
            (f"{site}7", "owl", 1),
            (f"{site}7", "robin", 1),
        ]
    names: dict[str, Any] = {}
    exec(blocks("Tables")["python tables"], names)
    assert set(names["scanned"].collect()["folder"]) == set(names["images"]["folder"]) == {f"{site}007", f"{site}7"}


def test_an_archive_that_is_partitioned_here_and_there_takes_the_plain_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of = columns(["owl", "robin", "heron"], 2)
    for name in ("site=fen/7.tar", "marsh/7.tar"):
        write_result(str(tmp_path / "results"), f"s3://in/{name}", name, [seen("1", "owl")], of)
    with pytest.raises(duckdb.Error, match="Hive partition mismatch"):
        in_duckdb("partitioned", QUESTIONS[0])
    answer = [("marsh", "owl", 1), ("site=fen", "owl", 1)]
    assert in_duckdb("plain", QUESTIONS[0]) == in_polars("plain", QUESTIONS[0]) == answer
