"""Decode a file, image or clip, to pixels and facts; its bytes decide which it is, not its name."""

from pathlib import Path

import torch

from trapline.choices import DecodeMode
from trapline.decoding import clips, containers, formats
from trapline.decoding.clips import ClipFacts, ClipFile
from trapline.decoding.crops import Crops
from trapline.decoding.decode import Facts, decode
from trapline.decoding.sampling import Sampling
from trapline.errors import ImageError

# The same limit as `sources.limits.MAX_IMAGE_BYTES`, which this room may not import.
_MAX_IMAGE_BYTES = 256 * 2**20


def decode_media(
    data: bytes | ClipFile,
    size: tuple[int, int],
    mode: DecodeMode = "exact",
    crops: Crops | None = None,
    sampling: Sampling | None = None,
) -> tuple[torch.Tensor | None, Facts]:
    """Decode an image, or the sampled frames of a clip.

    Args:
        data: an encoded image, or a file that may be a clip.
        size: height and width of the result.
        mode: for images, see `decode`.
        crops: what to cut out, see `decode` and `clips.decode`.
        sampling: for clips; the default is that of the command line.

    Returns:
        What `decode` returns for an image, and `clips.decode` for a clip.

    Raises:
        MemoryError: there is not enough.
    """
    if isinstance(data, bytes):
        return decode(data, size, mode, crops)
    path = Path(data.path)
    with path.open("rb") as file:
        head = file.read(containers.HEAD_BYTES)
        length = file.seek(0, 2)
    if container := containers.recognise(head):
        return clips.decode(data, container, size, sampling or Sampling(), crops)
    if formats.of(head) and length <= _MAX_IMAGE_BYTES:
        return decode(path.read_bytes(), size, mode, crops)
    return None, ClipFacts("failed", _what_it_is(head, length), data.content_sha256, media_type="video")


def _what_it_is(head: bytes, length: int) -> str:
    try:
        formats.name(head)
    except ImageError as refusal:
        kind = str(refusal).partition(":")[0]
        if kind not in ("not_an_image", "video", "zeros") or (kind == "zeros" and length == len(head)):
            return str(refusal)
    return "not_a_video: the file is in no container that is read (MP4, MOV, 3GP, AVI, MKV, MTS, ASF, MPEG)"
