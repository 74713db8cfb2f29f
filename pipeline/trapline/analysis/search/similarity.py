"""Find the rows whose embeddings are most like an example's, by exact search over the whole archive.

A clip is searched by its frames, and listed once, with the frame that is most like the example: an animal that is seen
for two of sixty seconds would be a thirtieth of the mean. As an example, a clip is the mean of its frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from trapline.analysis import dataset
from trapline.analysis.dataset import Results
from trapline.analysis.sql import translated
from trapline.decoding.clips import ClipFile
from trapline.decoding.decode import PREPROCESSING
from trapline.decoding.media import decode_media
from trapline.decoding.sampling import Sampling
from trapline.errors import CheckpointError, StorageError, UsageError
from trapline.model import checkpoint
from trapline.model.architecture import VARIANTS
from trapline.model.checkpoint import Model
from trapline.model.predict import Predictor
from trapline.results.schema import SCHEMA_VERSION
from trapline.sources.file_types import is_clip
from trapline.sources.spooled import SpooledFile
from trapline.storage import store

# Frames of an example that are computed at once.
_BATCH = 8


@dataclass(frozen=True)
class Example:
    """What to look for.

    Attributes:
        name: as the user gave it.
        embedding: float32 [D].
        image_uri: of its row; None for a picture that is none.
    """

    name: str
    embedding: npt.NDArray[np.float32]
    image_uri: str | None = None


def examples(
    connection: duckdb.DuckDBPyConnection, results: Results, names: Sequence[str], model: str | None
) -> list[Example]:
    """Return the examples of these names: rows of the results with their stored embeddings, or else pictures and clips.

    A picture is decoded as for `classify` and embedded in fp32: against rows that were computed in bf16 its own row has
    a cosine a little below 1.

    Args:
        connection: of `sql.connect`, with the view `images`.
        results: where to search.
        names: each an `image_uri`, or the URL of a picture or a clip.
        model: the checkpoint that the results were computed with; needed for pictures only.

    Raises:
        UsageError: the results have no embeddings, or a name is neither a row with an embedding nor a picture.
        CheckpointError: the model is not the one of the results, or cannot be used.
        TransientError: the store did not answer, after retries.
    """
    dataset.require_columns(results, ["embedding"])
    found: list[Example] = []
    loaded: Model | None = None
    for name in names:
        example = _row(connection, results, name)
        if example is None:
            if model is None:
                raise UsageError(
                    f"{name}: is no image_uri of {results.output}; for a picture outside of it, name the checkpoint "
                    "of the results with --model"
                )
            loaded = loaded or _model(results, model)
            example = Example(name, _embed(results, loaded, name))
        found.append(example)
        norm = float(np.linalg.norm(example.embedding))
        if not 0 < norm < np.inf:
            raise UsageError(f"{name}: its embedding has length {norm}, and no direction to compare; choose another")
    return found


def nearest(
    connection: duckdb.DuckDBPyConnection,
    results: Results,
    like: Sequence[Example],
    count: int,
    where: str | None = None,
) -> str:
    """Find the rows most like any of the examples, without the examples' own, as a table of the connection.

    Its columns: rank from 1; cosine, of the embedding with that of the nearest example; example, its name, where there
    are several; species and probability, where the model has classes; captured_at; image_uri; frame_seconds, where
    there are clips, of the frame of a clip of which the others speak, too. Equals stand in the order of their
    image_uri. What has no embedding, or one without a direction, is no neighbour.

    One pass over the columns it needs; memory is that of DuckDB's row groups and of the `count` best. For 200,000 rows
    of 768 float32 on two busy cores it took 2.3 s of processor time and 290 MB; two examples more cost 0.9 s. Record
    batches of pyarrow with a matrix product each took 4.0 s. (`list_cosine_similarity` refuses a column in which a row
    has no embedding, even where the condition leaves that row out.)

    Args:
        connection: of `sql.connect`, with the view `images`, frames included.
        results: of that view.
        like: at least one.
        count: how many rows, at most.
        where: a condition in SQL on the columns of a row; of a clip on those of its frames.

    Returns:
        The table's name.

    Raises:
        UsageError: DuckDB refuses the condition.
        StorageError: DuckDB cannot read the results.
    """
    model_columns = "species, probability, " if results.classes else ""
    several = "names[list_position(cosines, cosine)] AS example, " if len(like) > 1 else ""
    condition = f"({where}\n)" if where else "true"  # the line's end ends a comment, too
    if where:
        try:
            connection.execute(f"SELECT 1 FROM images WHERE {condition} LIMIT 0")
        except duckdb.Error as error:
            raise UsageError(f"--where {where}: {' '.join(str(error).split())}") from error
    width = len(like[0].embedding)
    has_frames = any(file.frames for file in results.files)
    seconds = ", frame_seconds" if has_frames else ""

    def best(of: str) -> str:
        return f"""
            SELECT * FROM (
                SELECT {model_columns} captured_at, image_uri{seconds}, $names AS names,
                    list_transform(
                        $embeddings::FLOAT[{width}][],
                        lambda example: array_cosine_similarity(embedding::FLOAT[{width}], example)
                    ) AS cosines,
                    list_max(cosines) AS cosine
                FROM images
                WHERE embedding IS NOT NULL AND NOT list_contains($own::VARCHAR[], image_uri) AND {condition} AND {of}
            ) WHERE NOT isnan(cosine)"""

    if has_frames:
        # Frames are grouped by their clip apart from the images, of which there may be a hundred times as many.
        candidates = f"""
            {best("frame_seconds IS NULL AND media_type IS DISTINCT FROM 'video'")}
            UNION ALL
            SELECT unnest(arg_max(frame, (cosine, -frame_seconds)))
            FROM ({best("frame_seconds IS NOT NULL")}) AS frame GROUP BY image_uri"""
    else:
        candidates = best("true")
    query = f"""
        CREATE OR REPLACE TABLE nearest AS
        WITH best AS (SELECT * FROM ({candidates}) ORDER BY cosine DESC, image_uri LIMIT $count)
        SELECT row_number() OVER (ORDER BY cosine DESC, image_uri) AS rank, cosine, {several}
            {model_columns} captured_at, image_uri{seconds}
        FROM best ORDER BY rank
    """
    parameters = {
        "names": [example.name for example in like],
        "embeddings": [example.embedding.tolist() for example in like],
        "own": [example.image_uri for example in like if example.image_uri],
        "count": count,
    }
    with translated(results.output):
        connection.execute(query, parameters)
    return "nearest"


def _row(connection: duckdb.DuckDBPyConnection, results: Results, name: str) -> Example | None:
    for uri in dict.fromkeys((name, store.absolute(name))):
        # An image_uri begins with its shard's: one file to read, of perhaps a million.
        urls = [result.url for result in results.files if uri.startswith(f"{result.shard}#")]
        if not urls:
            continue
        with translated(results.output):
            query = f"SELECT embedding, error FROM {dataset.without_frames(connection, urls)} WHERE image_uri = $uri"
            found = connection.execute(query, {"uri": uri}).fetchall()
        if found:
            embedding, error = found[0]
            if embedding is None:
                raise UsageError(f"{name}: has no embedding ({error}); choose another example")
            return Example(name, np.array(embedding, np.float32), uri)
    return None


def _model(results: Results, source: str) -> Model:
    """Load the checkpoint of the results, for pictures of their size."""
    facts = results.fingerprint.facts
    variant = facts["architecture"]["variant"]
    size = facts["size"]
    try:
        model = checkpoint.load(
            source,
            size=(size[0], size[1]),
            architecture=variant if variant in VARIANTS else None,
            sha256=facts["weights_sha256"],
        )
    except CheckpointError as error:
        digest = facts["weights_sha256"]
        raise CheckpointError(f"{error} ({results.output} was computed with weights {digest})") from error
    for name, mine in {"preprocessing": PREPROCESSING, "schema_version": SCHEMA_VERSION}.items():
        if facts[name] != mine:
            raise UsageError(
                f"{results.output}: was computed by another version of Trapline ({name} {facts[name]}, here {mine}), "
                "and pictures cannot be compared with it; name an image_uri, or classify again with --replace"
            )
    return model


def _embed(results: Results, model: Model, url: str) -> npt.NDArray[np.float32]:
    computed = results.fingerprint.facts
    sampling = Sampling(computed.get("video_fps", Sampling.fps), computed.get("video_frames", Sampling.frames))
    try:
        if is_clip(url):
            file = SpooledFile.loose(store.stat(url))
            data: bytes | ClipFile = ClipFile(file.path, file.sha256, file)
        else:
            data = store.read_many([url])[0]
    except StorageError as error:
        raise UsageError(f"{url}: is no image_uri of {results.output}, and no picture either: {error}") from error
    pixels, facts = decode_media(data, model.size, computed.get("decode", "exact"), sampling=sampling)
    if pixels is None:
        raise UsageError(f"{url}: cannot be used as example ({facts.error}); choose another")
    frames = pixels.reshape(-1, 3, *model.size)
    embedding: npt.NDArray[np.float32] = Predictor(model, "cpu", "fp32", _BATCH)(frames.numpy()).embedding.mean(axis=0)
    return embedding
