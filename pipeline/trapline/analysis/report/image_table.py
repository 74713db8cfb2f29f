"""The table `images` that a report queries: rows with their site, camera and label.

Site and camera are what the sources of `deployments.py` say. Where none is given, they are the folders below the
archive, which OUTPUT mirrors: `OUTPUT/site=heath/cam1/0001.tar.parquet` is of camera `heath/cam1` at site `heath`.
"""

import re
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from trapline.analysis import dataset
from trapline.analysis.dataset import Results
from trapline.analysis.deployments import Source
from trapline.analysis.sql import read_parquet
from trapline.results.ledger import Result
from trapline.results.schema import NOT_ANIMALS
from trapline.sources.file_types import CLIP_SUFFIXES, shard_format

# Folders that cameras make on their cards, of the DCF standard: `DCIM/100RECNX` says nothing of a place.
_OF_A_CARD = re.compile(r"DCIM|\d{3}[A-Z0-9_]{5}", re.IGNORECASE)
# Columns that not all results have: those of `rescore` leave out what decoding knows, and models may have no classes.
_MAY_LACK = {"error": "varchar", "metadata": "varchar", "camera_serial": "varchar",
             "latitude": "double", "longitude": "double", "media_type": "varchar",
             "species": "varchar", "probability": "float", "energy": "float"}  # fmt: skip

_CLIP_BY_NAME = f"list_contains({sorted(CLIP_SUFFIXES)}, regexp_extract(lower(key), '[.][^./]*$'))"


def read(
    connection: duckdb.DuckDBPyConnection,
    found: Results,
    sources: Sequence[Source],
    sure: float,
    corrected: Sequence[str] = (),
) -> None:
    """Create the table `images` with what a report needs of each row; read the results once, without embeddings.

    Its columns: file (its place among those of the results), image_uri, shard, key, status, reason (kind of the error),
    content_sha256, captured_at, latitude and longitude, is_clip, site, camera, label (the taxon of rescored rows, or
    else the species), probability (of the label), energy, and named, whether the model was at least as sure as `sure`.
    A clip is a row, its frames are not. Of an image with crops the row is that of the crop with the surest label;
    persons and vehicles have none. A row takes some 300 bytes, and goes to a temporary folder where memory ends.

    Args:
        connection: that gets the table.
        found: the results.
        sources: of site and camera; none: the folders below the archive.
        sure: probability that makes a label count.
        corrected: files with image_uri and captured_at of images whose clocks were corrected; others keep their times.
    """
    files = [file.url for file in found.files]
    folders = [_folder(file, found.output) for file in found.files]
    where = pa.table({"filename": files, "folder": folders, "file": pa.array(range(len(files)), pa.int32())})
    connection.register("places", where)
    dataset.view(connection, found, "rows_of_results", crops=True)
    names = connection.table("rows_of_results").columns
    lacking = [f", null::{kind} as {name}" for name, kind in _MAY_LACK.items() if name not in names]
    label, probability = ("taxon", "taxon_probability") if "taxon" in names else ("species", "probability")
    one_of_each = f"row_number() over (partition by image_uri order by {probability} desc nulls last, crop) = 1"
    surest = f"qualify {one_of_each}" if found.has_crops else ""
    is_known = f"isfinite({probability}) and " if probability in names else ""
    animal = f"{is_known}(detection_category not in {NOT_ANIMALS} or crop is null)"
    values = sorted({label, probability, "energy"}.intersection(names))
    others = ", ".join(f"case when {animal} then {name} end as {name}" for name in values)
    without_others = f" replace ({others})" if found.has_crops and others else ""
    # To SQL, NaN is above all numbers.
    connection.execute(
        f"""
        create or replace temp table images as
        select file, image_uri, shard, key, status::varchar as status,
            nullif(split_part(error, ':', 1), '') as reason, content_sha256, captured_at,
            latitude, longitude, coalesce(media_type = 'video', {_CLIP_BY_NAME}) as is_clip,
            {_place(sources)}, {label}::varchar as label, {probability} as probability, energy,
            coalesce(status != 'failed' and isfinite({probability}) and {probability} >= $sure, false) as named
        from (select *{without_others}{"".join(lacking)} from rows_of_results) join places using (filename) {surest}""",
        {"sure": sure},
    )
    if corrected:
        connection.execute(f"""
            update images set captured_at = clock.captured_at from {read_parquet(corrected)} as clock
            where clock.image_uri = images.image_uri and clock.captured_at <> images.captured_at""")


def _place(sources: Sequence[Source]) -> str:
    """Return SQL for `site` and `camera` of a row."""
    if not sources:
        return "split_part(folder, '/', 1) as site, folder as camera"
    sites = " ".join(f"when {source.says} then {source.site}" for source in sources)
    cameras = " ".join(f"when {source.says} then {source.station}" for source in sources)
    return f"case {sites} end as site, case {cameras} end as camera"


def _folder(file: Result, output: str) -> str:
    """Return the folder of a shard below the archive, without keys of Hive partitions and folders of cards."""
    *folders, _ = file.url.removeprefix(f"{output}/").split("/")
    while shard_format(file.shard or "") is None and len(folders) > 1 and _OF_A_CARD.fullmatch(folders[-1]):
        folders.pop()
    return "/".join(folder.rpartition("=")[2] for folder in folders) or "(the archive)"
