from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.support.rows import COLUMNS, MARK, shard
from trapline.decoding.crops import Box
from trapline.decoding.decode import Facts
from trapline.model.predictions import Predictions
from trapline.results import parquet, rows
from trapline.results.clip_pooling import Pooled, fill_clips, sum_frames, total
from trapline.results.schema import Columns
from trapline.run import writer
from trapline.run.messages import EndOfShard, PredictedChunk
from trapline.sources.records import Record

CLIP = Facts("ok", None, b"\1" * 32, 64, 48, "mp4", media_type="video", duration_seconds=9.0, frame_rate=30.0)
PHOTO = Facts("ok", None, b"\2" * 32, 64, 48, "jpeg")
# Two clips with five and two frames, a photograph between them, and a clip that failed.
KEYS = ["a.mp4"] * 6 + ["b.jpg"] + ["c.mp4"] * 3 + ["d.mp4"]
FACTS = [
    CLIP,
    *(replace(CLIP, frame_seconds=float(n)) for n in range(5)),
    PHOTO,
    CLIP,
    *(replace(CLIP, frame_seconds=float(n)) for n in range(2)),
    Facts("failed", "empty: the file has no bytes", media_type="video"),
]
MASK = np.array([fact is PHOTO or fact.frame_seconds is not None for fact in FACTS])


def predictions(count: int) -> Predictions:
    rng = np.random.default_rng(7)
    return Predictions(
        probabilities=rng.dirichlet([0.1] * 40, size=count).astype(np.float32),
        energy=rng.normal(size=count).astype(np.float32),
        embedding=rng.normal(size=(count, 128)).astype(np.float32),
        features={"stage4": rng.normal(size=(count, 2, 1, 2)).astype(np.float16)},
    )


def chunks(ends: list[int], columns: Columns = COLUMNS) -> list[PredictedChunk]:
    """The rows above, in chunks that end there."""
    made, found = predictions(int(MASK.sum())), []
    for index, (begin, end) in enumerate(zip([0, *ends], [*ends, len(KEYS)], strict=True)):
        mask = MASK[begin:end]
        before = int(MASK[:begin].sum())
        part = slice(before, before + int(mask.sum()))
        some = Predictions(
            made.probabilities[part],
            made.energy[part],
            made.embedding[part],
            {name: values[part] for name, values in made.features.items()},
        )
        of = shard("out")
        half = rows.image_rows(of.uri, [Record(key, None) for key in KEYS[begin:end]], FACTS[begin:end])
        both = rows.with_predictions(half, some if mask.any() else None, columns, mask)
        clips = sum_frames(half, mask, some if mask.any() else None)
        last = EndOfShard() if end == len(KEYS) else None
        found.append(PredictedChunk(of, index, both, 0, {}, clips=clips, end=last))
    return found


def pooled(ends: list[int], columns: Columns = COLUMNS) -> list[dict[str, object]]:
    parts = chunks(ends, columns)
    sums = total([part.clips for part in parts])
    return rows.table([fill_clips(part.rows, sums, columns) for part in parts], columns).to_pylist()


