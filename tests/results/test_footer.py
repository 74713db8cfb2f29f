import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.result_files import parquet_with_damaged_footer
from tests.support.rows import COLUMNS, MARK, chunk, shard
from trapline.errors import StorageError
from trapline.results.fingerprint import Fingerprint
from trapline.results.footer import Footer, find, read_footer
from trapline.run.writer import commit
from trapline.storage import store


class TestReadFooter:
    @staticmethod
    def by_others(metadata: dict[str, str]) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), sink)
        return sink.getvalue()

    def test_takes_no_other_file_for_a_result(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        halves = {"trapline.shard": "{}", "trapline.fingerprint": "{}"}
        others = [
            b"",
            b"x" * 100,
            parquet_with_damaged_footer(),
            *map(self.by_others, ({}, {"trapline.shard": "{"}, halves)),
        ]
        for data in others:
            path.write_bytes(data)
            assert read_footer(store.stat(str(path))) is None

    def test_does_not_take_a_missing_file_or_a_broken_line_for_one_of_others(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path))
        commit([chunk(ours)], COLUMNS, MARK)
        entry = store.stat(ours.output)
        Path(ours.output).unlink()
        with pytest.raises(StorageError, match=r"0007\.tar\.parquet: not found"):
            read_footer(entry)

    @pytest.mark.parametrize(("before", "after"), [(3, 3000), (3000, 3)])
    def test_reads_a_result_that_was_replaced_since_it_was_listed(
        self, before: int, after: int, tmp_path: Path
    ) -> None:
        ours = shard(str(tmp_path))
        commit([chunk(ours, images=before)], COLUMNS, MARK)
        entry = store.stat(ours.output)
        footer = commit([chunk(ours, images=after)], COLUMNS, MARK)
        assert read_footer(entry) == footer

    def test_reads_a_footer_longer_than_the_first_request(self, tmp_path: Path) -> None:
        ours = shard(str(tmp_path))
        footer = replace(
            commit([chunk(ours)], COLUMNS, MARK), species={f"{number:03}{'x' * 500}": number for number in range(300)}
        )
        path = tmp_path / "long.parquet"
        pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(footer.to_metadata()), path)
        assert path.stat().st_size > 2 * 65_536
        assert find(str(path)) == footer

    def test_of_another_version_is_read_as_far_as_it_is_known(self) -> None:
        footer = Footer("s3://b/a.tar", "1-e", MARK, {"ok": 1})
        metadata = {name.encode(): value.encode() for name, value in footer.to_metadata().items()}
        plain = json.loads(metadata[b"trapline.shard"])
        del plain["broken"]
        plain["mood"] = "fine"
        assert Footer.from_metadata(metadata | {b"trapline.shard": json.dumps(plain).encode()}) == footer

    @pytest.mark.parametrize("broken", [None, "cut"])
    def test_metadata_and_back_is_the_same(self, broken: str | None) -> None:
        footer = Footer("s3://b/ü.tar", "1-e", MARK, {"ok": 1}, {"empty": 2}, {"wren": 1}, {".mp4": 3}, broken, 7)
        metadata = {name.encode(): value.encode() for name, value in footer.to_metadata().items()}
        assert Footer.from_metadata(metadata) == footer


@pytest.mark.parametrize(
    ("values", "has_clips"),
    [
        ({}, False),
        ({"ignored": {".txt": 1}, "reasons": {"truncated": 1}, "images": {"ok": 3}}, False),
        ({"clips": 1, "frames": 60}, True),
        ({"ignored": {".mp4": 1}}, True),  # --no-video
        ({"reasons": {"video": 1}}, True),  # the same, of a clip that is called an image
        ({"ignored": {"(other)": 1}}, True),  # of which it is not known
    ],
)
def test_options_for_clips_count_where_a_shard_holds_some(values: dict[str, Any], has_clips: bool) -> None:
    footer = Footer("s3://in/a.tar", "1-e", Fingerprint({"top_k": 2, "video_fps": 1.0}), **values)
    assert footer.has_clips == has_clips
    assert footer.depends_on.facts == ({"top_k": 2, "video_fps": 1.0} if has_clips else {"top_k": 2})
