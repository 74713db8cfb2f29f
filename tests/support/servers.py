"""Real servers for tests, on loopback: an S3 store and a Ray cluster, with nothing left of either afterwards.

Each runs in a session of its own on ports of its own, so that several can run side by side. For Linux (`/proc`, `prctl`).
"""

import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import s3fs
from botocore.exceptions import BotoCoreError

LOOPBACK = "127.0.0.1"
PUBLIC_BUCKET = "public"  # which needs no key
SCRIPTS = Path(sysconfig.get_path("scripts"))
RAY_ENV = {
    "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is this one, activated or not
    "RAY_AUTH_MODE": "disabled",  # else Ray writes a token into the home folder
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes 127.0.0.1 for a mistake and listens on all interfaces
    "RAY_USAGE_STATS_ENABLED": "0",
}
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# What Ray's stand-in for a cloud calls the head, and its type.
HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class S3Server:
    """A running S3 store. Fault tests signal its `process`: SIGSTOP and SIGCONT for a stall, SIGKILL for a crash."""

    endpoint: str
    process: subprocess.Popen[bytes]
    access_key: str = "trapline"
    secret_key: str = "trapline-secret"

    @property
    def env(self) -> dict[str, str]:
        """What a user exports to make `s3://` mean this store."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        """The store as a test looks into it: never from a cache of listings, and quick to fail."""
        return s3fs.S3FileSystem(
            key=self.access_key,
            secret=self.secret_key,
            endpoint_url=self.endpoint,
            use_listings_cache=False,
            config_kwargs={"connect_timeout": 2, "retries": {"mode": "standard", "total_max_attempts": 1}},
        )

    def make_bucket(self, name: str) -> None:
        self.filesystem().makedirs(name, exist_ok=True)


@dataclass(frozen=True)
class RayHead:
    """A running cluster of one node."""

    gcs_address: str
    job_address: str
    metrics_url: str
    process: subprocess.Popen[bytes]

    def submit(
        self, *entrypoint: str, working_dir: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a job to its end with `ray job submit`, which returns 1 for every way a job can fail.

        Args:
            entrypoint: the command and its arguments; its output ends up in `stdout`, among Ray's own lines.
            working_dir: uploaded to the cluster; the job starts in the copy.
            env: environment variables of the job and of its workers.
        """
        options = [f"--working-dir={working_dir}", f"--runtime-env-json={json.dumps({'env_vars': dict(env or {})})}"]
        return self._job("submit", *options, "--", *entrypoint)

    def start(self, *entrypoint: str, working_dir: Path) -> str:
        """As `submit`, but does not wait; gives the job's name."""
        name = f"job-{uuid4().hex[:6]}"
        options = ["--no-wait", f"--submission-id={name}", f"--working-dir={working_dir}"]
        started = self._job("submit", *options, "--", *entrypoint)
        assert started.returncode == 0, started.stdout + started.stderr
        return name

    def stop(self, job: str) -> subprocess.CompletedProcess[str]:
        """`ray job stop`."""
        return self._job("stop", job)

    def log(self, job: str) -> str:
        """`ray job logs`."""
        return self._job("logs", job).stdout

    def nodes(self) -> list[dict[str, Any]]:
        """All nodes that ever were, as Ray's state API has them."""
        return self._state("nodes")

    def tasks(self) -> list[dict[str, Any]]:
        """All tasks, as the state API has them, also those of actors."""
        return self._state("tasks")

    def _state(self, kind: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.job_address}/api/v0/{kind}?detail=1&limit=10000", timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        return result

    def _job(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [SCRIPTS / "ray", "job", verb, f"--address={self.job_address}", "--log-color=false", *arguments]
        return subprocess.run(command, env=os.environ | RAY_ENV, capture_output=True, text=True, check=False)


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS, with data and log in `folder`."""
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports = _free_ports(8)
    credentials = {"accessKey": S3Server.access_key, "secretKey": S3Server.secret_key}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    keys = folder / "keys.json"
    identities = [
        {"name": "t", "credentials": [credentials], "actions": actions},
        {"name": "anonymous", "actions": [f"{action}:{PUBLIC_BUCKET}" for action in ("Read", "List")]},
    ]
    keys.write_text(json.dumps({"identities": identities}))
    command = [
        SCRIPTS / "weed",
        "server",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-dir={folder}",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        "-master.electionTimeout=1s",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-volume.max=1000",  # a bucket takes volumes of its own
        "-filer",
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.port.grpc={s3_grpc}",
        f"-s3.config={keys}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",  # a missing bucket is an error, as on AWS
    ]
    log = folder / "weed.log"
    one_volume_at_a_time = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # instead of seven
    try:
        with _running(command, one_volume_at_a_time, log) as process:
            server = S3Server(f"http://{LOOPBACK}:{s3}", process)
            _wait_until(lambda: _put_and_remove(server), process, log, seconds=60)
            yield server
    finally:
        for port in ports:
            for left_behind in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left_behind.unlink()


@contextmanager
def ray_head(
    folder: Path,
    num_cpus: int = 2,
    host: str = LOOPBACK,
    grows: Mapping[str, Any] | None = None,
    python: Path | None = None,
) -> Iterator[RayHead]:
    """`ray start --head`, with its log in `folder`.

    Args:
        folder: of the log.
        num_cpus: logical cores of the head.
        host: of the loopback range, where there will be further nodes.
        grows: types of nodes, as a cluster's description has them, that Ray's autoscaler starts and stops on this machine.
        python: interpreter of another environment, for the head, its workers and its jobs.
    """
    gcs, dashboard, client, agent, metrics = _free_ports(5)
    log = folder / "ray.log"
    env = RAY_ENV
    options = []
    if grows:
        description = folder / "cluster.json"
        description.write_text(json.dumps(_description(grows, f"{host}:{gcs}")))
        options = [f"--autoscaling-config={description}"]
        env = RAY_ENV | {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "RAY_enable_autoscaler_v2": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
    # Not in `folder`: Ray puts sockets below its own folder, and the path of a socket ends at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tl", dir="/tmp", ignore_cleanup_errors=True) as ray_folder:
        program: list[str | Path] = [SCRIPTS / "ray"]
        if python:
            program = [python, "-m", "ray.scripts.scripts"]
            env = env | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}
        command = [
            *program,
            "start",
            "--head",
            "--block",
            f"--node-ip-address={host}",
            f"--port={gcs}",
            f"--dashboard-host={host}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}",
            f"--metrics-export-port={metrics}",
            "--min-worker-port=0",  # any; so are the ports that are not named here
            "--max-worker-port=0",
            f"--num-cpus={num_cpus}",
            f"--object-store-memory={512 * 2**20}",
            f"--temp-dir={ray_folder}",
            "--disable-usage-stats",
            *options,
        ]
        with _running(command, env, log) as process:
            head = RayHead(f"{host}:{gcs}", f"http://{host}:{dashboard}", f"http://{host}:{metrics}", process)
            _wait_until(lambda: _get(f"{head.job_address}/api/version"), process, log, seconds=120)
            yield head


def _description(types: Mapping[str, Any], gcs_address: str) -> dict[str, Any]:
    """A cluster whose cloud is Ray's own stand-in: each node is a few processes of this machine."""
    # By way of "external", since the wheel lacks the defaults of "fake_multinode".
    cloud = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    commands = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "stand-in",
        "provider": {
            "type": "external",
            "module": cloud,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "gcs_address": gcs_address,
        },
        "head_node_type": HEAD_TYPE,
        "available_node_types": {HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **types},
        "max_workers": sum(each["max_workers"] for each in types.values()),
        "upscaling_speed": 10,
        "idle_timeout_minutes": 0.3,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_synced_files": [],
        **{f"{name}_commands": [] for name in commands},
    }


