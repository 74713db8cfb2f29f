from dataclasses import replace

import numpy as np
import pyarrow as pa

from tests.support.progress import shards
from trapline.run.messages import DecodedChunk, EndOfShard, Failure
from trapline.run.packing import pack, unpack


def test_pixels_travel_unchanged_and_without_a_copy() -> None:
    (shard,) = shards(1)
    pixels = np.arange(2 * 3 * 64 * 64, dtype=np.uint8).reshape(2, 3, 64, 64)
    rows = pa.record_batch({"key": ["a", "b"]})
    chunk = DecodedChunk(shard, 7, rows, pixels, np.array([True, True]), 99, {"read": 1.5}, EndOfShard("cut"))
    failure = Failure(shard, "why", transient=True)
    arrived, other = unpack(pa.concat_tables([pack(chunk), pack(failure)]))
    assert isinstance(arrived, DecodedChunk)
    np.testing.assert_array_equal(arrived.pixels, pixels)
    nothing = np.empty(0)
    assert replace(arrived, pixels=nothing, with_pixels=nothing) == replace(chunk, pixels=nothing, with_pixels=nothing)
    assert other == failure
    packed = pack(chunk)
    (view,) = unpack(packed)
    assert isinstance(view, DecodedChunk)
    cell = np.frombuffer(packed.column("pixels").chunk(0).buffers()[2], np.uint8)
    assert np.shares_memory(view.pixels, cell)
    assert np.shares_memory(view.pixels, pixels)


def test_a_chunk_without_pixels_keeps_their_shape() -> None:
    (shard,) = shards(1)
    rows, nothing = pa.record_batch({"key": ["a"]}), np.empty((0, 3, 64, 96), np.uint8)
    (arrived,) = unpack(pack(DecodedChunk(shard, 0, rows, nothing, np.array([False]), 0, {})))
    assert isinstance(arrived, DecodedChunk)
    assert arrived.pixels.shape == (0, 3, 64, 96)
