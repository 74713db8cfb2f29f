from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from tests.support.result_files import parquet_with_damaged_footer
from tests.support.rows import COLUMNS, MARK, chunk, shard
from trapline.errors import OutputConflict
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer
from trapline.results.layout import SIDE_FOLDER, ledger_cache
from trapline.results.ledger import Result, plan, remember, survey
from trapline.run.writer import commit
from trapline.sources.shards import Shard, shortened
from trapline.storage import local, store
from trapline.storage.filesystems import resolve


class TestPlan:
    @pytest.fixture(params=["local", "s3"])
    def output(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"{request.getfixturevalue('bucket')}/results" if request.param == "s3" else str(tmp_path / "results")

    def test_without_an_output_everything_is_to_do(self, output: str) -> None:
        shards = [shard(output, "a.tar"), shard(output, "b.tar")]
        found = plan(shards, output, MARK, replace=False)
        assert (found.todo, found.done) == (shards, [])

    def test_what_stands_is_done_and_what_changed_is_to_do_again(self, output: str) -> None:
        same, changed, new = (shard(output, f"site=fen/{name}.tar") for name in ("same", "changed", "new"))
        footers = {each: commit([chunk(each)], COLUMNS, MARK) for each in (same, changed)}
        changed = replace(changed, identity="12345-e2")
        found = plan([changed, new, same], output, MARK, replace=False)
        assert found.todo == [changed, new]
        assert found.done == [Result.of(store.stat(same.output), footers[same])]


class TestOptionsForClips:
    """Results with clips, and with none, that were written with one frame a second; the next run wants another."""

    ONE, TWO, NONE = (Fingerprint({**MARK.facts, **video}) for video in ({"video_fps": 1.0}, {"video_fps": 2.0}, {"video": False}))  # fmt: skip

    def put(self, of: Shard, mark: Fingerprint = ONE, **values: Any) -> None:
        metadata = Footer(of.uri, of.identity, mark, {"ok": 1, "salvaged": 0, "failed": 0}, **values).to_metadata()
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), sink)
        store.put(of.output, sink.getvalue().to_pybytes())

    def test_do_not_matter_to_shards_without_clips(self, tmp_path: Path) -> None:
        ours = [shard(str(tmp_path), f"{name}.tar") for name in "abc"]
        for each, mark in zip(ours, (self.ONE, self.TWO, self.NONE), strict=True):
            self.put(each, mark)
        for mark in (self.ONE, self.TWO, self.NONE):
            for remembered in (False, True):
                found = plan(ours, str(tmp_path), mark, replace=False)
                assert (found.todo, len(found.done)) == ([], 3)
                if not remembered:
                    remember(str(tmp_path), found.results)
        with pytest.raises(OutputConflict, match=r"3 of 3 .* settings \(top_k: 2 -> 9\);"):
            plan(ours, str(tmp_path), Fingerprint({**self.TWO.facts, "top_k": 9}), replace=False)

    @pytest.mark.parametrize("values", [{"clips": 1}, {"ignored": {".avi": 2}}])
    def test_matter_to_shards_with_clips(self, tmp_path: Path, values: dict[str, Any]) -> None:
        ours = [shard(str(tmp_path), f"{name}.tar") for name in "ab"]
        self.put(ours[0])
        self.put(ours[1], **values)
        assert plan(ours, str(tmp_path), self.ONE, replace=False).todo == []
        with pytest.raises(OutputConflict, match=r"1 of 2 .* settings \(video_fps: 1.0 -> 2.0\);"):
            plan(ours, str(tmp_path), self.TWO, replace=False)
        assert plan(ours, str(tmp_path), self.TWO, replace=True).todo == ours[1:]

    def test_a_cache_of_an_earlier_version_is_read_again(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path), "a.tar")
        self.put(ours)
        found = survey(str(tmp_path))
        remember(str(tmp_path), found)
        cache = ledger_cache(str(tmp_path))
        table = pq.read_table(cache).drop_columns(["image_fingerprint"])
        pq.write_table(table.set_column(4, "fingerprint", pa.array([self.ONE.digest])), cache)
        assert survey(str(tmp_path)) == found


