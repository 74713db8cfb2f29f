"""The object store misbehaves, through a proxy before a real one: transient trouble costs time, and nothing else."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from tests.support.archives import pictures, write_tar
from tests.support.faulty_store import Fault, FaultyStore, faulty_store
from tests.support.progress import Silent
from tests.support.reading import read_all
from tests.support.rows import COLUMNS, MARK, chunk, shard
from tests.support.servers import S3Server
from trapline.config import RunConfig
from trapline.errors import StorageError, TransientError
from trapline.results.footer import find
from trapline.results.verify import reconcile
from trapline.run.classify import classify
from trapline.run.progress import Progress
from trapline.run.writer import commit
from trapline.sources.shards import discover
from trapline.storage import deadlines, retry, store
from trapline.storage import s3 as s3_storage
from trapline.storage.s3 import S3Files

DATA = bytes(range(256)) * 4096


@pytest.fixture
def faulty(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The way to the store leads through a proxy, for this test; pauses between tries are short."""
    monkeypatch.setattr(retry, "_PAUSES", (0.05,) * 5)
    # Before botocore's own retry; by itself half a second on average.
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.05)
    S3Files.clear_instance_cache()
    with faulty_store(s3) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.server.endpoint)
        yield faulty
    S3Files.clear_instance_cache()


def tries(url: str) -> dict[str, Callable[[], object]]:
    """Each way to use the store, and what it must give."""
    return {
        "list": lambda: [entry.url for entry in store.list_files(url)],
        "stat": lambda: store.stat(f"{url}/a").size,
        "read": lambda: store.read_many([f"{url}/a"]),
        "end": lambda: store.read_end(store.stat(f"{url}/a"), 1000),
        "stream": lambda: _stream(f"{url}/a"),
        "put": lambda: (store.put(f"{url}/b", DATA), store.read_many([f"{url}/b"])),
    }


def _stream(url: str) -> bytes:
    with store.open_unchanged(url, store.stat(url).identity) as stream:
        return b"".join(iter(lambda: stream.read(100_000), b""))


WAYS = list(tries(""))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("error", {"code": "SlowDown", "status": 503, "times": 4}),
        ("error", {"code": "InternalError", "status": 500, "times": 4}),
        ("reset", {"times": 4}),
        ("cut", {"times": 2}),
    ],
)
def test_trouble_that_passes_costs_nothing_but_time(
    kind: str, options: dict[str, object], way: str, faulty: FaultyStore, bucket: str
) -> None:
    store.put(f"{bucket}/x/a", DATA)
    expected = tries(f"{bucket}/x")[way]()
    fault = Fault(kind, r"/x|prefix=x", **options)  # type: ignore[arg-type]
    faulty.faults.append(fault)
    assert tries(f"{bucket}/x")[way]() == expected
    assert fault.times < options["times"], "it did not strike"  # type: ignore[operator]


@pytest.mark.parametrize("way", WAYS)
def test_trouble_that_stays_is_told_in_the_stores_own_words_and_soon(
    way: str, faulty: FaultyStore, bucket: str
) -> None:
    store.put(f"{bucket}/x/a", DATA)
    faulty.faults.append(Fault("error", r"/x|prefix=x"))
    before = len(faulty.log)
    with pytest.raises(TransientError, match=r"SlowDown|reduce your request rate|Service Unavailable"):
        tries(f"{bucket}/x")[way]()
    # Six tries, each of them twice (and one stat before); not those of three layers multiplied.
    assert len(faulty.log) - before <= 6 * 2 + 2


@pytest.mark.parametrize("way", WAYS)
def test_what_is_denied_is_told_at_once(way: str, faulty: FaultyStore, bucket: str) -> None:
    store.put(f"{bucket}/x/a", DATA)
    faulty.faults.append(Fault("error", r"/x|prefix=x", code="AccessDenied", status=403))
    before = len(faulty.log)
    with pytest.raises(StorageError, match="access denied"):
        tries(f"{bucket}/x")[way]()
    assert len(faulty.log) - before <= 2


