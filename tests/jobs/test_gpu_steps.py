"""The four steps of a GPU's benchmark, tried without one: that each fills its tables. What they say needs a GPU."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.benchmark import gpu_kernels, gpu_steps, main
from jobs.benchmark.model import SIZE, random_model
from jobs.benchmark.roofline import Peaks, microseconds_per_image
from trapline.model.architecture import VARIANTS
from trapline.model.blocks import MaskUnitAttention
from trapline.model.predict import Predictor


def run(step: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    file = folder / "gpu.json"
    assert main(["gpu", "--device", "cpu", "--step", str(step), "--json", str(file)]) == 0
    tables: dict[str, list[dict[str, Any]]] = json.loads(file.read_text())["steps"][f"step {step}"]
    return tables


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kernels, "SECONDS", 0)


@pytest.fixture
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.slow
@pytest.mark.usefixtures("_without_ray")
class TestAStepWithoutRay:
    def test_measures_the_parts_of_the_network(self, tmp_path: Path) -> None:
        tables = run(1, tmp_path)
        for batch in (2, 4):
            assert {row["way"] for row in tables[f"GELU, {batch}"]} == {
                "addmm", "addmm, then GELU", "GELU in the epilogue",
            }  # fmt: skip
            attention = tables[f"Attention, {batch}"]
            assert {row["kernel"] for row in attention} == {"flash", "cudnn", "efficient", "math", "bmm"}
            assert all("trouble" in row or row["µs"] > 0 for row in attention)
            assert all("trouble" not in row for row in attention if row["kernel"] in ("math", "bmm"))
            assert all(row["µs"] > 0 for row in tables[f"Stem, {batch}"])
        assert tables["Peaks"][0]["TFLOP/s"] > 0

    def test_measures_the_networks(self, tmp_path: Path) -> None:
        tables = run(2, tmp_path)
        names = {row["name"]: row for row in tables["Networks, batches of 2"]}
        assert {"birder fp32", "trapline fp32"} <= names.keys()
        assert [row["batch"] for row in tables["Ours alone"]] == [2, 3]
        assert all(row["images/s"] > 0 for row in tables["Ours alone"])

    def test_measures_where_time_goes(self, tmp_path: Path) -> None:
        tables = run(3, tmp_path)
        kernels = {row["kernel"]: row for row in tables["Kernels, batches of 4"]}
        assert kernels["all"]["µs an image"] > kernels["product"]["µs an image"] > 0
        assert [(row["batch"], row["threads"]) for row in tables["From the host"]] == [
            (batch, threads) for batch in (2, 4) for threads in (1, 2, 3, 4)
        ]


@pytest.mark.slow
def test_the_last_step_runs_the_whole_with_and_without_decoding(tmp_path: Path) -> None:
    (rows,) = run(4, tmp_path).values()
    assert [(row.get("trouble"), row["decoding"], row["chunk"]) for row in rows] == [
        (None, decoding, chunk) for decoding in ("photographs", "none") for chunk in (2, 4)
    ]
    assert all(row["predict workers"] >= 1 for row in rows)


def test_what_a_step_has_no_time_for_says_so() -> None:
    scope = gpu_steps.Scope("cpu", random_model("hiera_abswin_tiny", (64, 64)), minutes=0)
    tables = gpu_steps.run_step(Console(quiet=True), scope, 3, lambda _: None)
    troubles = {row["trouble"] for rows in tables.values() for row in rows}
    assert troubles == {"not measured: the 0 minutes of this step are over"}


def test_a_step_that_does_not_exist_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu", "--device", "cpu", "--step", "7"]) == 2
    assert "--step 7: does not exist; choose from 1 to 4" in capsys.readouterr().err


def test_the_shapes_of_attention_are_those_of_the_network() -> None:
    assert gpu_kernels.attention_shapes(VARIANTS["hiera_abswin_base"], SIZE) == [
        (144, 1, 64, 64), (144, 2, 16, 64), (144, 2, 16, 16), (144, 4, 4, 16), (1, 4, 576, 576), (1, 8, 144, 576),
        (1, 8, 144, 144),
    ]  # fmt: skip


def test_the_roofline_has_the_products_of_the_network() -> None:
    fast_memory = microseconds_per_image(Peaks(1e12, 1e30), compiled=True)
    # 24 blocks of 12 products of tokens by width by width; where a stage begins, there are five more.
    products = (24 * 12 + 3 * 5) * 2 * 9216 * 96**2
    assert fast_memory["product"] * 0.85 * 1e6 == pytest.approx(products)
    eager, compiled = (microseconds_per_image(Peaks(1e30, 1e12), compiled=each) for each in (False, True))
    assert sum(compiled.values()) < sum(eager.values())
    assert compiled["GELU"] == eager["GELU"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void flash_fwd_kernel<Flash_fwd_kernel_traits<96, 128, 64, 4>>", "attention"),
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT", "product"),
        ("triton_poi_fused_gelu_12", "GELU"),
        ("triton_per_fused_add_native_layer_norm_3", "normalise, add"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::exp_kernel>", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert gpu_steps._kind(kernel) == kind


@pytest.mark.parametrize("name", gpu_steps._CHANGES)
def test_a_change_is_one_of_what_the_predictor_computes_by(name: str) -> None:
    pytest.importorskip("triton", reason="torch comes without Triton here")
    model = random_model("hiera_abswin_tiny", (64, 64))
    predictor = Predictor(model, "cpu", "fp32", 2)
    predictor.network = model.network  # a CPU has blocks of its own

    def parts() -> list[object]:
        attention = [each.kernel for each in model.network.modules() if isinstance(each, MaskUnitAttention)]
        return [predictor.network, predictor.stem, attention]

    before = parts()
    gpu_steps._CHANGES[name](predictor)
    assert parts() != before


@pytest.mark.gpu
def test_steps_take_the_reference_model(tmp_path: Path) -> None:
    scope = gpu_steps.Scope("cuda", random_model(), batches=(4, 8), all_batches=(4,), side=1024, compiled=False)
    assert sum(gpu_steps._ceiling(scope, compiled=True).values()) > 0
