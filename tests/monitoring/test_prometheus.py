"""What a real head's endpoint says of a run that goes on, and whether the dashboard asks for what there is."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.checkout import ROOT
from tests.support.nights import Night
from tests.support.servers import RayHead, ray_head

DASHBOARD = ROOT / "docs/grafana.json"


def asked_for() -> set[str]:
    """Names of the metrics in the dashboard's queries."""
    return set(re.findall(r"\bray_[a-z_]+", DASHBOARD.read_text()))


def scraped(head: RayHead) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by name and those tags that are ours, or say which of our workers is meant."""
    try:
        with urllib.request.urlopen(f"{head.metrics_url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:  # the head is up before its agent is
        return {}
    ours = {"run", "status", "reason", "state", "step", "worker", "operator"}
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            tags = tuple(sorted((key, value) for key, value in sample.labels.items() if key in ours))
            found.setdefault(sample.name, {})[tags] = sample.value
    return found


def test_every_panel_asks_prometheus_for_something_and_each_has_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert all(target["expr"] for panel in panels for target in panel["targets"])
    assert len({panel["id"] for panel in panels}) == len(panels)
    corners = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(corners) == len(panels)


@pytest.mark.slow
def test_the_metrics_of_a_run_are_at_ray_s_endpoint_and_are_all_that_the_dashboard_shows(
    tmp_path: Path, tiny_model: Path
) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(tiny_model.read_bytes())
    night = Night.make(tmp_path, model, shards=150)
    (night.archive / "000.tar").write_bytes((night.archive / "000.tar").read_bytes()[:900_000])  # one trouble at least
    with ray_head(tmp_path) as head, night.running(env={"RAY_ADDRESS": head.gcs_address}) as run:
        run.until(lambda: asked_for() <= scraped(head).keys())
        now = scraped(head)
        (run_id,) = {path.stem for path in Path(night.output).glob("_trapline/runs/*.json")}
        run.until(lambda: f"  {run_id}  " in run.said)  # in a log, plain lines that name the run
        run.process.kill()
    tag = ("run", run_id)
    assert now["ray_trapline_bytes_todo"][(tag,)] == sum(path.stat().st_size for path in night.archive.iterdir())
    assert 0 < now["ray_trapline_bytes"][(tag,)] < now["ray_trapline_bytes_todo"][(tag,)]
    assert now["ray_trapline_images_predicted"][(tag,)] > 0
    committed, left = (now["ray_trapline_shards"][(tag, ("state", state))] for state in ("committed", "left"))
    assert committed > 0
    assert committed + left == 150
    assert now["ray_trapline_images"][(tag, ("status", "ok"))] > 0
    assert now["ray_trapline_troubles"][(("reason", "broken_shard"), tag)] == 1
    assert {tags[-1][1] for tags in now["ray_trapline_worker_seconds"]} == {"read", "decode", "predict"}
    assert all(seconds > 0 for seconds in now["ray_trapline_worker_seconds"].values())
    assert {dict(tags)["worker"] for tags in now["ray_trapline_busy"]} == {"decode", "predict"}
    # Ray's own dashboards show its operators under the names of our workers.
    operators = {dict(tags).get("operator", "") for name in now if name.startswith("ray_data") for tags in now[name]}
    for worker in ("Reader", "PredictorActor"):
        assert any(worker in operator for operator in operators), operators
