import unicodedata
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from tests.support.result_files import Planted, columns, write_result
from trapline.analysis import dataset
from trapline.analysis.events import build
from trapline.analysis.events.build import Account, Options
from trapline.analysis.events.sessions import Gap
from trapline.cli import events as job
from trapline.errors import OutputConflict, UsageError

RESET = datetime(2000, 1, 1)
TRUE = datetime(2024, 5, 1, 12)


def at(moment: datetime, key: str = "") -> Planted:
    return Planted(
        key or f"{moment:%m-%dT%H%M%S}.jpg", np.log([0.5, 0.25, 0.25]), (0, 0), facts={"captured_at": moment}
    )


def plant(place: Path, **cameras: list[datetime]) -> None:
    for camera, moments in cameras.items():
        name = f"at=fen/{camera}/1.tar"
        images = [at(moment) for moment in moments]
        write_result(f"{place}/results", f"s3://in/{name}", name, images, columns("abc", 2))


def events(place: Path, table: str | None = None, replace: bool = False) -> tuple[Account, list[tuple[Any, ...]]]:
    if table is not None:
        (place / "clocks.csv").write_text(table)
    options = Options(Gap(), ["at={deployment}/{camera}"], f"{place}/clocks.csv" if table is not None else None)
    account = build.build(dataset.find(f"{place}/results"), f"{place}/events", options, replace)
    rows = duckdb.sql(f"""
        select camera, started_at, ended_at, clock_corrected from '{place}/events/events/*.parquet' order by all""")
    return account, rows.fetchall()


@pytest.mark.parametrize(
    "row",
    ["fen,,,,8887d 12:00:00,,", "fen,c1,,,,01-01T000000.jpg,2024-05-01T12:00:00", "fen,,1999-12-31,2000-01-01,+8887d 12:00,,"],
)  # fmt: skip
def test_a_clock_that_was_reset_is_corrected_by_an_offset_or_by_one_true_time(row: str, tmp_path: Path) -> None:
    plant(tmp_path, c1=[RESET, RESET + timedelta(seconds=20)], c2=[TRUE])
    account, found = events(tmp_path)
    assert account.unassigned == {"implausible_time": 2}
    assert found == [("c2", TRUE, TRUE, False)]
    with pytest.raises(OutputConflict, match="corrections_sha256"):
        events(tmp_path, f"deployment,camera,from,to,offset,image,true_time\n{row.replace('fen,,', 'fen,c1,', 1)}\n")
    table = f"deployment,camera,from,to,offset,image,true_time\n{row.replace('fen,,', 'fen,c1,', 1)}\n"
    account, found = events(tmp_path, table, replace=True)
    assert account.unassigned == {}
    assert found == [("c1", TRUE, TRUE + timedelta(seconds=20), True), ("c2", TRUE, TRUE, False)]
    images = duckdb.sql(f"select captured_at from '{tmp_path}/events/images/*.parquet' order by 1").fetchall()
    assert images == [(TRUE,), (TRUE,), (TRUE + timedelta(seconds=20),)]


