"""A simulated plan is a plan: of the archive that was laid out, with half of it done."""

from pathlib import Path

from tests.scaling.planned_night import lay_out, plan
from trapline.sources.selection import Part


def test_half_of_a_part_is_left_to_do(tmp_path: Path) -> None:
    lay_out(tmp_path, 60)
    planned = plan(tmp_path)
    names = [f"site={number}/{number:07}.tar.parquet" for number in range(60)]
    todo = [name for number, name in enumerate(names) if number % 2 and Part(3, 8).holds(name)]
    assert (planned.shards, planned.todo) == (60, len(todo))
    assert 0 < planned.todo < 30
    assert min(planned.listing, planned.remembering, planned.selecting, planned.comparing) > 0
