"""A tenth of `benchmark checked`: over 10,000 pictures no class differs from fp32's, and few are computed twice."""

from dataclasses import replace

import pytest
import torch
from rich.console import Console

from jobs.benchmark.checked import NETWORKS, drawings, look_alikes, measure, trained
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


def test_pictures_that_look_alike_have_one_class() -> None:
    generator = torch.Generator().manual_seed(1)
    scenes = torch.randint(256, (3, 3, 180, 240), generator=generator).float()
    moved = torch.randint(-20, 21, scenes.shape, generator=generator)
    brighter = (scenes[2] * 0.5 + 100)[None]
    pictures = torch.cat([scenes, brighter, scenes[:1] + moved[:1], scenes[:1]]).clamp(0, 255).byte()
    assert look_alikes(pictures).tolist() == [0, 1, 2, 2, 0, 0]


def test_pictures_that_look_alike_by_way_of_others_have_one_class() -> None:
    # A burst: each frame is a little further than the last one, and the last one is far from the first.
    first, last = torch.rand(2, 3, 180, 240, generator=torch.Generator().manual_seed(2))
    burst = torch.stack([first + (last - first) * step / 10 for step in (10, *range(10))])
    assert look_alikes((burst * 255).byte()).tolist() == [0] * 11
    assert look_alikes((burst[:2] * 255).byte()).tolist() == [0, 1]