@contextmanager
def ray_node(head: RayHead, folder: Path, num_cpus: int, host: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start --address`: a further node, which is one process tree, at another `host` of the loopback range."""
    command = [
        SCRIPTS / "ray",
        "start",
        "--block",
        f"--address={head.gcs_address}",
        f"--node-ip-address={host}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={256 * 2**20}",
        "--disable-usage-stats",
    ]
    # By itself Ray lets no further node join once this is off, whatever the system.
    env = RAY_ENV | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    log = folder / f"node-{uuid4().hex[:6]}.log"

    def is_up() -> None:
        # Of two nodes that look for the name of a socket at once, one would never join.
        if not any(node["node_ip"] == host and node["state"] == "ALIVE" for node in head.nodes()):
            raise OSError("the node has not joined")

    with _running(command, env, log) as process:
        _wait_until(is_up, process, log, seconds=60)
        yield process


@contextmanager
def _running(command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | env,
            start_new_session=True,
            # Orphans below the server become its children, not those of init: Ray's jobs leave its session, not its tree.
            preexec_fn=lambda: LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1),
        )
    try:
        yield process
    finally:
        kill_tree(process)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Ends a server and all that it has started."""
    # SIGKILL, since SeaweedFS takes 15 s over a SIGTERM and their data are worth nothing after the test.
    # While it stands still, the server still adopts orphans, but starts nothing new.
    process.send_signal(signal.SIGSTOP)
    while below := descendants(process.pid):
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    process.kill()
    process.wait()


def descendants(root: int) -> list[int]:
    """The processes below `root`, without those that are dead and not yet waited for."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended in between
            pid, rest = stat.read_text().split(" (", 1)
            state, parent = rest.rpartition(") ")[2].split()[:2]
            if state != "Z":
                children[int(parent)].append(int(pid))
    found = [root]
    for pid in found:
        found += children[pid]
    return found[1:]


def _wait_until(ready: Callable[[], object], process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            ready()
            return
        except (OSError, BotoCoreError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
                raise RuntimeError(f"{log}: the server did not come up ({error}); it ends in\n{tail}") from error
        time.sleep(0.1)


def _put_and_remove(server: S3Server) -> None:
    server.make_bucket("trapline-ready")
    server.filesystem().pipe_file("trapline-ready/object", b"a signed PUT that needs a volume")
    server.filesystem().rm("trapline-ready", recursive=True)


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5):
        pass


def _free_ports(count: int) -> list[int]:
    # Below the range that the kernel gives to outgoing connections, of which Ray has opened many before it listens.
    candidates = random.SystemRandom().sample(range(16_384, 32_768), 64)
    return list(islice(filter(_is_free, candidates), count))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) != 0