class TestPlanOnConflict:
    def test_results_computed_otherwise_stop_the_run(self, tmp_path: Path) -> None:
        output = str(tmp_path)
        shards = [shard(output, f"{name}.tar") for name in "abc"]
        for each, top_k in zip(shards, (2, 3, 3), strict=True):
            commit([chunk(each)], COLUMNS, Fingerprint({**MARK.facts, "top_k": top_k}))
        message = rf"^{output}: 2 of 3 results were written with different settings \(top_k: 3 -> 2\); choose another OUTPUT.*--replace$"
        with pytest.raises(OutputConflict, match=message):
            plan(shards, output, MARK, replace=False)
        found = plan(shards, output, MARK, replace=True)
        assert found.todo == shards[1:]
        assert [result.shard for result in found.done] == [shards[0].uri]

    def test_also_those_of_shards_that_are_no_longer_in_the_input(self, tmp_path: Path) -> None:
        gone, ours = shard(str(tmp_path), "gone.tar"), shard(str(tmp_path), "a.tar")
        commit([chunk(gone)], COLUMNS, Fingerprint({**MARK.facts, "top_k": 3}))
        with pytest.raises(
            OutputConflict, match=r"1 of 1 results were written with different settings \(top_k: 3 -> 2\)"
        ):
            plan([ours], str(tmp_path), MARK, replace=False)
        assert plan([ours], str(tmp_path), MARK, replace=True).results_with_other_fingerprint == 1
        assert plan([gone], str(tmp_path), MARK, replace=True).results_with_other_fingerprint == 0

    @pytest.mark.parametrize("may_replace", [False, True])
    def test_a_shard_never_stands_under_two_names(self, tmp_path: Path, may_replace: bool) -> None:
        before = shard(str(tmp_path), "cam1/a.tar")
        commit([chunk(before)], COLUMNS, MARK)
        now = replace(before, output=f"{tmp_path}/a.tar.parquet")
        with pytest.raises(OutputConflict, match=r"cam1/a\.tar\.parquet: holds the rows of .*a second time in .*INPUT"):
            plan([now], str(tmp_path), MARK, replace=may_replace)

    @pytest.mark.parametrize("may_replace", [False, True])
    def test_a_result_whose_name_an_earlier_version_did_not_shorten_is_to_be_moved(self, may_replace: bool) -> None:
        before = shard("s3://b/out", f"{'n' * 250}.tar")
        now = replace(before, output=shortened(before.output))
        old = Result(before.output, "1-e", before.uri, before.identity, MARK.digest, ok=3)
        with pytest.raises(OutputConflict) as caught:
            plan([now], "s3://b/out", MARK, may_replace, [old])
        assert str(caught.value).endswith(f"; move it to {now.output}")
        assert plan([now], "s3://b/out", MARK, may_replace, [replace(old, url=now.output)]).todo == []

    @pytest.mark.parametrize("may_replace", [False, True])
    def test_rows_of_another_shard_are_never_in_the_way_of_ours(self, tmp_path: Path, may_replace: bool) -> None:
        ours = shard(str(tmp_path))
        commit([chunk(replace(ours, uri="s3://other/0007.tar"))], COLUMNS, MARK)
        with pytest.raises(
            OutputConflict, match=r"holds the rows of s3://other/0007\.tar, not of s3://archive/.*; choose"
        ):
            plan([ours], str(tmp_path), MARK, replace=may_replace)

    @pytest.mark.parametrize("may_replace", [False, True])
    @pytest.mark.parametrize("data", [b"somebody's", parquet_with_damaged_footer()])
    def test_nor_is_a_file_that_is_not_ours(self, tmp_path: Path, may_replace: bool, data: bytes) -> None:
        ours = shard(str(tmp_path), "a.tar")
        Path(ours.output).write_bytes(data)
        with pytest.raises(OutputConflict, match=r"a\.tar\.parquet: not written by Trapline, or damaged, and in the"):
            plan([ours], str(tmp_path), MARK, replace=may_replace)

    def test_but_an_empty_file_holds_nothing_and_is_overwritten(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path), "a.tar")
        Path(ours.output).touch()
        for _ in range(2):  # the second time by the cache
            found = plan([ours], str(tmp_path), MARK, replace=False)
            assert found.todo == [ours]
            remember(str(tmp_path), found.results)
        commit([chunk(ours)], COLUMNS, MARK)
        assert plan([ours], str(tmp_path), MARK, replace=False).todo == []

    def test_other_files_in_output_are_nobodys_business(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path), "a.tar")
        commit([chunk(ours)], COLUMNS, MARK)
        (tmp_path / local.temporary_name()).write_bytes(b"left behind by a power cut")
        (tmp_path / "notes.txt").write_bytes(b"x")
        (tmp_path / "other.parquet").write_bytes(b"x")
        found = plan([ours], str(tmp_path), MARK, replace=False)
        assert (found.todo, [result.shard for result in found.done]) == ([], [ours.uri])


