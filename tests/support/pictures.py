"""Pictures made for the tests of decoding."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from tests.support.archives import jpeg


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def soft(seed: int = 0, size: tuple[int, int] = (67, 49)) -> Image.Image:
    """A picture of soft colours without one flat row."""
    return Image.open(io.BytesIO(jpeg(seed, size))).convert("RGB")


def with_noise(data: bytes, at: int, count: int, seed: int = 0) -> bytes:
    """The file with bytes overwritten, as a bad sector leaves it."""
    return data[:at] + np.random.default_rng(seed).bytes(count) + data[at + count :]


def tiff(
    pixels: Image.Image, order: str = "II", big: bool = False, tiled: bool = False, lzw: bool = False, **more: list[int]
) -> bytes:
    """A TIFF as Pillow cannot write it, with its directory at the end; `more` are whole numbers by tag `t262`."""
    array = np.asarray(pixels)
    height, width = array.shape[:2]
    blocks = [array]
    if tiled:
        padded = np.pad(array, [(0, -height % 64), (0, -width % 64), (0, 0)])
        blocks = [padded[y : y + 64, x : x + 64] for y in range(0, height, 64) for x in range(0, width, 64)]
    contents = [_lzw(block) if lzw else block.tobytes() for block in blocks]
    end, small = (">" if order == "MM" else "<"), not big
    offsets, at = [], 8 if small else 16
    for content in contents:
        offsets.append(at)
        at += len(content)
    lengths = [len(content) for content in contents]
    tags = {256: (3, [width]), 257: (3, [height]), 258: (3, [8, 8, 8]), 259: (3, [5 if lzw else 1]), 262: (3, [2])}
    tags |= {277: (3, [3]), 284: (3, [1])}
    wide = 4 if small else 16
    if tiled:
        tags |= {322: (3, [64]), 323: (3, [64]), 324: (wide, offsets), 325: (4, lengths)}
    else:
        tags |= {273: (wide, offsets), 278: (3, [height]), 279: (4, lengths)}
    tags |= {int(tag[1:]): (4, values) for tag, values in more.items()}
    header = struct.pack(f"{end}HI", 42, at) if small else struct.pack(f"{end}HHHQ", 43, 8, 0, at)
    return order.encode() + header + b"".join(contents) + _directory(tags, at, end, small)


def _lzw(block: np.ndarray) -> bytes:
    data = encoded(Image.fromarray(block), "TIFF", compression="tiff_lzw", strip_size=2**30)
    tags = Image.open(io.BytesIO(data)).tag_v2
    return data[tags[273][0] : tags[273][0] + tags[279][0]]


def _directory(tags: dict[int, tuple[int, list[int]]], at: int, end: str, small: bool) -> bytes:
    offset = f"{end}{'I' if small else 'Q'}"
    entry, count, room = (f"{end}HHI", f"{end}H", 4) if small else (f"{end}HHQ", f"{end}Q", 8)
    behind = at + struct.calcsize(count) + len(tags) * (struct.calcsize(entry) + room) + room
    listed, values = struct.pack(count, len(tags)), b""
    for tag, (kind, numbers) in sorted(tags.items()):
        raw = struct.pack(f"{end}{len(numbers)}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }".replace(" ", ""), *numbers)
        listed += struct.pack(entry, tag, kind, len(numbers))
        if len(raw) <= room:
            listed += raw.ljust(room, b"\0")
        else:
            listed += struct.pack(offset, behind + len(values))
            values += raw
    return listed + struct.pack(offset, 0) + values
