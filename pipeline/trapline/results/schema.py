"""The schema of a result: its columns, their types and their meaning."""

from dataclasses import dataclass

import pyarrow as pa

# Raise it when a column is added or removed, or when its meaning changes.
SCHEMA_VERSION = 4

_WORD = pa.dictionary(pa.int32(), pa.string())
# Not a list of fixed size, although the vectors of a column have one length: before version 26, pyarrow cannot read a
# null among lists of fixed size, and a failed image has a null. The Parquet file is the same.
VECTOR = pa.list_(pa.float32())
SPECIES_PROBABILITY = pa.struct([("species", pa.string()), ("probability", pa.float32())])


def _column(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


IMAGE_FIELDS = [
    _column("image_uri", pa.string(), "shard#key: unique among images and clips, and enough to fetch one again"),
    _column("shard", _WORD, "the archive file, or the folder of loose images, that holds the image"),
    _column("key", pa.string(), "path inside the shard; empty for the row that names a shard's break"),
    _column("media_type", _WORD, "image or video; null for what is neither, such as the row of a shard's break"),
    _column(
        "frame_seconds",
        pa.float64(),
        "of a sampled frame: seconds from the start of its clip; null on the row of an image and on a clip's own",
    ),
    _column("status", _WORD, "ok, salvaged (broken off or damaged, decoded as far as it goes) or failed"),
    _column("error", pa.string(), "kind and message; null unless salvaged or failed"),
    _column("content_sha256", pa.binary(32), "of the encoded bytes; finds duplicates across archives"),
    _column("width", pa.int32(), "pixels, as stored, before EXIF orientation"),
    _column("height", pa.int32(), "pixels, as stored, before EXIF orientation"),
    _column(
        "format",
        _WORD,
        "jpeg, png, webp, tiff, gif, bmp, avif or heic; of a clip its container: mp4, mov, 3gp, avi, mkv, webm, mts, "
        "asf or mpg",
    ),
    _column("duration_seconds", pa.float64(), "of a clip, from its first frame to the end of its last"),
    _column("frame_rate", pa.float64(), "of a clip: frames a second on average, counted"),
    _column(
        "captured_at",
        pa.timestamp("ms"),
        "from EXIF, as the camera's clock had it; of a clip its start, from the container; no time zone",
    ),
    _column(
        "captured_at_tag",
        _WORD,
        "where captured_at is from: DateTimeOriginal, DateTimeDigitized or DateTime, or the name of a container's tag",
    ),
    _column(
        "captured_at_offset",
        _WORD,
        "of captured_at from UTC, such as +02:00; null where the file does not say; +00:00 for tags that are UTC",
    ),
    _column("latitude", pa.float64(), "degrees north, from EXIF; null for placeholders"),
    _column("longitude", pa.float64(), "degrees east, from EXIF; null for placeholders"),
    _column("camera_make", _WORD, "from EXIF"),
    _column("camera_model", _WORD, "from EXIF"),
    _column("camera_serial", _WORD, "from EXIF"),
    _column("metadata", pa.string(), "the .json sidecar of the image or clip, verbatim; null on the row of a frame"),
    _column("identity", pa.string(), "size and etag of a loose image and of its sidecar; null in archives"),
]
"""What decoding knows about an image or a clip; a frame has the values of its clip, and its own `frame_seconds`."""

CROP_FIELDS = [
    _column(
        "crop", pa.int16(), "1, 2 ... for a crop of the image, in the detector's order; null on the image's own row"
    ),
    _column("box", VECTOR, "of a crop: left, top, width, height as fractions of the sides, clipped"),
    _column("detection_confidence", pa.float32(), "of a crop: how sure the detector was"),
    _column("detection_category", pa.string(), "of a crop: what the detector took it for"),
]
"""What a detector knows, in results with detections; the other columns of a crop's row are those of its image."""

NOT_ANIMALS = ("person", "human", "vehicle")
"""Values of `detection_category` for which a species means nothing, though their rows have a prediction."""


@dataclass(frozen=True)
class Columns:
    """Which columns the model's half of a row has, and how wide they are.

    Attributes:
        classes: names of the C classes, in the order of the logits; empty for a model without classifier.
        embedding_size: D.
        feature_shapes: stage name -> (channels, height, width), for the stages that are written.
        top_k: how many species are listed.
        probabilities: whether the probabilities of all classes are written.
        embedding: its type, or "none".
        crops: whether there are rows of crops, too.
    """

    classes: tuple[str, ...]
    embedding_size: int
    feature_shapes: dict[str, tuple[int, int, int]]
    top_k: int
    probabilities: bool
    embedding: str
    crops: bool = False

    @property
    def model_fields(self) -> list[pa.Field]:
        """The model's half of the schema."""
        columns = [_column("precision", _WORD, "in which the model computed this row: fp32 or bf16")]
        if self.classes:
            columns += [
                _column("species", _WORD, "the most probable class"),
                _column("probability", pa.float32(), "softmax probability of that class"),
                _column("top_k", pa.list_(SPECIES_PROBABILITY), "the most probable classes, in falling order"),
                _column("energy", pa.float32(), "logsumexp of the logits (arXiv:2010.03759); low: like no class"),
            ]
        if self.classes and self.probabilities:
            columns.append(_column("probabilities", VECTOR, "softmax over all classes, in the order of classes.csv"))
        if self.embedding != "none":
            kind = pa.list_(_float_type(self.embedding))
            columns.append(_column("embedding", kind, "what the classifier sees: the pooled, normalised last stage"))
        for stage, shape in self.feature_shapes.items():
            shown = "x".join(map(str, shape))
            described = f"feature map {shown} (channels, rows, columns), flat"
            columns.append(_column(f"features_{stage}", pa.list_(pa.float16()), described))
        return columns

    @property
    def schema(self) -> pa.Schema:
        """The whole row."""
        return pa.schema([*IMAGE_FIELDS, *(CROP_FIELDS if self.crops else []), *self.model_fields])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column in a chunk: words are strings, because chunks with other dictionaries do not join."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _float_type(name: str) -> pa.DataType:
    return {"float16": pa.float16(), "float32": pa.float32()}[name]