@pytest.mark.parametrize("ends", [[], [1], [3], [2, 4, 6], list(range(1, len(KEYS)))], ids=str)
def test_a_clip_gets_the_mean_of_its_frames_wherever_chunks_end(ends: list[int]) -> None:
    found, made = pooled(ends), predictions(int(MASK.sum()))
    for row, some in ((0, slice(0, 5)), (7, slice(6, 8))):
        clip = found[row]
        np.testing.assert_allclose(clip["probabilities"], made.probabilities[some].mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(clip["embedding"], made.embedding[some].mean(axis=0), rtol=1e-4, atol=1e-6)
        assert clip["energy"] == pytest.approx(made.energy[some].mean(), rel=1e-5)
        best = int(made.probabilities[some].mean(axis=0).argmax())
        assert (clip["species"], clip["features_stage4"]) == (COLUMNS.classes[best], None)
        assert clip["probability"] == pytest.approx(max(clip["probabilities"]))  # type: ignore[call-overload]
    assert found[10]["species"] is None
    assert found[6]["energy"] == made.energy[5]  # the photograph between them
    assert found == pooled([])  # to the bit


def test_what_is_not_written_is_pooled_all_the_same() -> None:
    columns = replace(COLUMNS, probabilities=False, embedding="none", feature_shapes={})
    few, all_ = pooled([3], columns), pooled([3])
    assert [row["top_k"] for row in few] == [row["top_k"] for row in all_]
    halves = pooled([3], replace(COLUMNS, embedding="float16"))
    np.testing.assert_allclose(halves[0]["embedding"], all_[0]["embedding"], rtol=1e-3, atol=1e-3)


def test_a_clip_of_which_a_frame_is_in_bf16_is_so_itself() -> None:
    half = rows.image_rows("s3://b/a.tar", [Record(key, None) for key in KEYS], FACTS)
    made = predictions(int(MASK.sum()))
    sums = sum_frames(half, MASK, replace(made, in_bf16=np.arange(len(made.energy)) == 3))
    assert (sums["a.mp4", Pooled.FRAMES].in_bf16, sums["c.mp4", Pooled.FRAMES].in_bf16) == (True, False)
    both = rows.with_predictions(half, made, COLUMNS, MASK)
    found = fill_clips(both, total([sums]), COLUMNS).column("precision").to_pylist()
    assert (found[0], found[7], found[10]) == ("bf16", "fp32", None)


def test_a_shard_without_clips_is_left_as_it_is() -> None:
    (part,) = chunks([])
    assert fill_clips(part.rows, {}, COLUMNS) is part.rows
    assert sum_frames(part.rows.slice(6, 1), np.array([True]), predictions(1)) == {}


def test_the_footer_counts_clips_and_frames_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[pa.Table] = []
    monkeypatch.setattr(parquet, "write", lambda url, table, footer, classes: written.append(table))
    footer = writer.commit(chunks([3]), COLUMNS, MARK)
    assert footer.images == {"ok": 3, "salvaged": 0, "failed": 1}
    assert (footer.clips, footer.frames, footer.crops) == (3, 7, 0)
    assert sum(footer.species.values()) == 3
    assert written[0].column("species")[0].as_py() is not None


def test_a_clip_with_crops_gets_the_mean_of_these() -> None:
    columns = replace(COLUMNS, crops=True)
    frames = [replace(CLIP, frame_seconds=float(second)) for second in range(3)]
    facts = [CLIP, *[frames[0]] * 3, frames[1], *[frames[2]] * 2]
    box = Box("animal", 0.9, (0.0, 0.0, 0.5, 0.5))
    numbers = [None, None, 1, 2, None, None, 1]
    half = rows.image_rows("s3://b/a.tar", [Record("a.mp4", None)] * 7, facts, [n and (n, box) for n in numbers])
    mask = np.array([False, False, True, True, True, False, True])  # the frames 0 and 2 have crops
    made = predictions(4)
    both = rows.with_predictions(half, made, columns, mask)
    parts = [sum_frames(half.slice(0, 4), mask[:4], first(made, 2)), sum_frames(half.slice(4), mask[4:], last(made, 2))]
    clip = fill_clips(both, total(parts), columns).slice(0, 1).to_pylist()[0]
    of_crops = [0, 1, 3]
    np.testing.assert_allclose(clip["probabilities"], made.probabilities[of_crops].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(clip["embedding"], made.embedding[of_crops].mean(axis=0), rtol=1e-4, atol=1e-6)


def of_crops(categories: list[str]) -> dict[str, object]:
    """The row of a clip with a frame that has three crops, and another that has none."""
    columns = replace(COLUMNS, crops=True)
    facts = [CLIP, *[replace(CLIP, frame_seconds=0.0)] * 4, replace(CLIP, frame_seconds=1.0)]
    crops = [(1 + at, Box(category, 0.9, (0.0, 0.0, 0.5, 0.5))) for at, category in enumerate(categories)]
    half = rows.image_rows("s3://b/a.tar", [Record("a.mp4", None)] * 6, facts, [None, None, *crops, None])
    mask = np.array([False, False, True, True, True, True])
    made = predictions(4)
    filled = fill_clips(
        rows.with_predictions(half, made, columns, mask), total([sum_frames(half, mask, made)]), columns
    )
    row: dict[str, object] = filled.slice(0, 1).to_pylist()[0]
    return row


def test_crops_of_persons_and_vehicles_do_not_count() -> None:
    clip = of_crops(["person", "animal", "vehicle"])
    np.testing.assert_allclose(clip["probabilities"], predictions(4).probabilities[1], rtol=1e-5)
    assert of_crops(["human", "person", "vehicle"])["probabilities"] is None


def first(made: Predictions, count: int) -> Predictions:
    return Predictions(made.probabilities[:count], made.energy[:count], made.embedding[:count], {})


def last(made: Predictions, count: int) -> Predictions:
    return Predictions(made.probabilities[-count:], made.energy[-count:], made.embedding[-count:], {})
