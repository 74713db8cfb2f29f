"""Damaged clips in every way that chance finds: none ends or hangs a decoder, and each has its row."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.archives import write_tar
from tests.support.clips import clip, drawn
from trapline.decoding.sandbox import CLIP_TIMES, Sandbox
from trapline.run.chunks import read_chunks
from trapline.run.messages import DecodedChunk
from trapline.sources.shards import discover

SEED = 17
# Seconds, of one clip.
LIMIT = 30
KINDS = [
    ("libx264", "yuv420p", "mp4", {}),
    ("libx264", "yuv420p", "mp4", {"movflags": "faststart"}),
    ("libx264", "yuv420p", "mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("libx265", "yuv420p10le", "mov", {}),
    ("mjpeg", "yuvj420p", "avi", {}),
    ("mpeg4", "yuv420p", "avi", {}),
    ("libx264", "yuv420p", "matroska", {}),
    ("libx264", "yuv420p", "mpegts", {}),
    ("wmv2", "yuv420p", "asf", {}),
    ("mpeg2video", "yuv420p", "mpeg", {}),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The clip with some damage: bits, runs, lengths, holes, an end, or parts that changed places."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        # Headers are small, and most of the damage is to be there.
        at = rng.randrange(min(len(damaged), rng.choice((64, 600, len(damaged)))))
        kind = rng.randrange(7)
        if kind == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            damaged[at : at + 4] = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32))).to_bytes(
                4, "big"
            )
        elif kind == 3:
            length = rng.randrange(1, 400)
            damaged[at : at + length] = rng.randbytes(length)
        elif kind == 4:
            del damaged[at : at + rng.randrange(1, 400)]
        elif kind == 5:
            damaged[at:at] = damaged[at : at + rng.randrange(1, 400)]
        else:
            del damaged[rng.randrange(len(damaged)) :]
        if len(damaged) < 8:
            break
    return bytes(damaged)


def clips(count: int) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(SEED)
    small = [
        clip(
            codec,
            pixels,
            muxer,
            frames=12,
            options=options,
            draw=lambda number: np.ascontiguousarray(drawn(number)[::2, ::2]),
        )
        for codec, pixels, muxer, options in KINDS
    ]
    for number in range(count):
        yield f"{number:04}.mp4", mutated(small[number % len(small)], rng)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_mutated_clips_crash_nothing_hang_nothing_and_have_their_rows(tmp_path: Path) -> None:
    members = dict(clips(1000))
    path = write_tar(tmp_path / "in" / "a.tar", members)
    (shard,) = discover([str(path)], str(tmp_path / "out")).shards
    own: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    with closing(Sandbox(timeout=LIMIT / CLIP_TIMES)) as sandbox:
        for chunk in read_chunks(shard, (64, 64), 16, sandbox):
            assert isinstance(chunk, DecodedChunk), chunk
            for row in chunk.rows.select(["key", "frame_seconds", "status", "error", "content_sha256"]).to_pylist():
                assert row["content_sha256"]
                if row["frame_seconds"] is None:
                    own[row["key"]] += 1
                    kinds[(row["error"] or "ok").partition(":")[0]] += 1
    assert own == dict.fromkeys(members, 1)
    assert not kinds.keys() & {"crashed", "timeout", "out_of_memory"}, kinds
    assert kinds["ok"] < 900  # or the damage would be none
    assert kinds["corrupt"] + kinds["truncated"] > 100
