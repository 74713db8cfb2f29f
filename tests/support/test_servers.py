import re
from pathlib import Path

import pytest
import s3fs

from tests.support.servers import S3Server, descendants, ray_head, s3_server


def still_running(pids: list[int]) -> set[int]:
    return set(pids) & set(descendants(1))


def test_the_environment_of_the_s3_server_is_all_that_a_user_needs(s3: S3Server) -> None:
    s3.make_bucket("by-environment")
    s3fs.S3FileSystem(skip_instance_cache=True).pipe_file("by-environment/object", b"hello")
    assert s3.filesystem().cat_file("by-environment/object") == b"hello"


@pytest.mark.parametrize(("key", "secret"), [("nobody", S3Server.secret_key), (S3Server.access_key, "guessed")])
def test_a_wrong_key_is_refused(s3: S3Server, key: str, secret: str) -> None:
    s3.make_bucket("guarded")
    with pytest.raises(PermissionError):
        s3fs.S3FileSystem(key=key, secret=secret).pipe_file("guarded/object", b"hello")
    assert s3.filesystem().ls("guarded") == []


def test_a_missing_bucket_is_not_made_on_the_way(s3: S3Server) -> None:
    with pytest.raises(FileNotFoundError, match="bucket does not exist"):
        s3.filesystem().pipe_file("never-made/object", b"hello")


def test_an_s3_server_starts_empty_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with s3_server(tmp_path) as server:
        assert server.filesystem().ls("") == []
        assert still_running([server.process.pid])
        ports = re.findall(r"port(?:\.grpc)?=(\d+)", Path(f"/proc/{server.process.pid}/cmdline").read_text())
        sockets = [path for port in ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
        assert sockets
    assert not still_running([server.process.pid])
    assert not any(path.exists() for path in sockets)


@pytest.mark.slow
def test_a_job_runs_as_submitted_and_its_cluster_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import os, ray, subprocess\n"
        "ray.init()\n"
        "print('task says', ray.get(ray.remote(lambda: os.environ['GREETING']).remote()))\n"
        "print('cpus', ray.cluster_resources()['CPU'])\n"
        "print('orphan', subprocess.Popen(['sleep', '600'], start_new_session=True).pid)\n"
    )
    with ray_head(tmp_path, num_cpus=2) as head:
        job = head.submit("python", "job.py", working_dir=tmp_path, env={"GREETING": "hello"})
        processes = [head.process.pid, *descendants(head.process.pid)]
        assert still_running(processes) == set(processes)
    assert not still_running(processes)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "task says hello\ncpus 2.0\n" in job.stdout
    orphan = int(job.stdout.split("orphan ")[1].split()[0])
    assert orphan in processes
    assert len(processes) > 5  # the GCS, the raylet, the dashboard and the agents among them
