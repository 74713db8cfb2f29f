"""Results as schema version 3 had them, before clips: its columns and its footer, by pyarrow alone.

Nothing here follows the code as it is now: files of that version do not change.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_WORD = pa.dictionary(pa.int32(), pa.string())
_IMAGE = [
    ("image_uri", pa.string()), ("shard", _WORD), ("key", pa.string()), ("status", _WORD), ("error", pa.string()),
    ("content_sha256", pa.binary(32)), ("width", pa.int32()), ("height", pa.int32()), ("format", _WORD),
    ("captured_at", pa.timestamp("ms")), ("captured_at_tag", _WORD), ("captured_at_offset", _WORD),
    ("latitude", pa.float64()), ("longitude", pa.float64()), ("camera_make", _WORD), ("camera_model", _WORD),
    ("camera_serial", _WORD), ("metadata", pa.string()), ("identity", pa.string()),
]  # fmt: skip
_CROP = [
    ("crop", pa.int16()), ("box", pa.list_(pa.float32(), 4)), ("detection_confidence", pa.float32()),
    ("detection_category", pa.string()),
]  # fmt: skip
_TOP = pa.list_(pa.struct([("species", pa.string()), ("probability", pa.float32())]))
_MODEL = [
    ("species", _WORD), ("probability", pa.float32()), ("top_k", _TOP), ("energy", pa.float32()),
    ("probabilities", pa.list_(pa.float32(), 2)), ("embedding", pa.list_(pa.float32(), 2)),
]  # fmt: skip


def row(key: str, data: bytes | None, crop: int | None = None) -> dict[str, Any]:
    """The row of an image with these bytes, or of one that could not be read; with `crop`, of one of its crops."""
    whole: dict[str, Any] = {"key": key, "status": "failed", "error": "empty: the file has no bytes"}
    if data is not None:
        whole["content_sha256"] = sha256(data).digest()
    if data:
        whole |= {"status": "ok", "error": None, "format": "jpeg", "width": 96, "height": 72}
        whole |= {"species": "owl", "probability": 0.75, "energy": 1.0, "probabilities": [0.75, 0.25]}
        whole |= {"embedding": [1.0, 0.0], "top_k": [{"species": "owl", "probability": 0.75}]}
    if crop is not None:
        whole |= {"crop": crop, "box": [0, 0, 0.5, 0.5], "detection_confidence": 0.5, "detection_category": "animal"}
    return whole


def write(path: Path, shard: str, identity: str, rows: Sequence[Mapping[str, Any]], crops: bool = False) -> None:
    """Write the result of a shard."""
    schema = pa.schema([*_IMAGE, *(_CROP if crops else []), *_MODEL])
    named = [each | {"image_uri": f"{shard}#{each['key']}", "shard": shard} for each in rows]
    whole = [each for each in named if each.get("crop") is None]
    status = Counter(each["status"] for each in whole)
    about = {
        "uri": shard, "identity": identity, "images": {name: status[name] for name in ("ok", "salvaged", "failed")},
        "reasons": {"empty": status["failed"]}, "species": {"owl": status["ok"]}, "ignored": {".mp4": 1},
        "broken": None, "size": 1000, "crops": len(named) - len(whole), "unmatched": 0,
    }  # fmt: skip
    facts = {"schema_version": 3, "weights_sha256": "ab" * 32, "top_k": 2, "precision": "fp32"}
    metadata = {
        "trapline.version": "0.1.0",
        "trapline.fingerprint": json.dumps(facts, sort_keys=True, separators=(",", ":")),
        "trapline.classes": json.dumps(["owl", "robin"]),
        "trapline.shard": json.dumps(about),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(pa.Table.from_pylist(named, schema))
        writer.add_key_value_metadata(metadata)
