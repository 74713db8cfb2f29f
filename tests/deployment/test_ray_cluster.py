"""`ray_cluster.yaml`, seen by Ray's launcher, Ray's autoscaler and the description of EC2's interface."""

from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import validate_parameters
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from tests.support.autoscaler import DECODE, PREDICT, launched_from_nothing
from tests.support.checkout import ROOT


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_ray_accepts_the_file_as_the_launcher_reads_it(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


@pytest.mark.parametrize("role", ["head", "decode", "gpu"])
def test_ec2_accepts_what_each_role_launches(cluster: dict[str, Any], role: str) -> None:
    launch = cluster["available_node_types"][role]["node_config"]
    run_instances = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    validate_parameters(launch | {"MinCount": 1, "MaxCount": 1}, run_instances)
    assert launch["InstanceType"] in run_instances.members["InstanceType"].enum


def test_the_profiles_that_a_user_has_to_fill_in_are_marked() -> None:
    head, worker = (ROOT / "ray_cluster.yaml").read_text().split("arn:aws:iam:")[:-1]
    for before in head, worker:
        assert "CHANGE ME" in before.rpartition("IamInstanceProfile:")[2]


def test_there_are_no_workers_without_work(cluster: dict[str, Any]) -> None:
    assert launched_from_nothing(cluster) == {}


def test_decoding_starts_cpu_nodes_and_leaves_gpus_alone(cluster: dict[str, Any]) -> None:
    assert launched_from_nothing(cluster, *[DECODE] * 100) == {"decode": 7}


def test_a_predictor_starts_a_gpu_node(cluster: dict[str, Any]) -> None:
    assert launched_from_nothing(cluster, PREDICT) == {"gpu": 1}


def test_both_groups_grow_together_up_to_their_limits(cluster: dict[str, Any]) -> None:
    assert launched_from_nothing(cluster, *[DECODE] * 999, *[PREDICT] * 99) == {"decode": 8, "gpu": 4}


def test_nothing_is_ever_placed_on_the_head(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_decode_nodes_are_spot_and_the_head_is_not(cluster: dict[str, Any]) -> None:
    roles = cluster["available_node_types"]
    assert roles["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in roles["head"]["node_config"]


def test_every_role_runs_the_ray_that_the_constraints_name(cluster: dict[str, Any]) -> None:
    config = AutoscalingConfig(cluster, skip_content_hash=True)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    images = {role: config.get_docker_config(role)["image"] for role in cluster["available_node_types"]}
    image = f"rayproject/ray:{pins['ray']}-py311"
    assert images == {"head": image, "decode": image, "gpu": f"{image}-gpu"}
