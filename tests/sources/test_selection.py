import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.archives import pictures, write_folder, write_tar
from trapline.errors import UsageError
from trapline.sources.selection import Part, newest_first, partitions, select
from trapline.sources.shards import Discovery, Shard, discover

DAY = datetime(2026, 11, 24, tzinfo=UTC)


def shard(path: str, arrived: datetime | None = DAY) -> Shard:
    kind = "tar" if path.endswith(".tar") else "folder"
    return Shard(f"s3://b/{path}", kind, 1, "1-e", f"out/{path}.parquet", arrived)  # type: ignore[arg-type]


def names(found: Discovery) -> list[str]:
    return [each.uri.removeprefix("s3://b/") for each in found.shards]


class TestWhere:
    FOUND = Discovery(
        [
            shard("site=12/year=2025/a.tar"),
            shard("site=12/year=2026/b.tar"),
            shard("site=13/year=2026/c.tar"),
            shard("site=14/year=2026"),  # loose images
            shard("other/site=12.tar"),  # a name, no partition
        ],
        {".mp4": 1},
    )

    @pytest.mark.parametrize(
        ("where", "left"),
        [
            (["site=12"], ["site=12/year=2025/a.tar", "site=12/year=2026/b.tar"]),
            (["site=12", "site=14"], ["site=12/year=2025/a.tar", "site=12/year=2026/b.tar", "site=14/year=2026"]),
            (["site=12", "year=2026"], ["site=12/year=2026/b.tar"]),
            (["year=2026", "site=13", "site=12"], ["site=12/year=2026/b.tar", "site=13/year=2026/c.tar"]),
        ],
    )
    def test_values_of_a_name_are_alternatives_and_names_are_conditions(
        self, where: list[str], left: list[str]
    ) -> None:
        found = select(self.FOUND, where=where)
        assert names(found) == left
        assert found.excluded == 5 - len(left)
        assert found.ignored == {".mp4": 1}

    def test_without_a_filter_all_are_meant(self) -> None:
        assert select(self.FOUND) == self.FOUND

    def test_what_matches_nothing_is_told_with_the_names_that_there_are(self) -> None:
        with pytest.raises(UsageError, match=r"--where site=99: no shard .* by site, year"):
            select(self.FOUND, where=["site=99"])
        with pytest.raises(UsageError, match="no folders of the form name=value"):
            select(Discovery([shard("a.tar")], {}), where=["site=99"])

    def test_a_value_is_compared_as_it_reads(self) -> None:
        assert partitions(shard("site=upper%20marsh/cam=a=b/a.tar")) == {"site": "upper marsh", "cam": "a=b"}


class TestSince:
    def test_older_shards_are_excluded_and_undated_ones_are_not(self) -> None:
        found = Discovery(
            [shard("old.tar", DAY - timedelta(seconds=1)), shard("new.tar"), shard("undated.tar", None)], {}
        )
        assert names(select(found, since=DAY)) == ["new.tar", "undated.tar"]

    def test_nothing_new_is_no_error(self) -> None:
        found = select(Discovery([shard("old.tar")], {}), since=DAY + timedelta(days=1))
        assert (found.shards, found.excluded) == ([], 1)

    @pytest.mark.parametrize("store", ["local", "s3"])
    def test_goes_by_when_a_shard_came(self, store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        archive = tmp_path / "archive"
        write_tar(archive / "a.tar", pictures(1))
        write_folder(archive / "loose", pictures(2, prefix=""))
        root = str(archive)
        if store == "s3":
            root = f"{request.getfixturevalue('bucket')}/archive"
            request.getfixturevalue("s3").filesystem().put(f"{archive}/", f"{root}/", recursive=True)
        before, after = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (-60, 2))
        found = discover([root], str(tmp_path / "out"))
        assert len(select(found, since=before).shards) == 2
        assert len(select(found, since=after).shards) == 0

    def test_a_copy_that_keeps_the_date_of_the_card_is_new_all_the_same(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "archive/a.tar", pictures(1))
        os.utime(path, (1_000_000_000, 1_000_000_000))  # as rsync -a and cp -p do
        found = discover([str(path.parent)], str(tmp_path / "out"))
        assert len(select(found, since=datetime.now(UTC) - timedelta(minutes=1)).shards) == 1

    def test_a_folder_is_as_new_as_the_newest_of_its_files(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "archive", pictures(2, prefix=""))
        first = discover([str(folder)], str(tmp_path / "out")).shards[0].arrived
        write_folder(folder, {"IMG_0001.json": b"{}", "notes.txt": b"x"})
        second = discover([str(folder)], str(tmp_path / "out")).shards[0].arrived
        assert first
        assert second
        assert second > first
        sidecar = (folder / "IMG_0001.json").stat().st_ctime
        assert second.timestamp() == pytest.approx(sidecar, abs=1e-3)