class TestWhatPlanReads:
    """A nightly run over a million done shards reads their footers, and nothing else."""

    @pytest.fixture
    def commit_some(self) -> Callable[[str], list[Shard]]:
        def make(output: str) -> list[Shard]:
            shards = [shard(output, f"{name}.tar") for name in "abc"]
            for each in shards:
                commit([chunk(each, images=2500)], COLUMNS, MARK)
            return shards

        return make

    def test_of_objects_is_their_ends_in_a_few_requests(
        self, bucket: str, commit_some: Callable[[str], list[Shard]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shards = commit_some(bucket)
        call = s3fs.S3FileSystem._call_s3
        requests: list[tuple[str, int]] = []

        async def logged(fs: s3fs.S3FileSystem, method: str, *args: Any, **kwargs: Any) -> Any:
            first, _, end = kwargs.get("Range", "").removeprefix("bytes=").partition("-")
            requests.append((method, int(end) - int(first) + 1 if end else 0))
            return await call(fs, method, *args, **kwargs)

        monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", logged)
        assert len(plan(shards, bucket, MARK, replace=False).done) == 3
        assert {size for method, size in requests if method == "get_object"} == {65_536}
        # One listing, and of each result its end.
        assert Counter(method for method, _ in requests) == {"list_objects_v2": 1, "get_object": 3}


class TestTheCache:
    @pytest.fixture(params=["local", "s3"])
    def output(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        return f"{request.getfixturevalue('bucket')}/results" if request.param == "s3" else str(tmp_path / "results")

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names of files whose footers are read."""
        names: list[str] = []
        read_end = store.read_end

        def logged(entry: store.Entry, length: int) -> bytes:
            names.append(entry.url.rpartition("/")[2])
            return read_end(entry, length)

        monkeypatch.setattr(store, "read_end", logged)
        return names

    def test_spares_the_footers_that_it_knows_and_no_other(self, output: str, read: list[str]) -> None:
        for name in "ab":
            commit([chunk(shard(output, f"{name}.tar"))], COLUMNS, MARK)
        store.put(f"{output}/other.parquet", b"x" * 1000)
        first = survey(output)
        remember(output, first)
        assert sorted(read) == ["a.tar.parquet", "b.tar.parquet", "other.parquet"]
        read.clear()
        assert survey(output) == first
        assert read == []
        commit([chunk(shard(output, "b.tar"), images=7)], COLUMNS, MARK)
        commit([chunk(shard(output, "c.tar"))], COLUMNS, MARK)
        assert [result.images for result in survey(output)] == [3, 7, 3, 0]
        assert sorted(read) == ["b.tar.parquet", "c.tar.parquet"]

    def test_is_not_the_book_of_record(self, output: str) -> None:
        shards = [shard(output, f"{name}.tar") for name in "ab"]
        for each in shards:
            commit([chunk(each)], COLUMNS, MARK)
        remember(output, survey(output))
        fs, path = resolve(shards[0].output)
        fs.rm_file(path)
        assert plan(shards, output, MARK, replace=False).todo == shards[:1]

    @pytest.mark.parametrize("data", [b"", b"no Parquet", b"PAR1PAR1"])
    def test_that_is_damaged_costs_only_time(self, tmp_path: Path, data: bytes) -> None:
        output = str(tmp_path)
        commit([chunk(shard(output, "a.tar"))], COLUMNS, MARK)
        first = survey(output)
        remember(output, first)
        cache = next((tmp_path / SIDE_FOLDER).iterdir())
        cache.write_bytes(data)
        assert survey(output) == first

    def test_of_another_version_costs_only_time(self, tmp_path: Path) -> None:
        output = str(tmp_path)
        commit([chunk(shard(output, "a.tar"))], COLUMNS, MARK)
        first = survey(output)
        remember(output, first)
        cache = next((tmp_path / SIDE_FOLDER).iterdir())
        pq.write_table(pq.read_table(pa.BufferReader(cache.read_bytes())).drop_columns("failed"), cache)
        assert survey(output) == first

    def test_looks_like_no_result(self, tmp_path: Path) -> None:
        remember(str(tmp_path), [])
        assert list(tmp_path.rglob("*.parquet")) == []
