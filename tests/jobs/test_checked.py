"""A tenth of `benchmark checked`: over 10,000 pictures no class differs from fp32's, and few are computed twice."""

from dataclasses import replace

import pytest
from rich.console import Console

from jobs.benchmark.checked import NETWORKS, drawings, measure, trained
from trapline.model.precision import multiplies_in_bf16


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not multiplies_in_bf16("cpu"), reason="this processor emulates bfloat16, ten times as slowly")
def test_checked_changes_no_class_of_ten_thousand_pictures() -> None:
    pictures = drawings(240, seed=1)
    models = [
        trained(replace(kind, epochs=12), [pictures], seed, examples=960) for seed, kind in enumerate(NETWORKS[:2])
    ]
    rows = list(measure(Console(quiet=True), models, [pictures], 10_000))
    assert sum(row.images for row in rows) == 10_000
    for row in rows:
        print(row)
        assert row.accuracy is not None
        assert row.accuracy > 0.4  # of 6 and of some 40 classes; weights differ from machine to machine
        assert row.changed_by_checked == 0
        assert row.computed_again < 0.15
        assert row.cosine > 0.998
