from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.analysis.events.pooling import pool

CLASSES = ["owl", "robin", "wren"]


def frames(events: list[int], probabilities: list[list[float] | None]) -> pa.RecordBatch:
    uris = [f"{number}.jpg" for number in range(len(events))]
    kind = pa.list_(pa.float32())
    return pa.record_batch({"event": events, "image_uri": uris, "probabilities": pa.array(probabilities, kind)})


def pooled(batch: pa.RecordBatch, *cuts: int) -> list[tuple[int, list[float], str | None]]:
    """Event, probabilities and best frame, of frames that come in batches that end at the cuts."""
    ends = [0, *sorted(cuts), len(batch)]
    batches = [batch.slice(begin, end - begin) for begin, end in pairwise(ends)]
    return [
        (event, row.tolist(), best)
        for part in pool(batches, CLASSES)
        for event, row, best in zip(
            part.first.column("event").to_pylist(), part.probabilities, part.best_frame, strict=True
        )
    ]


def test_the_mean_counts_every_frame_the_same_and_failed_ones_not_at_all() -> None:
    batch = frames([1, 1, 1, 2, 2], [[0.6, 0.4, 0], None, [0.1, 0.9, 0], [0, 0, 1], [0.5, 0.5, 0]])
    (one, first, best), (two, second, other) = pooled(batch)
    assert (one, two) == (1, 2)
    assert first == pytest.approx([0.35, 0.65, 0])
    assert second == pytest.approx([0.25, 0.25, 0.5])
    # Of the event's species, not the most probable frame of all.
    assert (best, other) == ("2.jpg", "3.jpg")


def test_the_first_of_equal_frames_is_the_best() -> None:
    assert pooled(frames([1, 1, 1], [[0.1, 0.9, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]]))[0][2] == "0.jpg"


@pytest.mark.parametrize("cut", range(5))
def test_an_event_without_a_sound_frame_has_no_probabilities(cut: int) -> None:
    (_, first, best), (_, second, other), _ = pooled(frames([1, 1, 2, 3], [None, None, [0, 1, 0], None]), cut)
    assert best is None
    assert np.isnan(first).all()
    assert (second, other) == ([0, 1, 0], "2.jpg")


@given(st.data())
def test_batches_may_end_anywhere(data: st.DataObject) -> None:
    events = sorted(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12)))
    exact = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # so that sums do not depend on their order
    rows = data.draw(
        st.lists(st.none() | st.lists(exact, min_size=3, max_size=3), min_size=len(events), max_size=len(events))
    )
    cuts = data.draw(st.lists(st.integers(0, len(events)), max_size=5))
    assert repr(pooled(frames(events, rows), *cuts)) == repr(expected(events, rows))


def expected(events: list[int], rows: list[list[float] | None]) -> list[tuple[int, list[float], str | None]]:
    """The same, said plainly."""
    answer = []
    for event in sorted(set(events)):
        sound = [(number, row) for number, row in enumerate(rows) if events[number] == event and row is not None]
        mean: npt.NDArray[np.float32] = np.full(3, np.nan, np.float32)
        best = None
        if sound:
            mean = np.mean([row for _, row in sound], axis=0).astype(np.float32)
            best = f"{max(sound, key=lambda pair: (pair[1][mean.argmax()], -pair[0]))[0]}.jpg"
        answer.append((event, mean.tolist(), best))
    return answer


def test_of_listed_classes_only_the_others_count_as_zero() -> None:
    kind = pa.list_(pa.struct([("species", pa.string()), ("probability", pa.float32())]))
    top_k = pa.array([[{"species": "wren", "probability": 0.5}, {"species": "owl", "probability": 0.25}], None,
                      [{"species": "robin", "probability": 1.0}, {"species": "owl", "probability": 0.0}]], kind)  # fmt: skip
    batch = pa.record_batch({"event": [1, 1, 1], "image_uri": ["a", "b", "c"], "top_k": top_k})
    assert pooled(batch) == [(1, [0.125, 0.5, 0.25], "c")]
    assert pooled(batch, 1, 2) == [(1, [0.125, 0.5, 0.25], "c")]
