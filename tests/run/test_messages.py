"""Everything that travels between the stages of a run arrives as it was sent."""

import inspect
import pickle
from dataclasses import fields, is_dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from tests.support.progress import chunk, failure, footer, shards
from trapline.detections.index import Slice
from trapline.run import messages
from trapline.run.messages import (
    AlreadyDone,
    DecodedChunk,
    EndOfShard,
    FromPredictor,
    FromReader,
    Item,
    NotStarted,
    PredictedChunk,
    Task,
    WorkerNote,
)
from trapline.run.packing import pack, unpack

(SHARD,) = shards(1)
END = EndOfShard("cut at byte 9", {".mp4": 1}, ["gone.jpg"])
PIXELS = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(1, 3, 4, 4)
ROWS = pa.record_batch({"key": ["a", "b"]})
ITEMS: list[Item] = [
    DecodedChunk(SHARD, 3, ROWS, PIXELS, np.array([True, False]), 99, {"read": 1.5, "decode": 2.5}, END),
    PredictedChunk(SHARD, 3, ROWS, 99, {"predict": 1.5}, carried=True, end=END),
    chunk(SHARD, ok=2, failed=1),
    failure(SHARD),
    AlreadyDone(footer(SHARD)),
    NotStarted(SHARD),
    WorkerNote("slow today"),
]


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for field in fields(one):
        values = getattr(one, field.name), getattr(other, field.name)
        if isinstance(values[0], np.ndarray):
            np.testing.assert_array_equal(*values)
            assert values[0].dtype == values[1].dtype
        else:
            assert values[0] == values[1]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_every_message_arrives_as_it_was_sent(item: Item) -> None:
    (arrived,) = unpack(pack(item))
    assert_equal(arrived, item)


@pytest.mark.parametrize("boxes", [None, Slice("s3://b/boxes", "9-e", 10, 20)])
def test_a_task_is_pickled_for_its_worker(boxes: Slice | None) -> None:
    task = Task(SHARD, isolate=True, boxes=boxes)
    assert pickle.loads(pickle.dumps(task)) == task
    assert Task(SHARD) == Task(SHARD, isolate=False, boxes=None)


def test_every_kind_of_message_is_in_the_unions_and_each_above_has_one() -> None:
    defined = {each for _, each in inspect.getmembers(messages, is_dataclass) if each.__module__ == messages.__name__}
    assert {*get_args(Item)} == {*get_args(FromReader), *get_args(FromPredictor)} == defined - {Task, EndOfShard}
    assert {type(item) for item in ITEMS} == {*get_args(Item)}
    # What a driver takes in has been predicted; what a reader has to say, a predictor passes on.
    assert {*get_args(FromReader)} - {*get_args(FromPredictor)} == {DecodedChunk}
    assert all(each.__dataclass_params__.frozen for each in defined)


def test_the_ends_of_two_shards_share_nothing() -> None:
    one, other = EndOfShard(), EndOfShard()
    one.ignored[".mp4"] = 1
    one.unmatched.append("a.jpg")
    assert (other.ignored, other.unmatched) == ({}, [])