def test_a_store_that_stalls_is_asked_again(faulty: FaultyStore, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(s3_storage.OPTIONS["config_kwargs"], "read_timeout", 1.5)
    S3Files.clear_instance_cache()
    store.put(f"{bucket}/x/a", DATA)
    faulty.faults.append(Fault("stall", r"GET .*/x/a", times=3, seconds=4))
    assert store.read_many([f"{bucket}/x/a"]) == [DATA]
    assert not faulty.faults[0].times
    assert faulty.asked(r"GET .*/x/a") >= 4


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_freezes_is_given_up_and_used_again(
    way: str, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(f"{bucket}/x/a", DATA)
    expected = tries(f"{bucket}/x")[way]()
    s3.process.send_signal(signal.SIGSTOP)
    while {path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{s3.process.pid}/task").glob("*/stat")} != {
        "T"
    }:
        time.sleep(0.01)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(retry, "_PAUSES", (0.01,))
            patch.setattr(deadlines, "SILENCE", 0.3)
            with pytest.raises(TransientError, match=r"s3://.*cancelled"):
                tries(f"{bucket}/x")[way]()
    finally:
        s3.process.send_signal(signal.SIGCONT)
    assert tries(f"{bucket}/x")[way]() == expected


def test_a_shard_streams_through_broken_connections_as_if_there_were_none(
    faulty: FaultyStore, bucket: str, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store._STREAM, "block_size", 2**16)
    path = write_tar(tmp_path / "a.tar", {name: data * 9 for name, data in pictures(40).items()})
    s3.filesystem().put(str(path), f"{bucket}/a.tar")
    expected = read_all(f"{bucket}/a.tar")
    assert (expected.error, len(expected.records)) == (None, 40)
    faulty.faults += [Fault("cut", r"GET .*a\.tar", times=3), Fault("reset", r"GET .*a\.tar", times=3)]
    found = read_all(f"{bucket}/a.tar")
    assert (found.error, found.records) == (None, expected.records)
    assert not any(fault.times for fault in faulty.faults)


def test_a_put_that_dies_halfway_leaves_nothing_and_the_next_try_all(faulty: FaultyStore, bucket: str) -> None:
    ours = shard(f"{bucket}/out")
    faulty.faults.append(Fault("cut", r"PUT .*/out/"))
    with pytest.raises(TransientError, match=r"0007\.tar\.parquet"):
        commit([chunk(ours)], COLUMNS, MARK)
    assert store.list_files(f"{bucket}/out", missing_ok=True) == []
    faulty.faults[0].times = 3
    footer = commit([chunk(ours)], COLUMNS, MARK)
    assert find(ours.output) == footer


def test_a_put_that_dies_halfway_keeps_what_stood_there(faulty: FaultyStore, bucket: str) -> None:
    ours = shard(f"{bucket}/out")
    before = commit([chunk(ours)], COLUMNS, MARK)
    faulty.faults.append(Fault("cut", r"PUT .*/out/"))
    with pytest.raises(TransientError):
        commit([chunk(ours, images=9)], COLUMNS, MARK)
    assert find(ours.output) == before


@pytest.mark.usefixtures("ray_session")
class TestARun:
    """Its workers go to the store directly, as the session was started before; its driver goes through the proxy."""

    @pytest.fixture
    def archive(self, bucket: str, s3: S3Server, tmp_path: Path) -> str:
        for number in range(4):
            path = write_tar(tmp_path / f"archive/{number}.tar", pictures(5, first=10 * number))
            s3.filesystem().put(str(path), f"{bucket}/archive/{number}.tar")
        return f"{bucket}/archive"

    @pytest.fixture
    def config(self, archive: str, bucket: str, tiny_model: Path) -> RunConfig:
        return RunConfig(inputs=(archive,), output=f"{bucket}/out", model=str(tiny_model))

    def test_a_file_that_cannot_be_written_fails_alone_and_the_next_run_makes_up_for_it(
        self, config: RunConfig, faulty: FaultyStore
    ) -> None:
        faulty.faults.append(Fault("error", r"PUT .*/out/2\.tar", code="AccessDenied", status=403))
        manifest = classify(config, Silent())
        assert (manifest.status, manifest.shards_committed) == ("incomplete", 3)
        ((uri, reason),) = manifest.shards_failed.items()
        assert uri.endswith("archive/2.tar")
        assert "access denied" in reason
        assert "AccessDenied" in reason
        faulty.faults.clear()
        again = classify(config, Silent())
        assert (again.status, again.shards_committed, again.shards_already_done) == ("complete", 1, 3)
        assert all(finding.good for finding in reconcile(config.inputs, config.output))

    def test_a_store_that_takes_no_file_ends_it(self, config: RunConfig, faulty: FaultyStore) -> None:
        faulty.faults.append(Fault("error", r"PUT .*/out/\d", code="AccessDenied", status=403))
        with pytest.raises(StorageError, match="access denied"):
            classify(config, Silent())
        runs = store.list_files(f"{config.output}/_trapline/runs")
        (manifest,) = store.read_many([run.url for run in runs])
        assert b'"status": "aborted"' in manifest
        assert b"AccessDenied" in manifest

    def test_an_output_bucket_that_vanishes_ends_it_and_comes_back_to_life(
        self, config: RunConfig, s3: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = f"{config.output.removesuffix('/out')}-results"
        config = config.model_copy(update={"output": f"{name}/out"})
        s3.make_bucket(name)

        class Vandal(Silent):
            """Removes the bucket once the first result is in it."""

            def __call__(self, progress: Progress) -> None:
                if progress.shards.committed and s3.filesystem().exists(name):
                    s3.filesystem().rm(name, recursive=True)

        with pytest.raises(StorageError, match="The specified bucket does not exist"):
            classify(config, Vandal())
        s3.make_bucket(name)
        assert classify(config, Silent()).shards_committed == 4
        assert all(finding.good for finding in reconcile(config.inputs, config.output))

    def test_a_listing_that_is_stale_costs_nothing_but_time(self, config: RunConfig, faulty: FaultyStore) -> None:
        config = config.model_copy(update={"limit": 2})
        # From the first night on, OUTPUT is listed as it was before: empty.
        faulty.faults.append(Fault("replay", r"GET .*list-type=2.*prefix=out"))
        assert classify(config, Silent()).shards_committed == 2
        again = classify(config, Silent())
        # The workers see for themselves what is done.
        assert (again.shards_committed, again.shards_already_done) == (0, 2)
        faulty.faults.clear()
        assert classify(config, Silent()).shards_committed == 2
        assert all(finding.good for finding in reconcile(config.inputs, config.output))


@pytest.mark.usefixtures("ray_session")
class TestAChangingInput:
    def test_a_shard_that_was_replaced_or_deleted_after_the_listing(
        self, bucket: str, s3: S3Server, tmp_path: Path, tiny_model: Path
    ) -> None:
        for name in ("deleted", "replaced", "same"):
            s3.filesystem().put(str(write_tar(tmp_path / f"{name}.tar", pictures(5))), f"{bucket}/in/{name}.tar")
        config = RunConfig(inputs=(f"{bucket}/in",), output=f"{bucket}/out", model=str(tiny_model))

        before = discover(config.inputs, config.output)
        s3.filesystem().rm(f"{bucket}/in/deleted.tar")
        s3.filesystem().put(str(write_tar(tmp_path / "replaced.tar", pictures(7))), f"{bucket}/in/replaced.tar")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trapline.run.prepare.discover", lambda *_: before)
            manifest = classify(config, Silent())
        assert (manifest.status, manifest.images["ok"]) == ("incomplete", 12)
        assert list(manifest.shards_failed) == [f"{bucket}/in/deleted.tar"]
        assert "disappeared after it was listed" in manifest.shards_failed[f"{bucket}/in/deleted.tar"]
        assert all(finding.good for finding in reconcile(config.inputs, config.output))
