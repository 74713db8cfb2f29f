"""Messages as rows of Arrow tables, which is what Ray Data moves."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trapline.run.messages import DecodedChunk, Item


def pack(item: Item) -> pa.Table:
    """Return one dataset row: the item, and its pixels in a cell of their own, which travels without a copy."""
    pixels = np.empty(0, np.uint8)
    if isinstance(item, DecodedChunk):
        item, pixels = replace(item, pixels=item.pixels[:0]), item.pixels
    data = pa.py_buffer(np.ascontiguousarray(pixels))
    offsets = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])
    return pa.table({"item": pa.array([pickle.dumps(item)], pa.large_binary()), "pixels": cell})


def unpack(batch: pa.Table) -> Iterator[Item]:
    """Yield the items of any number of dataset rows; pixels are views of the table's memory."""
    items = (pickle.loads(item.as_py()) for item in batch.column("item"))
    for item, pixels in zip(items, _views(batch.column("pixels")), strict=True):
        if isinstance(item, DecodedChunk):
            item = replace(item, pixels=pixels.reshape(-1, *item.pixels.shape[1:]))
        yield item


def _views(column: pa.ChunkedArray) -> Iterator[npt.NDArray[np.uint8]]:
    # A scalar of Arrow's would be a copy.
    for array in column.chunks:
        _, offsets, data = array.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        for start, end in pairwise(bounds):
            yield np.frombuffer(data, dtype=np.uint8, count=end - start, offset=start)
