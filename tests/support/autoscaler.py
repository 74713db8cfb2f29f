"""What Ray's autoscaler makes of a cluster's description, for tests of such descriptions."""

from typing import Any

from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

# What `run/capacity.py` asks for.
DECODE = {"CPU": 1.0}
PREDICT = {"CPU": 0.9, "GPU": 1.0}


def launched_from_nothing(cluster: dict[str, Any], *demands: dict[str, float]) -> dict[str, int]:
    """Number of nodes per type that Ray's autoscaler starts for these tasks and actors when no node is there."""
    config = AutoscalingConfig(cluster, skip_content_hash=True)
    request = SchedulingRequest(
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_nodes(),
        disable_launch_config_check=True,
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(demand) for demand in demands]),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}
