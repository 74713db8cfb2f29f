"""`kubernetes/nightly.yaml` and `job.yaml`, seen by KubeRay, by Kubernetes, by Ray's autoscaler and by our own command line."""

import json
import re
import shlex
import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.support.autoscaler import DECODE, PREDICT, launched_from_nothing
from tests.support.checkout import ROOT
from trapline.cli.classify import app


@pytest.fixture
def documents() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all((ROOT / "kubernetes/nightly.yaml").read_text())}


@pytest.fixture
def job(documents: dict[str, Any]) -> dict[str, Any]:
    return documents["RayCronJob"]["spec"]["jobTemplate"]


@pytest.fixture
def cluster(job: dict[str, Any]) -> dict[str, Any]:
    return job["rayClusterSpec"]


@pytest.fixture
def groups(cluster: dict[str, Any]) -> dict[str, Any]:
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


@pytest.fixture
def scaling(cluster: dict[str, Any]) -> dict[str, Any]:
    """As the autoscaler beside the head reads the file."""
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "trapline", "namespace": "default"}, "spec": cluster}
    )


def test_kuberay_knows_every_field(documents: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "tests/deployment/kuberay_schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(documents["RayCronJob"], schema)
    documents["RayCronJob"]["spec"]["jobTemplate"]["rayClusterSpec"]["autoscalerOptions"]["idleTimeout"] = 600
    with pytest.raises(jsonschema.ValidationError, match="idleTimeout"):
        jsonschema.validate(documents["RayCronJob"], schema)


def test_kubernetes_knows_every_field(documents: dict[str, Any], groups: dict[str, Any]) -> None:
    kubernetes_validate.validate(documents["ServiceAccount"], "1.33", strict=True)
    for name, group in groups.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **group["template"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        pod["spec"]["containers"][0]["resource"] = {}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, "1.33", strict=True)


def test_both_groups_grow_with_the_job_and_there_is_none_without(scaling: dict[str, Any]) -> None:
    assert launched_from_nothing(scaling) == {}
    assert launched_from_nothing(scaling, *[DECODE] * 20) == {"decode": 2}
    assert launched_from_nothing(scaling, PREDICT) == {"gpu": 1}
    assert launched_from_nothing(scaling, *[DECODE] * 999, *[PREDICT] * 99) == {"decode": 8, "gpu": 4}


def test_nothing_is_ever_placed_on_the_head(scaling: dict[str, Any]) -> None:
    assert scaling["available_node_types"][scaling["head_node_type"]]["resources"]["CPU"] == 0


def test_every_pod_has_the_image_and_the_rights(documents: dict[str, Any], groups: dict[str, Any]) -> None:
    pods = [group["template"]["spec"] for group in groups.values()]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    assert {pod["serviceAccountName"] for pod in pods} == {documents["ServiceAccount"]["metadata"]["name"]}


def test_all_run_the_ray_that_the_constraints_name(cluster: dict[str, Any]) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert cluster["rayVersion"] == pins["ray"]
    assert f"FROM rayproject/ray:{pins['ray']}-py311-gpu\n" in (ROOT / "kubernetes/Dockerfile").read_text()


def test_the_command_is_one_that_trapline_takes(job: dict[str, Any]) -> None:
    program, verb, *arguments = shlex.split(job["entrypoint"])
    assert (program, verb) == ("trapline", "classify")
    _, bound, *_ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    options = bound.arguments["options"]
    assert (options.device, options.stop_at) == ("cuda", "06:00")


def test_the_driver_s_clock_is_in_the_zone_of_the_schedule(
    documents: dict[str, Any], groups: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = ZoneInfo(documents["RayCronJob"]["spec"]["timeZone"])
    monkeypatch.setenv("TZ", groups["head"]["template"]["spec"]["containers"][0]["env"][0]["value"])
    time.tzset()
    try:
        for month in range(1, 13):
            moment = datetime(2026, month, 28, 12, tzinfo=UTC)
            assert moment.astimezone().utcoffset() == moment.astimezone(zone).utcoffset()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_night_ends_before_the_next_begins(job: dict[str, Any]) -> None:
    assert 9 * 3600 < job["activeDeadlineSeconds"] < 24 * 3600
    assert (job["backoffLimit"], job["submitterConfig"]["backoffLimit"]) == (0, 0)
    assert job["shutdownAfterJobFinishes"]


def test_the_plain_job_is_one_that_kubernetes_and_trapline_take() -> None:
    document = yaml.safe_load((ROOT / "kubernetes/job.yaml").read_text())
    kubernetes_validate.validate(document, "1.33", strict=True)
    container = document["spec"]["template"]["spec"]["containers"][0]
    program, verb, *arguments = container["args"]
    assert (program, verb) == ("trapline", "classify")
    _, bound, *_ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert bound.arguments["options"].device == "cuda"


def test_alerts_are_of_metrics_that_there_are() -> None:
    source = (ROOT / "pipeline/trapline/monitoring/prometheus.py").read_text()
    known = {f"ray_trapline_{name}" for name in re.findall(r'_gauge\(\s*"(\w+)"', source)}
    rules = [
        rule for group in yaml.safe_load((ROOT / "docs/alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    assert {"alert", "expr", "for", "labels", "annotations"} == set.union(*(set(rule) for rule in rules))
    used = {name for rule in rules for name in re.findall(r"ray_trapline_\w+", rule["expr"])}
    assert used
    assert used <= known
