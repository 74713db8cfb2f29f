"""Limits on what is read of one image and of one shard, so that memory and time stay in proportion to their bytes.

Compression and dictionaries can blow up small files: a Parquet file of 2.5 KB can hold 2 GB of metadata, a tar.gz of
21 MB can hold 20 GiB of zeros. The limits below are far above what archives of photographs need.
"""

from trapline.errors import ImageError, ShardBroken

# A 100-megapixel JPEG is about 50 MB, and the largest TIFFs of survey cameras are 200 MB.
MAX_IMAGE_BYTES = 256 * 2**20
# Cameras write FAT, where a file has at most 4 GiB.
MAX_CLIP_BYTES = 2**32
# Sidecars with the output of detection models reach some 100 KB.
MAX_SIDECAR_BYTES = 2**20

# The driver holds the rows of a shard until it is written, with predictions some 6.5 KB each.
_MAX_IMAGES, _IMAGES, _BYTES_PER_IMAGE = 1_000_000, 10_000, 256
# Each row has its key twice.
_NAME_BYTES, _NAMES_PER_BYTE = 8 * 2**20, 1
_METADATA_BYTES, _METADATA_PER_BYTE = 16 * 2**20, 2
# Photographs hardly shrink, JSON some twentyfold; zlib unpacks a GiB in some 5 s.
_UNPACKED_BYTES, _UNPACKED_PER_BYTE = 2**30, 32

SIDECAR_TOO_LARGE = "(sidecar too large)"


def max_unpacked_bytes(size: int) -> int:
    """Return the most bytes that are unpacked of a shard of `size` bytes."""
    return _UNPACKED_BYTES + _UNPACKED_PER_BYTE * size


def max_metadata_bytes(size: int) -> int:
    """Return the most bytes of metadata that are kept of a shard of `size` bytes."""
    return _METADATA_BYTES + _METADATA_PER_BYTE * size


def image_error(size: int, most: int | None = None) -> ImageError | None:
    """Return the error of a file that is too large to read; None if it is not.

    Args:
        size: of the file, in bytes.
        most: the limit, in bytes; None for that of images.
    """
    most = MAX_IMAGE_BYTES if most is None else most
    if size <= most:
        return None
    return ImageError("too_large", f"{size} bytes in one file; the limit is {most}")


class Quota:
    """What one shard may still use of its limits while it is read.

    Args:
        uri: of the shard, for messages.
        size: of the shard, in bytes.
    """

    def __init__(self, uri: str, size: int) -> None:
        self._uri = uri
        self._images = min(_MAX_IMAGES, _IMAGES + size // _BYTES_PER_IMAGE)
        self._name_bytes = _NAME_BYTES + _NAMES_PER_BYTE * size
        self._metadata_bytes = max_metadata_bytes(size)
        self._data_bytes = max_unpacked_bytes(size)

    def take_key(self, key: str) -> None:
        """Count an image; raise ShardBroken if there are too many, or their names are too long."""
        self._images -= 1
        self._name_bytes -= len(key)
        if self._images < 0:
            raise ShardBroken(f"{self._uri}: holds more images than its size allows; split it into several")
        if self._name_bytes < 0:
            raise ShardBroken(f"{self._uri}: the names of its images are too long for its size; pack it with others")

    def take_metadata(self, metadata: str) -> bool:
        """Count the metadata of an image, and return True; return False if there is no room for it."""
        if len(metadata) > self._metadata_bytes:
            return False
        self._metadata_bytes -= len(metadata)
        return True

    def take_data(self, size: int, most: int | None = None) -> ImageError | None:
        """Count the bytes of an image or a clip; return the error if they are too many to read, or None."""
        if size > self._data_bytes:
            return ImageError("too_large", "the shard unpacks to many times its size, and this image is beyond it")
        self._data_bytes -= size
        return image_error(size, most)