def test_the_newest_come_first_and_the_undated_last() -> None:
    shards = [
        shard("b.tar", DAY),
        shard("undated.tar", None),
        shard("a.tar", DAY),
        shard("new.tar", DAY + timedelta(hours=1)),
    ]
    assert [each.uri[7:] for each in newest_first(shards)] == ["new.tar", "a.tar", "b.tar", "undated.tar"]
    assert shards[0] == replace(shards[0], arrived=None)  # the date identifies nothing


class TestPart:
    @given(names=st.sets(st.text(max_size=30), max_size=50), of=st.integers(1, 20))
    def test_parts_are_a_partition_of_any_names(self, names: set[str], of: int) -> None:
        parts = [{name for name in names if Part(number, of).holds(name)} for number in range(1, of + 1)]
        assert sum(map(len, parts)) == len(names)
        assert set().union(*parts) == names

    @given(name=st.text(max_size=30), one=st.integers(1, 24), other=st.integers(1, 24), shift=st.integers(0, 23))
    def test_parts_that_hold_the_same_name_overlap(self, name: str, one: int, other: int, shift: int) -> None:
        mine, theirs = (
            next(Part(number, of) for number in range(1, of + 1) if Part(number, of).holds(name)) for of in (one, other)
        )
        assert mine.overlaps(theirs)
        assert mine.overlaps(Part(shift % one + 1, one)) == (mine.number == shift % one + 1)

    def test_parts_of_other_sizes_overlap_unless_no_remainder_is_common(self) -> None:
        assert not Part(1, 2).overlaps(Part(4, 8))
        assert Part(2, 2).overlaps(Part(4, 8))
        assert Part(1, 2).overlaps(Part(3, 3))

    def test_a_name_stays_in_the_part_that_it_was_in(self) -> None:
        # As the first release with parts had it: jobs that are upgraded one after another must not overlap.
        names = [f"site=12/{number:04}.tar.parquet" for number in range(8)]
        assert [next(n for n in range(1, 9) if Part(n, 8).holds(name)) for name in names] == [8, 7, 5, 1, 2, 5, 2, 6]

    def test_parts_are_about_as_large_as_each_other(self) -> None:
        held = [Part(3, 8).holds(f"site={number % 40}/{number:06}.tar.parquet") for number in range(20_000)]
        assert sum(held) == pytest.approx(2500, rel=0.08)

    @pytest.mark.parametrize("roots", [("archive", "out"), ("mounted/elsewhere", "results")])
    def test_it_depends_neither_on_where_the_archive_lies_nor_on_what_else_it_holds(
        self, roots: tuple[str, str], tmp_path: Path
    ) -> None:
        archive, output = (tmp_path / root for root in roots)
        for number in range(12):
            write_tar(archive / f"site=1/{number}.tar", pictures(1))
        found = select(discover([str(archive)], str(output)), part=Part(1, 3), output=str(output))
        assert [Path(each.uri).stem for each in found.shards] == ["3", "4"]
        assert found.excluded == 10
