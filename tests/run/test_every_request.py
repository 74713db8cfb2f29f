"""Whatever request to the store fails, is cut, or is the last that a driver lives to see: in the end each image is one row.

The method is SQLite's for I/O errors: count the requests of a sound run, then let the n-th one fail, for every n, and look
at what is left. A run takes seconds, so the n are drawn; TRAPLINE_FAULT_SEED draws others, and TRAPLINE_FAULTS more of them.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tests.support.archives import jpeg, write_tar
from tests.support.clips import clip
from tests.support.faulty_store import Fault, FaultyStore, faulty_store
from tests.support.nights import Night, seeded
from tests.support.servers import RayHead, S3Server, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS, IMAGES = 3, 4  # images of a shard, the last of them a clip
DRAWN = int(os.environ.get("TRAPLINE_FAULTS", "4"))
SEED = int(os.environ.get("TRAPLINE_FAULT_SEED", "20261129"))
# All requests that Trapline makes go to one of these folders of the bucket.
ANY = r"bucket-\d+(/|\?)"


@pytest.fixture
def store(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    with faulty_store(s3) as faulty:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", faulty.server.endpoint)
        yield faulty


@pytest.fixture
def head(store: FaultyStore, tmp_path: Path) -> Iterator[RayHead]:
    """A cluster whose workers, too, go through the proxy; it outlives the drivers that are killed."""
    with ray_head(tmp_path) as head:
        yield head


@pytest.fixture
def night(s3: S3Server, bucket: str, tmp_path: Path, tiny_model: Path) -> Night:
    for shard in range(SHARDS):
        pictures = {f"{n}.jpg": jpeg(10 * shard + n) for n in range(IMAGES - 1)}
        write_tar(tmp_path / f"archive/{shard}.tar", pictures | {"film.mp4": clip(frames=11 + shard)})
    s3.filesystem().put(f"{tmp_path}/archive/", f"{bucket}/in/", recursive=True)
    return Night(tmp_path / "archive", f"{bucket}/out", tiny_model, inputs=f"{bucket}/in")


def test_the_nth_request_fails_and_no_row_is_lost_or_doubled(
    night: Night, store: FaultyStore, head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = {"RAY_ADDRESS": head.gcs_address, "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "1"}
    night.finish(env=cluster)
    assert night.verify() == SHARDS * IMAGES
    requests = store.asked(ANY)
    random = seeded(SEED)
    kinds: list[Literal["error", "reset", "cut", "kill"]] = ["error", "reset", "cut", "kill"]
    struck = 0
    for number in range(DRAWN):
        kind = kinds[number % len(kinds)]
        nth = random.randrange(requests)
        print(f"{kind} at request {nth} of {requests}")
        again = replace(night, output=f"{night.output}-{number}")
        fault = Fault(kind, ANY, skip=nth, times=1)
        store.faults[:] = [fault]
        with again.running(env=cluster) as run:
            if kind == "kill":
                fault.strike = lambda run=run: run.process.send_signal(signal.SIGKILL)
                run.process.wait(240)
            else:
                assert run.wait() == 0, run.said
        struck += fault.times == 0
        store.faults.clear()
        again.finish(env=cluster)
        assert again.verify() == SHARDS * IMAGES, f"{kind} at request {nth}"
    # The number of requests differs a little from run to run.
    assert struck >= DRAWN // 2, "most requests were never made"
