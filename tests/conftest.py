"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

# Before Ray and s3fs are imported: no token in the home folder, no usage reports, no cloud metadata server.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "AWS_EC2_METADATA_DISABLED": "true"}
os.environ.pop("RAY_ADDRESS", None)
# Before torch and numpy are: threads that wait for one that waits for a core spin meanwhile. On two busy cores, to measure
# the bound of the small network takes 6.1 s of processor time with two threads, 0.2 s where they sleep, 0.1 s with one.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from tests.support.archives import write_tiny_checkpoint
from tests.support.servers import S3Server, s3_server

# The same examples on every machine, however slow.
settings.register_profile("trapline", deadline=None, derandomize=True)
settings.load_profile("trapline")

_bucket_numbers = count(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of real camera-trap photographs, kept beside the checkout and never inside it."""
    folder = Path(__file__).parents[2] / "shared" / "camera-trap-images"
    if not folder.is_dir():
        pytest.skip("the real photographs are not on this machine")
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, with the environment set so that a plain `s3://` URL leads there."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        before = {name: os.environ.get(name) for name in server.env}
        os.environ |= server.env
        yield server
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def bucket(s3: S3Server) -> str:
    """The URL of a fresh bucket."""
    name = f"bucket-{next(_bucket_numbers)}"
    s3.make_bucket(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that birder wrote, for a network of 64 x 64 pixels and five species."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def ray_session(s3: S3Server) -> Iterator[None]:
    """One Ray for all tests that run in this process: starting it takes 5 s.

    After the S3 server, because workers have the environment, and so the keys, of the moment when Ray was started.
    """
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