def test_a_correction_is_of_its_period_only_and_the_first_that_applies_is_used(tmp_path: Path) -> None:
    plant(tmp_path, c1=[TRUE, TRUE + timedelta(days=1), TRUE + timedelta(days=2)])
    rows = ["fen,2024-05-02,2024-05-02,-00:02:30", "fen,2024-05-02T12:00:00,,01:00:00"]
    _, found = events(tmp_path, "\n".join(["deployment,from,to,offset", *rows]))
    assert [started - TRUE for _, started, _, _ in found] == [
        timedelta(0), timedelta(days=1, minutes=-2.5), timedelta(days=2, hours=1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("moor,,,,01:00:00,,", r"line 2: the results have no deployment 'moor', only such as 'fen'"),
        (",,,,01:00:00,,", "line 2: names no deployment"),
        ("fen,,,,1,,", "offset '1' is none; write hours"),
        ("fen,,,,,,", "give either an offset, or an image and its true_time"),
        ("fen,,,,01:00:00,x.jpg,2024-05-01", "give either an offset"),
        ("fen,,,,,x.jpg,2024-05-01", "has no image x.jpg"),
        ("fen,,,,,05-01T120000.jpg,2024-05-01T12:00:00", "several images 05-01T120000.jpg, such as s3://in/at=fen"),
        ("fen,,yesterday,,01:00:00,,", "from 'yesterday' is no time on the camera's clock"),
        ("fen,,2024-05-01T00:00:00Z,,01:00:00,,", "without a zone"),
        ("fen,c3,,,01:00:00,,", "deployment fen has no camera 'c3', only such as 'c1'"),
        ("fen,,2024-06-01,2024-05-01,01:00:00,,", "to 2024-05-01 lies before from 2024-06-01, so no time is between them"),
        ("fen,,,,3000000d 01:00:00,,", "wrong by 3,000,000 days, more than a century"),
        ("fen,c1,,,,05-01T120000.jpg,9999-05-01", "more than a century"),
    ],
)  # fmt: skip
def test_a_correction_that_is_none_is_refused_with_its_line(row: str, words: str, tmp_path: Path) -> None:
    plant(tmp_path, c1=[TRUE], c2=[TRUE])
    with pytest.raises(UsageError, match=rf"clocks\.csv: [^\n]*{words}"):
        events(tmp_path, f"deployment,camera,from,to,offset,image,true_time\n{row}\n")
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize(("image", "offset", "true_time"), [("é.jpg", "", "2024-05-01T12:00:00"), ("", "01:00:00", "")])
def test_names_in_another_unicode_form_are_those_of_the_results(
    image: str, offset: str, true_time: str, tmp_path: Path
) -> None:
    one, two = (lambda text, form=form: unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    name = two("at=Müritz/è/1.tar")
    rows = [at(TRUE - timedelta(hours=1), two("DCIM/é.jpg"))]
    write_result(f"{tmp_path}/results", f"s3://in/{name}", name, rows, columns("abc", 2))
    row = one(f"Müritz,è,{offset},{image},{true_time}")
    _, found = events(tmp_path, f"deployment,camera,offset,image,true_time\n{row}\n")
    assert found == [(two("è"), TRUE, TRUE, True)]


@pytest.mark.parametrize(
    "image", ["1.tar/b.jpg", "1.tar#b.jpg", "at=fen\\c1\\1.tar\\b.jpg", "s3://in/at=fen/c1/1.tar#b.jpg"]
)
def test_an_image_is_named_by_the_end_of_its_path_in_any_writing(image: str, tmp_path: Path) -> None:
    images = [at(RESET, "b.jpg"), at(RESET, "bb.jpg")]
    write_result(f"{tmp_path}/results", "s3://in/at=fen/c1/1.tar", "at=fen/c1/1.tar", images, columns("abc", 2))
    _, found = events(tmp_path, f"deployment,camera,image,true_time\nfen,c1,{image},2024-05-01T12:00:00\n")
    assert [started for _, started, _, _ in found] == [TRUE]


@pytest.mark.parametrize("image", ["s3://in/at=fen/c1/1.tar#a\\b.jpg", "a\\b.jpg", "a/b.jpg"])
def test_a_backslash_in_a_name_is_none_between_folders_either(image: str, tmp_path: Path) -> None:
    write_result(
        f"{tmp_path}/results", "s3://in/at=fen/c1/1.tar", "at=fen/c1/1.tar", [at(RESET, "a\\b.jpg")], columns("abc", 2)
    )
    _, found = events(tmp_path, f"deployment,camera,image,true_time\nfen,c1,{image},2024-05-01T12:00:00\n")
    assert [started for _, started, _, _ in found] == [TRUE]


@pytest.mark.parametrize("folder", ["/", "\\", "./"])
def test_a_folder_without_a_name_is_refused(folder: str, tmp_path: Path) -> None:
    plant(tmp_path, c1=[RESET])
    with pytest.raises(UsageError, match=r"line 2: folder .* names none"):
        events(tmp_path, f"deployment,folder,offset\nfen,{folder},01:00:00\n")


def test_a_clock_that_was_reset_twice_to_one_date_is_corrected_by_folder(tmp_path: Path) -> None:
    name = "at=fen/c1/1.tar"
    images = [at(RESET, "DCIM/card 1/a.jpg"), at(RESET, "DCIM/card 10/a.jpg"), at(RESET, "DCIM/é/a.jpg")]
    write_result(f"{tmp_path}/results", f"s3://in/{name}", name, images, columns("abc", 2))
    lines = ["deployment,folder,offset,image,true_time",
             "fen,card 1,,card 1/a.jpg,2024-05-01T12:00:00",
             "fen,1.tar\\DCIM\\card 10\\,8888d 12:00:00,,",
             "fen,e\u0301,8889d 12:00:00,,"]  # fmt: skip
    account, found = events(tmp_path, "\n".join(lines))
    assert [started for _, started, _, _ in found] == [TRUE + timedelta(days=days) for days in range(3)]
    assert account.unused == []
    with pytest.raises(OutputConflict, match="corrections_sha256"):
        events(tmp_path, "\n".join(lines).replace("DCIM\\card 10", "DCIM"))


def test_a_correction_that_no_image_needs_is_said_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, c1=[RESET, TRUE], c2=[TRUE])
    lines = ["deployment,camera,from,to,offset",
             "fen,c1,2024-05-01,2024-05-31,01:00:00",
             "", "fen,c1,2000-01-01,2000-01-31,8887d 12:00:00",
             "fen,c1,2000-01-01,2000-01-31,00:30:00",
             "fen,c2,2023-01-01,2023-12-31,00:30:00"]  # fmt: skip
    account, _ = events(tmp_path, "\n".join(lines))
    assert account.unused == [5, 6]
    arguments = ["--deployment-from", "at={deployment}/{camera}", "--corrections", f"{tmp_path}/clocks.csv"]
    assert job.main([f"{tmp_path}/results", f"{tmp_path}/events", *arguments]) == 0
    said = capsys.readouterr().out
    assert said.count("corrects no image") == 2
    assert f"note: {tmp_path}/clocks.csv: line 5 corrects no image" in said


def test_the_job_says_how_many_clocks_are_wrong_and_takes_corrections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, c1=[RESET, TRUE])
    arguments = [f"{tmp_path}/results", f"{tmp_path}/events", "--deployment-from", "at={deployment}/{camera}"]
    assert job.main(arguments) == 0
    assert "in no event 1 images 1 with an impossible time" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "clocks.csv").write_text("deployment,from,to,offset\nfen,2000-01-01,2000-12-31,8766d 00:00:00\n")
    assert job.main([*arguments, "--replace", "--corrections", f"{tmp_path}/clocks.csv"]) == 0
    assert "in no event" not in capsys.readouterr().out
