"""Find the frame of a clip that shows best why it got its label."""

from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from trapline.analysis import dataset
from trapline.analysis.dataset import Results
from trapline.analysis.sql import read_parquet


def best(connection: duckdb.DuckDBPyConnection, found: Results, clips: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of the frame of each clip in which its label is the most probable, by image_uri.

    Of equals it is the first; a frame whose most probable classes do not have the label counts as 0, and one with crops
    as the best of these. Clips without frames are left out.

    Args:
        connection: of `sql.connect`.
        found: the results.
        clips: columns file, image_uri and label of the table `images`, as `image_table.py` has it.

    Raises:
        StorageError, TransientError: the store of the results refuses, or does not answer.
    """
    names = dataset.columns(found)
    label, probability = ("taxon", "taxon_probability") if "taxon" in names else ("species", "probability")
    if not clips or not {"frame_seconds", label} <= set(names):
        return {}
    wanted = {name: [clip[name] for clip in clips] for name in ("image_uri", "label")}
    connection.register("clips", pa.table({name: pa.array(values, pa.string()) for name, values in wanted.items()}))
    listed = "list_filter(top_k, lambda each: each.species = clips.label)[1].probability" if label == "species" else "0"
    rows = connection.execute(f"""
        select image_uri, first(frame_seconds order by chance desc, frame_seconds) from (
            select image_uri, frame_seconds,
                coalesce(case when {label} = clips.label then {probability} else {listed} end, 0) as chance
            from {read_parquet({found.files[clip["file"]].url for clip in clips})} join clips using (image_uri)
            where frame_seconds is not null
        ) group by image_uri""").fetchall()
    return dict(rows)
